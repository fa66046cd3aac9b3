"""The lab through ssh on loopback: leases, locks, rack and processes of its environments are all reached through a real sshd."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from frangible.platforms.ssh import SshTransport

from ..sshd import Server, listening, masters, until
from .conftest import RunningLab
from .runs import hypothesis, orders, write_experiment
from .starting import LONDON, Place, Started, all_ready, looked_after, proven, seen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One sshd for all of these tests."""
    with listening(tmp_path_factory.mktemp("reach") / "sshd") as running:
        yield running


@pytest.fixture
def place(running_lab: RunningLab, server: Server, tmp_path: Path) -> Iterator[Place]:
    """The lab's own inventory, but that its host is reached with ssh."""
    estate = yaml.safe_load(running_lab.inventory.read_text())
    reached = {name: str(value) for name, value in server.settings.model_dump(by_alias=True, exclude_none=True).items()} | {"port": server.port}
    for entry in estate["environments"]:
        entry["platform"] |= {"transport": "ssh", "ssh": reached}
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(yaml.safe_dump(estate, sort_keys=False))
    place = Place.new(running_lab, tmp_path, inventory)
    yield place
    for started in place.begun:
        started.give_up()
    all_ready(running_lab, LONDON)


def lose_a_node(place: Place, hold: float) -> Started:
    """Begin node loss on the robust environment; return once the fault is proven."""
    experiment = write_experiment(place.home.path.parent / "experiment", hypothesis("flow", orders()), hold=hold)
    return place.start("frangible run", experiment, LONDON).reach(proven)


def test_a_connection_that_is_killed_while_the_node_is_lost_changes_nothing(place: Place, server: Server) -> None:
    """Master and sshd's child are gone in the middle of the effect: the next look opens another connection, the run holds, nothing is left."""
    started = lose_a_node(place, hold=8.0)
    before = {*server.sessions(), *(one.pid for one in masters(SshTransport(server.settings).control))}
    assert len(before) >= 2
    for process in before:
        os.kill(process, signal.SIGKILL)
    until(lambda: set(server.sessions()) - before)
    over = looked_after(started)
    assert (over.outcome, over.code) == ("held", 0), over.why
    assert over.record is not None
    [proof] = over.record.proofs
    assert (proof.injected, proof.reverted, proof.proven_share) == (True, True, 1.0)
    assert "its 4 processes are gone" in over.said
    assert over.left_over == []
    assert over.record.fingerprint["kernel.release"] == os.uname().release
    doctor = place.frangible("doctor", "--environment", LONDON)
    assert "ok      ssh: 127.0.0.1 answers in" in doctor.stdout, doctor.stdout + doctor.stderr
    assert doctor.returncode == 0, doctor.stdout


def test_a_host_that_cannot_be_reached_when_the_hold_ends_is_reverted_as_soon_as_it_can(place: Place, server: Server) -> None:
    """Its sshd is gone from the proven fault on: the run does not call it proven, and the revert is tried until the host answers again."""
    started = lose_a_node(place, hold=6.5)
    server.stop()
    started.reach(seen(event="fault", state="not-proven")).reach(seen(event="fault", state="reverting"))
    server.start()
    over = looked_after(started)
    assert over.left_over == [], over.why
    assert over.record is not None
    assert [proof.reverted for proof in over.record.proofs] == [True]
    assert over.outcome == "inconclusive", over.why
