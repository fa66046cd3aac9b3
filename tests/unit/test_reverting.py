"""Reverting from a lease, by whoever finds it: on a real platform whose nodes are switched by commands, with a real ledger."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from frangible.actions.node_loss import NodeLoss
from frangible.clock import SystemClock
from frangible.database import Database
from frangible.errors import RevertFailed
from frangible.fault import FaultRegistry, Target
from frangible.home import Home
from frangible.inventory import Inventory, load_inventory
from frangible.journal import Journal
from frangible.ledger import Lease, LeaseState, Ledger
from frangible.ledger.schema import LEDGER
from frangible.platforms import Platform, open_platform
from frangible.process import ProcessIdentity
from frangible.recovery import recover
from frangible.reverting import LEDGER_PATIENCE, SKEW, Reverter
from frangible.supervisor.faults import Faults

if TYPE_CHECKING:
    from frangible.supervisor.admitting import Admitted

pytestmark = pytest.mark.once

NODE = Target("node", "n1")


@dataclass
class Place:
    """One environment whose node is on while a file exists."""

    home: Home
    inventory: Inventory
    platform: Platform
    ledger: Ledger
    switch: Path

    def lease(self, state: LeaseState, **changes: object) -> Lease:
        """A lease of a run that died, brought to a state as an injector would."""
        me = ProcessIdentity.current()
        now = self.ledger.store_time()
        lease = Lease(
            id="r1-1",
            run_id="r1",
            environment="ny",
            fault="node-loss",
            fault_module="frangible.actions.node_loss",
            fault_version=1,
            parameters={},
            target=NODE,
            prior={"instance": "", "processes": []},
            keys=("environment:ny",),
            state=LeaseState.INTENDED,
            epoch=0,
            injector=me,
            claimed_by=None,
            created_at=now,
            expires_at=now + 600,
            updated_at=now,
            error="",
        )
        lease = replace(lease, **changes)  # type: ignore[arg-type]
        self.ledger.intend(lease)
        self.platform.put_lease_copy("n1", lease.id, lease.to_json())
        if state is not LeaseState.INTENDED:
            self.ledger.begin_injecting(lease.id)
            self.platform.power_off("n1")
        if state is LeaseState.INJECTED:
            self.ledger.mark_injected(lease.id)
        return self.ledger.get(lease.id)

    def reverter(self, **changes: object) -> Reverter:
        """A reverter of this process."""
        return replace(Reverter(self.platform, self.ledger, ProcessIdentity.current(), limit=0.5), **changes)  # type: ignore[arg-type]

    @property
    def powered(self) -> bool:
        """Whether the node is on, asked of the node."""
        return self.switch.exists()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    switch = tmp_path / "power" / "n1"
    switch.parent.mkdir()
    switch.touch()
    document = {
        "environments": [
            {
                "name": "ny",
                "region": "ny",
                "tier": "staging",
                "owner": {"team": "t", "contact": "c"},
                "platform": {
                    "kind": "hosts",
                    "transport": "local",
                    "root": str(tmp_path / "targets"),
                    "locks": str(tmp_path / "locks"),
                    "power": {
                        "driver": "command",
                        "on": ["touch", str(switch.parent / "{node}")],
                        "off": ["rm", "-f", str(switch.parent / "{node}")],
                        "state": ["sh", "-c", f"test -e {switch.parent}/$0 && echo on || echo off", "{node}"],
                    },
                },
                "nodes": [{"name": "n1", "roles": ["execution"]}],
            }
        ]
    }
    path = tmp_path / "frangible-inventory.yaml"
    path.write_text(yaml.safe_dump(document))
    inventory = load_inventory(path)
    home = Home(tmp_path / "home")
    home.path.mkdir()
    with contextlib.closing(Ledger.open(f"sqlite:///{home.path / 'ledger.db'}")) as ledger:
        yield Place(home, inventory, open_platform(inventory.get("ny")), ledger, switch)
        for thread in threading.enumerate():  # a claim that was given up still holds a connection
            if thread.name.startswith("claim"):
                thread.join(30)


@pytest.fixture
def own_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRANGIBLE_JOURNAL", "FRANGIBLE_LEDGER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def injector() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("state", [LeaseState.INJECTING, LeaseState.INJECTED])
def test_a_revert_brings_the_node_back_and_leaves_no_copy(place, state):
    lease = place.lease(state)
    done = place.reverter().revert(lease, NodeLoss())
    assert place.powered
    assert (done.recorded, done.by_us, place.ledger.get(lease.id).state) == (True, True, LeaseState.REVERTED)
    assert place.platform.lease_copies() == {}


def test_what_was_never_injected_is_not_undone(place):
    """The node was switched off by somebody else between the lease and the injection that never came."""
    lease = place.lease(LeaseState.INTENDED)
    place.platform.power_off("n1")
    place.reverter().revert(lease, NodeLoss())
    assert not place.powered
    assert place.ledger.get(lease.id).state is LeaseState.REVERTED


def test_a_second_revert_does_nothing(place):
    lease = place.lease(LeaseState.INJECTED)
    place.reverter().revert(lease, NodeLoss())
    place.platform.power_off("n1")  # somebody's own decision, after our revert
    done = place.reverter().revert(lease, NodeLoss())
    assert not done.by_us
    assert not place.powered


def test_the_injector_is_dead_before_its_fault_is_reverted(place, injector):
    identity = ProcessIdentity.of(injector.pid)
    assert identity is not None
    lease = place.lease(LeaseState.INJECTED, injector=identity)
    place.reverter().revert(lease, NodeLoss())
    assert not identity.is_alive()
    assert place.powered


def test_an_injector_out_of_reach_is_waited_for_until_its_lease_expires(place):
    elsewhere = replace(ProcessIdentity.current(), host=f"not-{socket.gethostname()}")
    lease = place.lease(LeaseState.INJECTED, injector=elsewhere)
    with pytest.raises(RevertFailed, match="may still act for"):
        place.reverter().revert(lease, NodeLoss())
    assert not place.powered
    just_expired = replace(lease, expires_at=place.ledger.store_time() - 1)
    with pytest.raises(RevertFailed, match=r"may still act for [34] s"):  # by its own clock, which may be late
        place.reverter().revert(just_expired, NodeLoss())
    place.reverter().revert(replace(lease, expires_at=place.ledger.store_time() - SKEW), NodeLoss())
    assert place.powered


def test_an_injector_of_this_hosts_name_is_this_host_s_only_in_this_boot_or_by_this_ledger(place):
    """Two machines may have one name: what is known from a copy alone may be the other's, which lives."""
    another_boot = replace(ProcessIdentity.current(), boot="another")
    lease = place.lease(LeaseState.INJECTED, injector=another_boot)
    with pytest.raises(RevertFailed, match="may still act for"):
        place.reverter(ledger=None).revert(lease, NodeLoss())
    with contextlib.closing(Ledger.open(f"sqlite:///{place.home.path}/other.db")) as other:
        other.adopt(lease)
        with pytest.raises(RevertFailed, match="may still act for"):
            place.reverter(ledger=other).revert(lease, NodeLoss())
    assert not place.powered
    place.reverter().revert(lease, NodeLoss())  # this ledger was written here, before a reboot
    assert place.powered


def test_a_copy_that_cannot_be_read_is_told_and_does_not_keep_the_others_from_being_reverted(place):
    place.lease(LeaseState.INJECTED, injector=dead())
    place.platform.put_lease_copy("n1", "r0-1", "half a le")
    report = recover(place.home, place.inventory, registry=FaultRegistry())
    assert place.powered
    assert [problem for problem in report.problems if "the lease copy r0-1 is left alone" in problem]


def test_a_revert_without_a_ledger_still_reverts_and_says_that_nobody_knows(place):
    lease = place.lease(LeaseState.INJECTED)
    done = place.reverter(ledger=None).revert(lease, NodeLoss())
    assert place.powered
    assert not done.recorded


@contextlib.contextmanager
def ledger_held_by_somebody(place: Place) -> Iterator[None]:
    """Somebody else in the middle of writing the ledger: everybody can read, and nobody can write."""
    with contextlib.closing(sqlite3.connect(place.home.path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_revert_does_not_wait_for_a_ledger_that_somebody_holds(place):
    """The node is on again while the ledger is still held; what was done is recorded later."""
    lease = place.lease(LeaseState.INJECTED)
    told: list[str] = []
    with ledger_held_by_somebody(place):
        done = place.reverter(report=lambda _lease, state, _detail: told.append(state)).revert(lease, NodeLoss())
        assert place.powered
        assert told == ["reverting", "reverted"]
        assert not done.recorded
    assert place.reverter().record(lease, done.detail).recorded


def test_a_record_waits_longer_for_the_ledger_than_a_revert(place):
    """Nothing is in force any more, so there is time: a ledger that is busy for twice a revert's patience is told all the same."""
    lease = place.lease(LeaseState.INJECTED)
    place.platform.power_on("n1")
    held = threading.Event()

    def hold() -> None:
        with ledger_held_by_somebody(place):
            held.set()
            threading.Event().wait(2 * LEDGER_PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    assert place.reverter().record(lease, "on again").recorded
    holder.join()
    assert place.ledger.get(lease.id).state is LeaseState.REVERTED


class LateClaim(Ledger):
    """The ledger, in which somebody's claim lands late: between the claim and the record of whoever comes first."""

    late: ProcessIdentity | None = None

    def mark_reverted(self, lease_id: str, epoch: int) -> Lease:
        """Let the late claim land first, once."""
        if self.late is not None:
            self.claim(lease_id, self.late)
            self.late = None
        return super().mark_reverted(lease_id, epoch)


def test_a_claim_that_lands_late_does_not_keep_a_revert_from_being_recorded(place):
    """The chaoslib process gave up waiting for its claim, which lands when the ledger is free again: while the supervisor records."""
    lease = place.lease(LeaseState.INJECTED)
    with contextlib.closing(LateClaim(Database.open(f"sqlite:///{place.home.path / 'ledger.db'}", LEDGER))) as ledger:
        ledger.late = dead()
        assert place.reverter(ledger=ledger).record(lease, "powered again").recorded
    assert place.ledger.get(lease.id).state is LeaseState.REVERTED


def heard(faults: Faults, lease: Lease, state: str, **more: object) -> None:
    """The chaoslib process tells the supervisor of a lease."""
    faults.hear({"type": "fault", "lease": lease.id, "fault": lease.fault, "target": str(lease.target), "state": state, "detail": "", **more})


@dataclass
class ManualClock(SystemClock):
    """A monotonic clock that stands still between steps."""

    now: float = 100.0

    def monotonic(self) -> float:
        """Where it was set."""
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def faults(place, clock) -> Faults:
    run: Any = SimpleNamespace(plan=SimpleNamespace(run_id="r1"), ledger=place.ledger, platform=place.platform)
    return Faults(run, FaultRegistry(), lambda **_: None, lambda _: None, clock)


def test_a_process_that_says_that_it_reverts_is_believed_while_the_ledger_cannot_be_told(place, faults, clock):
    """Its claim cannot be written, so its word counts, until it says that it is done; then it has to get on with the next."""
    lease = place.lease(LeaseState.INJECTED)
    heard(faults, lease, "injected", copy=lease.to_json())
    with ledger_held_by_somebody(place):
        assert not faults.is_reverted_by(lease.injector)
        assert faults.any_unclaimed()
        stopped = clock.monotonic()
        clock.now += 0.3
        heard(faults, lease, "reverting")
        assert faults.is_reverted_by(lease.injector)
        assert faults.idle_since(stopped) == pytest.approx(0.0)
        clock.now += 1.0
        heard(faults, lease, "reverted")
        clock.now += 0.1
        assert not faults.is_reverted_by(lease.injector)
        assert not faults.any_unclaimed()
        assert faults.idle_since(stopped) == pytest.approx(0.1)


def test_the_ledger_says_who_reverts(place, faults):
    """A claim counts for its claimer alone."""
    lease = place.lease(LeaseState.INJECTED)
    place.ledger.claim(lease.id, lease.injector)
    assert faults.is_reverted_by(lease.injector)
    assert not faults.is_reverted_by(dead())
    assert not faults.is_reverted_by(None)
    assert not faults.any_unclaimed()


def test_a_node_that_does_not_come_back_is_a_failed_revert_that_stays_open(place):
    lease = place.lease(LeaseState.INJECTED)
    place.switch.parent.chmod(0o500)
    broken = replace_on_command(place)
    with pytest.raises(RevertFailed, match="frangible recover"):
        place.reverter(platform=broken).revert(lease, NodeLoss())
    place.switch.parent.chmod(0o700)
    assert place.ledger.get(lease.id).state is LeaseState.REVERT_FAILED
    place.reverter().revert(place.ledger.get(lease.id), NodeLoss())
    assert place.powered


def replace_on_command(place: Place) -> Platform:
    """The same environment, with an `on` command that fails."""
    environment = place.inventory.get("ny")
    power = environment.platform.power.model_copy(update={"on": ("false",)})  # type: ignore[union-attr]
    return open_platform(environment.model_copy(update={"platform": environment.platform.model_copy(update={"power": power})}))


def test_recover_reverts_what_the_ledger_knows(place, own_stores):
    lease = place.lease(LeaseState.INJECTED, injector=dead())
    report = recover(place.home, place.inventory, registry=FaultRegistry())
    assert place.powered
    assert [line.split()[0] for line in report.reverted] == [lease.id]
    assert report.clean
    assert recover(place.home, place.inventory, registry=FaultRegistry()).reverted == []


def test_recover_finds_a_lease_by_its_copy_when_the_ledger_is_lost(place, own_stores):
    place.lease(LeaseState.INJECTED, injector=dead())
    place.ledger.close()
    (place.home.path / "ledger.db").unlink()
    report = recover(place.home, place.inventory, registry=FaultRegistry())
    assert place.powered
    assert (len(report.reverted), report.failed) == (1, [])
    assert place.platform.lease_copies() == {}


def test_recover_leaves_the_live_run_of_another_ledger_alone(place, own_stores, injector):
    """Somebody else's run, known only by its copy: it is watched while its supervisor holds the lock, and left over once that is dead."""
    supervisor = ProcessIdentity.of(injector.pid)
    assert supervisor is not None
    place.platform.locks().acquire("environment:ny", "r1", supervisor, 600.0)
    place.lease(LeaseState.INJECTED, injector=supervisor)
    other = Home(place.home.path.parent / "other-home")
    other.path.mkdir()
    report = recover(other, place.inventory, registry=FaultRegistry())
    assert (report.reverted, report.failed) == ([], [])
    assert supervisor.is_alive()
    assert not place.powered
    with contextlib.closing(Ledger.open(other.ledger_url)) as ledger:
        assert ledger.open_leases() == ()
    supervisor.kill()
    assert len(recover(other, place.inventory, registry=FaultRegistry()).reverted) == 1
    assert place.powered


def test_recover_leaves_a_run_alone_whose_supervisor_is_on_another_host(place, own_stores):
    """Its lock is all that can be seen from here, and it counts until it expires."""
    elsewhere = replace(ProcessIdentity.current(), host=f"not-{socket.gethostname()}")
    place.platform.locks().acquire("environment:ny", "r1", elsewhere, 600.0)
    place.lease(LeaseState.INJECTED, injector=dead())
    report = recover(place.home, place.inventory, registry=FaultRegistry())
    assert (report.reverted, report.in_progress) == ([], ["r1"])
    assert not place.powered


def test_a_lease_whose_fault_cannot_be_loaded_stays_open_and_is_named(place, own_stores):
    lease = place.lease(LeaseState.INJECTED, injector=dead(), fault="no-such-fault")
    report = recover(place.home, place.inventory, registry=FaultRegistry())
    assert "no-such-fault" in report.failed[0]
    assert not report.clean
    assert place.ledger.get(lease.id).state is not LeaseState.REVERTED


def test_two_recoveries_at_once_leave_one_closed_lease(place, own_stores):
    """Real processes; whoever claims last records, and the node is on either way."""
    lease = place.lease(LeaseState.INJECTED, injector=dead())
    command = [sys.executable, "-m", "frangible.cli", "recover", "--inventory", str(place.home.path.parent / "frangible-inventory.yaml")]
    variables = {**os.environ, "FRANGIBLE_HOME": str(place.home.path)}
    both = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    assert place.powered
    assert place.ledger.get(lease.id).state is LeaseState.REVERTED
    assert place.platform.lease_copies() == {}
    with contextlib.closing(Journal.open(place.home.journal_url)) as journal:
        assert journal.orphans() == ()


def dead() -> ProcessIdentity:
    """The identity of a process of this host that has ended."""
    return replace(ProcessIdentity.current(), start=1)


def test_a_copy_that_the_injector_could_not_remove_any_more_is_removed_by_the_supervisor(place: Place):
    """The chaoslib process died between telling the ledger and removing the copy; another run's copy stays."""
    lease = place.lease(LeaseState.INJECTED)
    place.platform.put_lease_copy("n1", "r2-1", lease.to_json())
    claimed = place.ledger.claim(lease.id, ProcessIdentity.current())
    place.platform.power_on("n1")
    place.ledger.mark_reverted(lease.id, claimed.epoch)
    faults = Faults(
        cast("Admitted", SimpleNamespace(ledger=place.ledger, platform=place.platform)), FaultRegistry(), lambda **_: None, lambda _: None, SystemClock()
    )
    told = {"lease": lease.id, "fault": lease.fault, "target": str(lease.target), "detail": ""}
    faults.hear({**told, "state": "intended", "copy": lease.to_json()})
    faults.remove_copies()
    assert set(place.platform.lease_copies()) == {lease.id, "r2-1"}  # in force, as far as was heard
    faults.hear({**told, "state": "reverted"})
    faults.remove_copies()
    assert set(place.platform.lease_copies()) == {"r2-1"}
