"""The lab: real parts that are powered off and on as a whole, and say truly what becomes of orders."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from frangible import lab
from frangible.errors import LabError
from frangible.inventory import load_inventory
from frangible.lab.client import ask
from frangible.lab.layout import Folder
from frangible.lab.machines import LAB_VARIABLE
from frangible.lab.parts import find_tools
from frangible.lab.tree import descendants, environment_of, kill_until_gone, snapshot, still

from ..waiting import eventually

LONDON, NEWYORK = "lab-london", "lab-newyork"


def of_lab(folder: Path) -> list[int]:
    """Live processes that carry a lab's mark, or are a PostgreSQL that works inside of it."""
    found = []
    for pid in snapshot():
        try:
            place = Path(f"/proc/{pid}/cwd").readlink()
        except OSError:
            continue
        if environment_of(pid).get(LAB_VARIABLE) == str(folder) or place.is_relative_to(folder):
            found.append(pid)
    return found


def test_every_outcome_is_there_from_the_start(running_lab):
    """A rate needs a zero to start from: each outcome and each audit result has a series before it first happens."""
    outcomes = {(environment, outcome) for environment in (LONDON, NEWYORK) for outcome in ("in_time", "late", "rejected")}
    results = {(environment, result) for environment in (LONDON, NEWYORK) for result in ("exact", "lost", "duplicated")}
    # A scrape that took too long on a busy machine leaves a hole; the next one fills it.
    eventually(lambda: set(running_lab.query("count by (environment, outcome) (order_outcomes_total)")) == outcomes, "every outcome")
    eventually(lambda: set(running_lab.query("count by (environment, result) (orders_audited_total)")) == results, "every result")


def test_each_offered_order_has_exactly_one_outcome(running_lab):
    """What was offered is decided, or younger than the bound: the counters of one scrape add up."""
    offered, in_time, late = running_lab.counts(LONDON)
    assert 0 <= offered - in_time - late <= 40 * 3


def test_the_fragile_environment_loses_its_only_execution_and_recovers_with_it(running_lab):
    """With one node for a role, no order is in time while it is off, and orders are in time again once it is back."""
    running_lab.do("power_off", NEWYORK, "exec-1")
    running_lab.share_of_next(NEWYORK, 80)  # orders from before, and what Prometheus had not seen yet
    assert running_lab.share_of_next(NEWYORK, 80) == 0
    running_lab.do("power_on", NEWYORK, "exec-1")
    running_lab.wait_ready(NEWYORK, "exec-1")
    assert any(running_lab.share_of_next(NEWYORK, 80) > 0.95 for _ in range(20))


def test_a_machine_with_middleware_dies_whole_and_comes_back(running_lab):
    """Power off reaches PostgreSQL's children, each in a session of its own; power on starts PostgreSQL on what the dead one left."""
    alive = running_lab.do("node", NEWYORK, "core-1")["processes"]
    sessions = {os.getsid(process["pid"]) for process in alive}
    assert len(sessions) > 3
    running_lab.do("power_off", NEWYORK, "core-1")
    assert not any(still(process["pid"], process["start"]) for process in alive)
    running_lab.do("power_on", NEWYORK, "core-1")
    running_lab.wait_ready(NEWYORK, "core-1")
    assert any(running_lab.share_of_next(NEWYORK, 80) > 0.95 for _ in range(20))


def test_what_is_orphaned_on_a_node_dies_with_it(running_lab):
    """When a node's supervisord is killed by another hand, its orphans still count as the node, and are switched off with it."""
    alive = running_lab.do("node", LONDON, "app-2")["processes"]
    os.kill(alive[0]["pid"], signal.SIGKILL)
    orphaned = running_lab.do("node", LONDON, "app-2")
    assert orphaned["powered"]
    assert not orphaned["ready"]
    running_lab.do("power_off", LONDON, "app-2")
    assert not any(still(process["pid"], process["start"]) for process in alive)
    running_lab.do("power_on", LONDON, "app-2")
    running_lab.wait_ready(LONDON, "app-2")


def test_switching_twice_is_switching_once(running_lab):
    """Power off and power on are idempotent: the second changes nothing."""
    running_lab.do("power_off", NEWYORK, "app-2")
    running_lab.do("power_off", NEWYORK, "app-2")
    first = running_lab.do("power_on", NEWYORK, "app-2")
    assert running_lab.do("power_on", NEWYORK, "app-2") == first
    running_lab.wait_ready(NEWYORK, "app-2")


def test_several_clients_are_served_at_once(running_lab):
    """Many may ask while a node is switched; each gets the answer to its own question."""
    with ThreadPoolExecutor(8) as pool:
        switching = pool.submit(running_lab.do, "power_off", NEWYORK, "app-1")
        looks = list(pool.map(lambda number: running_lab.do("node", LONDON, f"app-{1 + number % 2}"), range(16)))
        assert switching.result()["ok"]
    assert all(look["powered"] for look in looks)
    running_lab.do("power_on", NEWYORK, "app-1")
    running_lab.wait_ready(NEWYORK, "app-1")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"do": "explode"}, "power_off"),
        ({"do": "power_off", "environment": LONDON, "node": "app-9"}, "lab-london/app-1"),
        ({"do": "rate", "environment": "lab-mars", "rate": 1}, "lab-newyork"),
        ({"do": "rate", "environment": LONDON, "rate": -1}, "from 0 to 10000"),
        ({"do": "rate", "environment": LONDON, "rate": True}, "from 0 to 10000"),
    ],
    ids=["verb", "node", "environment", "negative-rate", "boolean-rate"],
)
def test_the_rack_refuses_what_it_does_not_know(running_lab, request_, said):
    """A request that cannot be done changes nothing and is answered with what would be possible."""
    with pytest.raises(LabError, match=said):
        ask(running_lab.state.folder, request_)


def test_the_rate_follows_the_rack(running_lab):
    """The generator offers what the rack was asked to have offered."""
    ask(running_lab.state.folder, {"do": "rate", "environment": LONDON, "rate": 20})
    try:
        assert running_lab.do("nodes")["ok"]
        assert any(running_lab.query(f'generator_rate{{environment="{LONDON}"}} == 20') or running_lab.share_of_next(LONDON, 20) < 0 for _ in range(20))
    finally:
        ask(running_lab.state.folder, {"do": "rate", "environment": LONDON, "rate": 40})


def test_no_acknowledged_order_is_lost_or_executed_twice(running_lab):
    """After all that was done to the lab, every acknowledged order is in PostgreSQL exactly once."""
    audited = running_lab.query("sum by (result) (orders_audited_total)")
    assert audited[("exact",)] > 0
    assert audited[("lost",)] == 0
    assert audited[("duplicated",)] == 0


def test_the_inventory_describes_the_lab(running_lab):
    """The inventory that `up` writes loads, and names nodes that the rack knows."""
    inventory = load_inventory(running_lab.inventory)
    nodes = {f"{name}/{node.name}" for name, environment in inventory.environments.items() for node in environment.nodes}
    assert nodes == set(running_lab.do("nodes")["nodes"])
    versions = {item.name: item.version for item in inventory.environments[LONDON].middleware}
    assert versions["nats"] == find_tools().versions["nats"]


def test_up_twice_is_up_once(running_lab):
    """`up` says that the lab is up already, and leaves it alone."""
    said: list[str] = []
    again = lab.up(running_lab.home.lab, said.append)
    assert again.rack == running_lab.state.rack
    assert "up already" in said[0]


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `frangible lab ...` in a session of its own, as a terminal that closes afterwards."""
    program = "import sys; from frangible.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "lab", *words]
    return subprocess.run(command, env={**os.environ, "FRANGIBLE_HOME": str(home)}, capture_output=True, text=True, timeout=120, start_new_session=True)


def test_a_lab_outlives_who_started_it_and_not_its_down(tmp_path):
    """From a deep folder, by the command line: it lives in a session of its own; after `kill -9` of its rack, `down` leaves no process and no file."""
    home = tmp_path / "a-folder-so-deep-that-no-socket-could-be-bound-by-its-whole-path" / "and-a-little-deeper-still 100%"
    home.mkdir(parents=True)
    assert cli(home, "status").returncode == 3
    started = cli(home, "up", "-e", LONDON, "-e", NEWYORK)
    try:
        assert started.returncode == 0, started.stderr
        status = cli(home, "status", "--json")
        assert status.returncode == 0
        document = json.loads(status.stdout)
        assert all(node["ready"] for environment in document["environments"] for node in environment["nodes"])
        assert "lab_rack" in cli(home, "logs").stdout
        state = lab.status(home / "lab")
        assert state is not None
        assert state.rack is not None
        rack = state.rack.pid
        assert os.getsid(rack) == rack
        inherited = [str(Path(f"/proc/{rack}/fd/{name}").readlink()) for name in ("0", "1", "2")]
        assert inherited == ["/dev/null", *[str(Folder(home.resolve() / "lab").log("lab", "rack"))] * 2]
        processes = of_lab(state.folder)
        assert len(processes) > 20
        os.kill(rack, signal.SIGKILL)
    finally:
        ended = cli(home, "down")
    assert ended.returncode == 0, ended.stderr
    assert of_lab(state.folder) == []
    assert not set(processes) & set(snapshot())
    assert not (home / "lab").exists()
    assert cli(home, "status").returncode == 3


def test_a_failed_up_leaves_nothing_running_and_names_the_log(tmp_path, monkeypatch):
    """When a part ends while the lab starts, the error names its log, which is still there, and every process is gone."""
    broken = tmp_path / "prometheus"
    broken.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo version 9.9.9; else echo the disk is on fire; exit 1; fi\n')
    broken.chmod(0o755)
    monkeypatch.setenv("FRANGIBLE_PROMETHEUS", str(broken))
    with pytest.raises(LabError, match=r"lab_prometheus\.log") as caught:
        lab.up(tmp_path / "lab", lambda _: None, (LONDON,))
    log = Path(str(caught.value).rsplit(" ", 1)[1])
    assert "the disk is on fire" in log.read_text()
    assert of_lab(tmp_path / "lab") == []
    assert lab.status(tmp_path / "lab") is None


def test_a_missing_part_is_named_with_where_to_get_it(tmp_path, monkeypatch):
    """Without Prometheus nothing is started, and the message says how to get one."""
    monkeypatch.setenv("FRANGIBLE_PROMETHEUS", str(tmp_path / "nowhere"))
    with pytest.raises(LabError, match="set FRANGIBLE_PROMETHEUS"):
        lab.up(tmp_path / "lab", lambda _: None, (LONDON,))


ORPHANS = """
import os, subprocess, sys, time
from frangible.lab.node import become_subreaper
become_subreaper()
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        time.sleep(600)
    os.wait()
print("ready", flush=True)
time.sleep(600)
"""


def test_a_tree_dies_whole_also_its_orphans_in_sessions_of_their_own():
    """Grandchildren that left group, session and parent are still descendants of their subreaper, and die with it."""
    root = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE)
    assert root.stdout is not None
    root.stdout.readline()
    below = descendants(root.pid, snapshot())
    kill_until_gone(lambda: descendants(root.pid, snapshot()))
    assert len(below) >= 3
    assert not any(still(process.pid, process.start) for process in below)
    root.kill()
    root.wait()
    root.stdout.close()
