"""The lab's estate: which environments it has, and what makes some of them fragile."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from frangible.errors import LabError
from frangible.lab.files import alert_rules
from frangible.lab.layout import ESTATE, PARENTS, chosen
from frangible.lab.parts import find_tools
from frangible.lab.ports import choose_ports
from frangible.lab.programs import port_names
from frangible.lab.services import bus
from frangible.lab.services.quota import PERIOD, Quota
from frangible.lab.services.risk import work
from frangible.lab.services.settings import NODE_VARIABLE, Settings
from frangible.lab.state import LabState, Tools

ROOT = Path(__file__).resolve().parents[2]


def test_the_estate_has_two_parents_and_five_environments_in_three_cities() -> None:
    """Each environment has a parent that is declared, and all differ from the robust one."""
    assert {spec.region for spec in ESTATE} == {"newyork", "london", "frankfurt"}
    assert {spec.parent for spec in ESTATE} == {parent.name for parent in PARENTS}
    assert len({spec.name for spec in ESTATE}) == len(ESTATE) == 5


def test_a_lab_has_the_environments_that_were_asked_for() -> None:
    """In the estate's order, all of them where none is named; a name that the estate does not have is an error that lists what it has."""
    assert [spec.name for spec in chosen(("lab-newyork", "lab-london"))] == ["lab-london", "lab-newyork"]
    assert chosen(()) == ESTATE
    with pytest.raises(LabError, match=r"no environment lab-mars; choose among lab-london, "):
        chosen(("lab-london", "lab-mars"))


def test_a_lab_is_found_again_with_its_environments(tmp_path: Path) -> None:
    """What was started is written down with the lab, and ports are only those that it needs."""
    names = ("lab-london",)
    tools = Tools(Path("/n"), Path("/p"), Path("/q"), {})
    state = LabState(tmp_path, None, choose_ports(port_names(chosen(names))), "secret", tools, names, {"lab-london/app-1": 0.9})
    state.write()
    found = LabState.read(tmp_path)
    assert found == state
    assert [spec.name for spec in state.estate] == ["lab-london"]
    assert {name.split("/")[0] for name in state.ports} == {"lab-london", "prometheus"}


def test_the_risk_model_takes_the_cpu_time_that_it_was_sized_for() -> None:
    """On any machine, whatever else it does."""
    before = time.thread_time()
    for _ in range(5):
        work(b"order", 0.02)
    assert 0.1 <= time.thread_time() - before < 0.15


def test_a_cpu_limit_is_kept() -> None:
    """Work that could use a whole CPU uses its share, whatever else runs on the machine."""

    async def used_of(cpus: float) -> float:
        quota = Quota(cpus)
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() < began + 2:
            await quota.wait()
            work(b"order", 0.002)
        return (time.process_time() - used) / (time.monotonic() - began)

    assert asyncio.run(used_of(0.2)) < 0.25


def test_whoever_keeps_to_a_limit_waits_for_what_its_neighbours_use() -> None:
    """With neighbours that use all of it and more, there is one turn in each period; a period after they have gone it is as before."""

    async def turns(neighbours: float) -> tuple[int, float]:
        began = time.monotonic()
        quota = Quota(0.2, lambda: min(time.monotonic() - began, 1.0) * neighbours)
        count = 0
        while time.monotonic() < began + 1:
            await quota.wait()
            await asyncio.sleep(0.001)
            count += 1
        owed = await quota.wait()
        return count, owed

    busy, owed = asyncio.run(turns(1.5))
    assert 5 <= busy <= 30  # the share that was left, then a turn in each of ten periods
    assert owed <= PERIOD * 1.01
    free, owed = asyncio.run(turns(0.1))
    assert free > 40
    assert owed == 0


NODE_USE = """
import os, subprocess, sys, time
from frangible.lab.services.quota import NodeUse
burn = [sys.executable, "-c", "import time; t = time.process_time()\\nwhile time.process_time() < t + 0.5: pass\\ntime.sleep(30)"]
use = NodeUse()
ours = subprocess.Popen(burn)
other = subprocess.Popen(burn, env={**os.environ, "FRANGIBLE_LAB_NODE": "another"})
use._listed_at = -1.0
began = use.seconds()
end = time.monotonic() + 20
while use.seconds() < began + 0.4 and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(0.5)
print(use.seconds() - began)
ours.kill(), other.kill()
"""


def test_what_a_node_uses_is_what_its_own_processes_use() -> None:
    """A neighbour on the same node counts, one on another node does not."""
    environment = {**os.environ, "FRANGIBLE_LAB": "/nowhere", "FRANGIBLE_LAB_NODE": "one"}
    done = subprocess.run([sys.executable, "-c", NODE_USE], env=environment, capture_output=True, text=True, check=True)
    assert 0.35 < float(done.stdout) < 0.8


@pytest.mark.parametrize("reconnects", [True, False], ids=["reconnects", "naive"])
def test_a_naive_service_stays_without_its_bus_once_that_was_started_anew(reconnects: bool) -> None:
    """A real NATS is killed and started again: a client that reconnects is back, one that does not is not."""
    port = choose_ports(["nats"])["nats"]

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([str(find_tools().nats), "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)

    async def back() -> bool:
        server = start()
        client, other = [await bus.connect(f"nats://127.0.0.1:{port}", "test", reconnects=each) for each in (reconnects, True)]
        server.kill()
        server.wait()
        async with asyncio.timeout(30):
            while client.is_connected or other.is_connected:
                await asyncio.sleep(0.05)
            server = start()
            while not other.is_connected or client.is_connected is not reconnects:
                await asyncio.sleep(0.05)
        connected = client.is_connected
        await asyncio.gather(client.close(), other.close())
        server.kill()
        server.wait()
        return connected

    assert asyncio.run(back()) is reconnects


@pytest.mark.checkout
def test_the_cluster_has_the_alerts_of_the_lab() -> None:
    """deploy/prometheus/alerts.yml is what the lab's Prometheus is given."""
    assert yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()) == alert_rules()


@pytest.mark.checkout
@pytest.mark.parametrize("file", sorted((ROOT / "deploy" / "estate").glob("*/*.json")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_the_settings_of_the_cluster_are_those_that_services_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file serves the instances on all nodes; the pod's environment says which node it is."""
    monkeypatch.setenv(NODE_VARIABLE, "worker-1")
    settings = Settings.read(str(file))
    assert (settings.environment, settings.node, settings.listen) == (f"k8s-{file.parent.name}", "worker-1", "0.0.0.0")


def test_settings_without_a_node_are_refused_with_the_variable_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that does not know where it runs would be counted nowhere."""
    monkeypatch.delenv(NODE_VARIABLE, raising=False)
    file = tmp_path / "service.json"
    file.write_text('{"environment": "k8s-robust", "port": 8000}')
    with pytest.raises(SystemExit, match=rf"expected `node` in it, or the node's name in {NODE_VARIABLE}"):
        Settings.read(str(file))
