"""The lab's estate: which environments it has, and what makes some of them fragile."""

import asyncio
import hashlib
import subprocess
import time
from pathlib import Path

import pytest

from frangible.errors import LabError
from frangible.lab.layout import ESTATE, PARENTS, chosen
from frangible.lab.parts import find_tools
from frangible.lab.ports import choose_ports
from frangible.lab.programs import port_names
from frangible.lab.services import bus
from frangible.lab.services.risk import Quota, rounds_for
from frangible.lab.state import LabState, Tools


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
    """On any machine; nothing where no work is wanted."""
    rounds = rounds_for(0.02)
    spent = []
    for _ in range(5):
        before = time.thread_time()
        hashlib.pbkdf2_hmac("sha256", b"order", b"", rounds)
        spent.append(time.thread_time() - before)
    assert 0.01 < min(spent) < 0.04
    assert rounds_for(0) == 0


def test_a_cpu_limit_is_kept() -> None:
    """Work that could use a whole CPU uses its share, whatever else runs on the machine."""

    async def work(cpus: float) -> float:
        quota = Quota(cpus)
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() < began + 2:
            await quota.wait()
            hashlib.pbkdf2_hmac("sha256", b"order", b"", 4000)
        return (time.process_time() - used) / (time.monotonic() - began)

    assert asyncio.run(work(0.2)) < 0.25


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
