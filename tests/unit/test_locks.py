"""Resource keys: who gets them, who is told what, and who is overtaken when."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from frangible.errors import LedgerError, LockHeld
from frangible.locks import FileLockStore, HeldLocks
from frangible.process import ProcessIdentity

ME = ProcessIdentity.current()
KEY = "environment:ldn-1/child"


class SetClock:
    """A clock that shows what the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.now += seconds
        return stop.is_set()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(tmp_path: Path, clock: SetClock) -> FileLockStore:
    return FileLockStore(tmp_path / "locks", clock)


@pytest.fixture
def other() -> Iterator[ProcessIdentity]:
    """Another live process of this host."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        yield identity
        process.kill()


def test_a_free_key_is_taken(store: FileLockStore, clock: SetClock) -> None:
    """The holder says who, since when and until when; a second store on the same folder sees the same."""
    held = store.acquire(KEY, "r1", ME, 60)
    assert (held.key, held.run_id, held.owner, held.epoch) == (KEY, "r1", ME, 1)
    assert (held.since, held.expires_at) == (clock.now, clock.now + 60)
    assert held.note.endswith(f"@{ME.host}")
    assert FileLockStore(store.folder, clock).holders() == (held,)


def test_a_held_key_is_refused_with_all_that_one_needs_to_know(store: FileLockStore, other: ProcessIdentity) -> None:
    """The refusal names the key, who holds it for which run, since when, until when, and what would free it."""
    held = store.acquire(KEY, "r1", other, 60)
    with pytest.raises(LockHeld) as refusal:
        store.acquire(KEY, "r2", ME, 60)
    message = str(refusal.value)
    assert message.startswith("not injecting: ")
    for part in (
        KEY,
        held.note,
        "run r1",
        str(other.pid),
        "since 2027-01-15 08:00:00 UTC",
        "until 2027-01-15 08:01:00 UTC",
        "`frangible abort r1`",
        "`frangible recover`",
    ):
        assert part in message
    assert store.holders() == (held,)


def test_another_run_of_the_same_process_is_refused(store: FileLockStore) -> None:
    """A key belongs to a run, not to a process."""
    store.acquire(KEY, "r1", ME, 60)
    with pytest.raises(LockHeld):
        store.acquire(KEY, "r2", ME, 60)


def test_taking_it_again_keeps_the_epoch(store: FileLockStore, clock: SetClock) -> None:
    """The same run and process only move the expiry: the key has not changed hands."""
    first = store.acquire(KEY, "r1", ME, 60)
    clock.now += 10
    assert store.acquire(KEY, "r1", ME, 60) == replace(first, expires_at=clock.now + 60)


def test_an_expired_holder_is_overtaken_and_told_so(store: FileLockStore, clock: SetClock, other: ProcessIdentity) -> None:
    """At the expiry and not before; the overtaken holder can neither renew nor free the key of the new one."""
    old = store.acquire(KEY, "r1", other, 60)
    clock.now += 59.9
    with pytest.raises(LockHeld):
        store.acquire(KEY, "r2", ME, 60)
    clock.now += 0.1
    assert store.holders() == ()
    new = store.acquire(KEY, "r2", ME, 60)
    assert new.epoch == old.epoch + 1
    with pytest.raises(LockHeld, match=r"run r1 no longer holds .*its epoch was 1, now 2.*for run r2"):
        store.renew(old, 60)
    store.release(old)
    assert store.holders() == (new,)


def test_a_dead_process_is_overtaken_at_once(store: FileLockStore, other: ProcessIdentity) -> None:
    """A holder whose process was killed on this host does not make anybody wait for the expiry."""
    store.acquire(KEY, "r1", other, 3600)
    assert other.kill()
    assert store.holders() == ()
    assert store.acquire(KEY, "r2", ME, 60).epoch == 2


def test_a_process_of_an_earlier_boot_is_overtaken_at_once(store: FileLockStore) -> None:
    """Its pid may live again, but not as the same process."""
    store.acquire(KEY, "r1", replace(ME, boot="earlier"), 3600)
    assert store.acquire(KEY, "r2", ME, 60).epoch == 2


def test_a_process_of_another_host_is_waited_for(store: FileLockStore, clock: SetClock) -> None:
    """Nobody here can see whether it lives, so only the expiry frees its key."""
    store.acquire(KEY, "r1", ProcessIdentity("tokyo-7", "x", 1, 1), 60)
    with pytest.raises(LockHeld, match="tokyo-7"):
        store.acquire(KEY, "r2", ME, 60)
    clock.now += 60
    assert store.acquire(KEY, "r2", ME, 60).epoch == 2


def test_a_late_renewal_is_fine_when_nobody_came(store: FileLockStore, clock: SetClock) -> None:
    """An expired holder that nobody overtook goes on with its epoch."""
    held = store.acquire(KEY, "r1", ME, 60)
    clock.now += 100
    assert store.renew(held, 60) == replace(held, expires_at=clock.now + 60)


def test_the_epoch_outlives_the_holder(store: FileLockStore) -> None:
    """A freed key remembers how often it changed hands; its former holder cannot renew it, and may free it again."""
    first = store.acquire(KEY, "r1", ME, 60)
    store.release(first)
    assert store.holders() == ()
    with pytest.raises(LockHeld, match="was released"):
        store.renew(first, 60)
    store.release(first)
    assert store.acquire(KEY, "r1", ME, 60).epoch == 2


@pytest.mark.parametrize("key", ["a/b", "../../etc/passwd", "environment:ldn 1", "ümlaut%2F", ".", "x" * 80])
def test_any_key_has_a_file_of_its_own_in_the_folder(store: FileLockStore, key: str) -> None:
    """Whatever the key contains, it is one file in the folder and another key is another file."""
    held = store.acquire(key, "r1", ME, 60)
    near = store.acquire(key + "%", "r1", ME, 60)
    assert store.holders() == tuple(sorted((held, near), key=lambda holder: holder.key))
    assert all(path.parent == store.folder for path in store.folder.rglob("*"))


# Several keys at once


def test_keys_are_taken_in_sorted_order_once(store: FileLockStore) -> None:
    """Two runs that want the same keys therefore never wait for each other."""
    held = HeldLocks.acquire_all(store, ["c", "a", "b", "a"], "r1", ME, 60)
    assert [holder.key for holder in held.holders] == ["a", "b", "c"]
    assert store.holders() == held.holders


def test_all_keys_or_none(store: FileLockStore, other: ProcessIdentity) -> None:
    """When one key is held the others are free again."""
    taken = store.acquire("b", "r1", other, 60)
    with pytest.raises(LockHeld, match="key b is held"):
        HeldLocks.acquire_all(store, ["a", "b", "c"], "r2", ME, 60)
    assert store.holders() == (taken,)


def test_all_are_renewed_and_released_together(store: FileLockStore, clock: SetClock) -> None:
    """Renewing moves each expiry, by the first length or another; releasing frees each key and may be repeated."""
    held = HeldLocks.acquire_all(store, ["a", "b"], "r1", ME, 60)
    clock.now += 30
    held.renew()
    assert {holder.expires_at for holder in store.holders()} == {clock.now + 60}
    held.renew(5)
    assert {holder.expires_at for holder in store.holders()} == {clock.now + 5}
    held.release()
    held.release()
    assert store.holders() == ()


def test_a_run_that_lost_one_key_is_told_at_its_next_renewal(store: FileLockStore, clock: SetClock) -> None:
    """The others are still released, and the lost one stays with its new holder."""
    held = HeldLocks.acquire_all(store, ["a", "b"], "r1", ME, 60)
    clock.now += 60
    new = store.acquire("b", "r2", ME, 60)
    with pytest.raises(LockHeld, match="run r1 no longer holds key b"):
        held.renew()
    held.release()
    assert store.holders() == (new,)


def test_what_cannot_be_freed_does_not_keep_the_rest(store: FileLockStore) -> None:
    """Every key gets its turn, and the failure is reported at the end."""
    held = HeldLocks.acquire_all(store, ["a", "b", "c"], "r1", ME, 60)
    (store.folder / "b.lock.json").write_text("{")
    with pytest.raises(LedgerError, match=r"b\.lock\.json is damaged"):
        held.release()
    (store.folder / "b.lock.json").unlink()
    assert store.holders() == ()


# When the folder fails


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"epoch": 1}', '{"key": "k", "epoch": "x", "holder": null}', '{"key": "k", "epoch": 1, "holder": {"run_id": "r"}}']
)
def test_a_damaged_file_is_never_taken_for_a_free_key(store: FileLockStore, text: str) -> None:
    """What is not understood refuses, naming the file and what to do."""
    store.acquire("k", "r1", ME, 60)
    (store.folder / "k.lock.json").write_text(text)
    for attempt in (lambda: store.acquire("k", "r2", ME, 60), store.holders):
        with pytest.raises(LedgerError, match=r"k\.lock\.json is damaged .*delete it"):
            attempt()


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    """The message names the path and what was expected there."""
    (tmp_path / "locks").write_text("a file")
    with pytest.raises(LedgerError, match=r"lock file .*/locks.*: .*expected a folder"):
        FileLockStore(tmp_path / "locks").acquire(KEY, "r1", ME, 60)


def test_no_folder_means_no_holders(tmp_path: Path) -> None:
    """Looking creates nothing."""
    assert FileLockStore(tmp_path / "locks").holders() == ()
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
from frangible.errors import LedgerError
from frangible.locks import FileLockStore
from frangible.process import ProcessIdentity
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow: what a full disk is like
try:
    FileLockStore(Path(sys.argv[1])).acquire("k", "r2", ProcessIdentity.current(), 60)
except LedgerError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_content(store: FileLockStore) -> None:
    """A change that finds no room is refused, and the file says what it said before."""
    store.release(store.acquire("k", "r1", ME, 60))
    before = (store.folder / "k.lock.json").read_text()
    done = subprocess.run([sys.executable, "-c", FULL, str(store.folder)], capture_output=True, text=True, check=True)
    assert "k.lock.json: File too large; expected a folder" in done.stdout
    assert (store.folder / "k.lock.json").read_text() == before
    assert store.acquire("k", "r1", ME, 60).epoch == 2


def test_a_change_that_never_ends_is_reported(store: FileLockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hangs in the middle of a change does not hang the others."""
    monkeypatch.setattr("frangible.locks.FLOCK_SECONDS", 0.05)
    store.acquire("k", "r1", ME, 60)
    descriptor = os.open(store.folder / "k.lock.flock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(LedgerError, match=r"another process has been changing it.*`fuser "):
        store.acquire("k", "r1", ME, 60)
    os.close(descriptor)
    assert store.acquire("k", "r1", ME, 60).epoch == 1


# Several processes

CONTENDER = """
import os, sys, time
from pathlib import Path
from frangible.errors import LockHeld
from frangible.locks import HeldLocks, FileLockStore
from frangible.process import ProcessIdentity
folder, run, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store, me = FileLockStore(folder / "locks"), ProcessIdentity.current()
log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
sys.stdin.readline()
while rounds:
    try:
        held = HeldLocks.acquire_all(store, ["a", "b"], run, me, 60)
    except LockHeld:
        time.sleep(0.002)
        continue
    inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)  # fails when anybody else is inside
    os.write(log, f"{run} {[holder.epoch for holder in held.holders]}\\n".encode())
    os.close(inside)
    os.unlink(folder / "inside")
    rounds -= 1
    if rounds or run != "r0":
        held.release()
os._exit(0)  # r0 dies with its keys
"""


def test_of_many_processes_one_at_a_time_holds_the_keys(tmp_path: Path) -> None:
    """Four processes fight for two keys: one is inside at a time, epochs grow from hand to hand, and one that dies inside is overtaken."""
    rounds = 8
    command = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    contenders = [subprocess.Popen([*command, f"r{number}", str(rounds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for number in range(4)]
    assert [contender.stdout.readline() for contender in contenders if contender.stdout] == ["ready\n"] * 4
    for contender in contenders:
        assert contender.stdin
        contender.stdin.write("go\n")
        contender.stdin.flush()
    for contender in contenders:
        contender.communicate()
    assert [contender.returncode for contender in contenders] == [0] * 4
    entries = [line.split(" ", 1) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(run for run, _ in entries) == sorted(f"r{number}" for number in range(4) for _ in range(rounds))
    epochs = [json.loads(epochs) for _, epochs in entries]
    for key in (0, 1):
        assert all(before[key] < after[key] for before, after in pairwise(epochs))
