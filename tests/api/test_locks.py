"""Locks as Leases of a real API server: the laws of the lock files hold there too."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from frangible.errors import LedgerError, LockHeld
from frangible.locks import HeldLocks, SwappedLockStore
from frangible.platforms import open_platform
from frangible.platforms.kubernetes.client import Cluster
from frangible.platforms.kubernetes.locks import LeaseObjects
from frangible.process import ProcessIdentity

from ..apiserver import Objects
from .conftest import Declare

ME = ProcessIdentity.current()
OTHER = replace(ME, host="elsewhere", boot="another")


@pytest.fixture
def store(declare: Declare, name: str) -> SwappedLockStore:
    return SwappedLockStore(LeaseObjects(Cluster(declare()), name))


def test_a_key_is_held_by_one_and_freed_for_the_next(store: SwappedLockStore, objects: Objects, name: str) -> None:
    """The refusal names the holder; kubectl shows holder and epoch; the epoch grows with each change of hands and survives the release."""
    first = store.acquire("environment:a/b", "r1", OTHER, 60)
    with pytest.raises(LockHeld, match=r"key environment:a/b is held by .*elsewhere for run r1") as held:
        store.acquire("environment:a/b", "r2", ME, 60)
    assert "frangible abort r1" in str(held.value)
    (lease,) = objects.coordination.list_namespaced_lease(name).items
    assert lease.metadata.labels["app.kubernetes.io/managed-by"] == "frangible"
    assert lease.spec.holder_identity == f"{first.note} for run r1"
    assert lease.spec.lease_transitions == 1
    assert 55 <= lease.spec.lease_duration_seconds <= 61
    assert store.holders() == (first,)
    store.release(first)
    assert store.holders() == ()
    assert store.acquire("environment:a/b", "r2", ME, 60).epoch == 2
    store.release(first)
    assert [one.run_id for one in store.holders()] == ["r2"]


CONTENDER = """
import random
import sys
import time
from pathlib import Path

from frangible.errors import LockHeld
from frangible.inventory import load_inventory
from frangible.platforms import open_platform
from frangible.process import ProcessIdentity

inventory, name, held, run, times = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])
store = open_platform(load_inventory(inventory).get(name)).locks()
while times:
    try:
        holder = store.acquire("contended", run, ProcessIdentity.current(), 60.0)
    except LockHeld:
        time.sleep(random.uniform(0.0, 0.1))
        continue
    held.touch(exist_ok=False)  # somebody else inside would be an error
    held.unlink()
    store.release(store.renew(holder, 60.0))
    times -= 1
"""


def test_of_many_processes_one_at_a_time_holds_a_key(declare: Declare, tmp_path: Path) -> None:
    """Each gets it as often as it wants, never two at once, and each change of hands is an epoch of its own."""
    environment = declare()
    each, processes = 3, 4
    command = [sys.executable, "-c", CONTENDER, str(tmp_path / "inventory.yaml"), environment.name, str(tmp_path / "held")]
    started = [subprocess.Popen([*command, f"r{number}", str(each)], stderr=subprocess.PIPE, text=True) for number in range(processes)]
    for process in started:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    store = open_platform(environment).locks()
    assert store.acquire("contended", "last", ME, 1.0).epoch == each * processes + 1


def test_the_same_run_takes_a_key_twice_and_renews_it(store: SwappedLockStore) -> None:
    first = store.acquire("environment:a", "r1", ME, 30)
    again = store.acquire("environment:a", "r1", ME, 90)
    renewed = store.renew(again, 200)
    assert first.epoch == again.epoch == renewed.epoch == 1
    assert first.expires_at + 50 < again.expires_at < renewed.expires_at


def test_what_expired_by_the_servers_clock_may_be_taken_over_and_whoever_was_overtaken_is_told(store: SwappedLockStore) -> None:
    lost = store.acquire("environment:a", "r1", OTHER, -5)
    taken = store.acquire("environment:a", "r2", ME, 60)
    assert taken.epoch == lost.epoch + 1
    with pytest.raises(LockHeld, match=r"run r1 no longer holds key environment:a \(its epoch was 1, now 2\)"):
        store.renew(lost, 60)


def test_a_run_that_was_late_to_renew_keeps_the_key_that_nobody_took(store: SwappedLockStore) -> None:
    late = store.acquire("environment:a", "r1", ME, -5)
    assert store.renew(late, 60).epoch == late.epoch


def test_a_holder_of_this_boot_that_died_holds_nothing(store: SwappedLockStore) -> None:
    """One of another host has to be waited for, though; two hosts may have one name."""
    dead = replace(ME, pid=2**22 - 1, start=1)
    store.acquire("environment:a", "r1", dead, 600)
    assert store.acquire("environment:a", "r2", ME, 60).epoch == 2
    store.acquire("environment:b", "r1", replace(dead, boot="another"), 600)
    with pytest.raises(LockHeld):
        store.acquire("environment:b", "r2", ME, 60)


def test_under_contention_everybody_gets_the_key_once_and_no_two_at_once(declare: Declare, name: str) -> None:
    """Eight clients, as many runs; each epoch is given once."""
    environment = declare()
    inside, most, epochs, counted = 0, 0, [], threading.Lock()

    def run(number: int) -> None:
        nonlocal inside, most
        store = SwappedLockStore(LeaseObjects(Cluster(environment), name))
        while True:
            try:
                holder = store.acquire("environment:a", f"r{number}", replace(ME, pid=number, host="elsewhere"), 60)
            except LockHeld:
                continue
            with counted:
                inside += 1
                most = max(most, inside)
                epochs.append(holder.epoch)
            store.renew(holder, 60)
            with counted:
                inside -= 1
            store.release(holder)
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert most == 1
    assert len(epochs) == 8
    assert all(later > earlier for earlier, later in pairwise(epochs))


def test_all_keys_of_a_run_or_none(store: SwappedLockStore) -> None:
    store.acquire("environment:c", "r1", OTHER, 60)
    with pytest.raises(LockHeld):
        HeldLocks.acquire_all(store, ["environment:a", "environment:b", "environment:c"], "r2", ME, 60)
    assert [one.key for one in store.holders()] == ["environment:c"]


def test_a_namespace_that_is_not_there_is_an_error_that_says_how_to_make_it(declare: Declare) -> None:
    platform = open_platform(declare({"namespace": "nobody-made-it"}))
    with pytest.raises(LedgerError, match=r"lease nobody-made-it/frangible-lock-environment-a.* make it once with `kubectl create namespace nobody-made-it`"):
        platform.locks().acquire("environment:a", "r1", ME, 60)


def test_a_missing_permission_is_a_refusal_to_lock(declare: Declare) -> None:
    with pytest.raises(LedgerError, match=r"a permission is missing.*leases"):
        open_platform(declare(user="stranger")).locks().acquire("environment:a", "r1", ME, 60)
