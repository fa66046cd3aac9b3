"""Resource keys, held where the target lives: files on a host, or objects of a cluster.

On a host a key is one JSON file in a folder that every run on that host shares, changed only under the flock of a sibling file and replaced as a whole, so that
a reader sees the old holder or the new one and a crash leaves either. The file stays when the key is free: it remembers the epoch, which grows each
time the key changes hands, so that whoever was overtaken can tell.
"""

import contextlib
import fcntl
import getpass
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import quote, unquote

from frangible.clock import Clock, SystemClock
from frangible.errors import FrangibleError, LedgerError, LockHeld, PlatformError
from frangible.process import ProcessIdentity, boot_id

__all__ = ["FileLockStore", "Files", "FolderOfKeys", "HeldLocks", "Holder", "LockStore", "SwappedLockStore", "Swapping"]

FLOCK_SECONDS = 5.0
"""How long another process may be in the middle of a change before we give up."""
SWAP_SECONDS = 10.0
"""How long others may be quicker, each time, before we give up."""
SUFFIX = ".lock.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds one key, and until when."""

    key: str
    run_id: str
    owner: ProcessIdentity
    epoch: int
    """How often the key has changed hands."""
    expires_at: float
    """Seconds since the epoch, by the wall clock of the place where the key lives."""
    note: str
    """Who that is: `user@host`."""
    since: float = 0.0
    """When it was taken, by the same clock."""


class LockStore(Protocol):
    """Where the keys of one place are held."""

    def acquire(self, key: str, run_id: str, owner: ProcessIdentity, ttl: float) -> Holder:
        """Take a key for `ttl` seconds; raise `LockHeld` that names the holder and what would free it."""

    def renew(self, holder: Holder, ttl: float) -> Holder:
        """Hold for `ttl` seconds from now; raise `LockHeld` when somebody took the key over."""

    def release(self, holder: Holder) -> None:
        """Free the key, if it is still this holder's."""

    def holders(self) -> tuple[Holder, ...]:
        """Return everybody who holds a key now, sorted by key."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Content of a key's file."""

    epoch: int
    holder: Holder | None


class FileLockStore:
    """Keys as files of one folder on this host. Safe between threads and processes; a failing disk is a `LedgerError`."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        """Hold keys in `folder`, which is made at the first acquisition."""
        self.folder = folder
        self._clock = clock or SystemClock()

    def acquire(self, key: str, run_id: str, owner: ProcessIdentity, ttl: float) -> Holder:
        """Take a key that is free, expired, or whose holder's process is dead; the same run and owner keep their epoch."""
        self._make_folder()
        with self._changing(key):
            entry, now = self._read(key), self._clock.wall()
            found = entry.holder
            if found is not None and (found.run_id, found.owner) == (run_id, owner):
                return self._put(replace(found, expires_at=now + ttl))
            if found is not None and not self._is_stale(found):
                raise LockHeld(_held(found))
            return self._put(Holder(key, run_id, owner, entry.epoch + 1, now + ttl, _note(owner), since=now))

    def renew(self, holder: Holder, ttl: float) -> Holder:
        """Hold for `ttl` seconds from now, also when the time had run out and nobody has taken the key since."""
        with self._changing(holder.key):
            entry = self._read(holder.key)
            if entry.epoch != holder.epoch or entry.holder is None:
                now_held = _held(entry.holder) if entry.holder else f"key {holder.key} was released"
                raise LockHeld(f"run {holder.run_id} no longer holds key {holder.key} (its epoch was {holder.epoch}, now {entry.epoch}): {now_held}")
            return self._put(replace(entry.holder, expires_at=self._clock.wall() + ttl))

    def release(self, holder: Holder) -> None:
        """Free the key; nothing happens when somebody else has taken it over."""
        with self._changing(holder.key):
            entry = self._read(holder.key)
            if entry.epoch == holder.epoch and entry.holder is not None:
                self._replace(self._path(holder.key), {"key": holder.key, "epoch": entry.epoch, "holder": None})

    def holders(self) -> tuple[Holder, ...]:
        """Return everybody who holds a key now, sorted by key; nothing is locked or written."""
        try:
            paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        except OSError as error:
            raise LedgerError(_advice(self.folder, error)) from error
        found = [entry.holder for entry in map(self._read_file, paths) if entry.holder is not None and not self._is_stale(entry.holder)]
        return tuple(sorted(found, key=lambda holder: holder.key))

    def _is_stale(self, holder: Holder) -> bool:
        return _stale(holder, self._clock.wall())

    def _path(self, key: str) -> Path:
        return self.folder / f"{quote(key, safe='')}{SUFFIX}"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(_advice(self.folder, error)) from error

    @contextlib.contextmanager
    def _changing(self, key: str) -> Iterator[None]:
        """Hold the flock of the key's sibling file, which is never removed: a removed one could be locked twice."""
        path = self._path(key).with_suffix(".flock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LedgerError(_advice(path, error)) from error
        try:
            self._flock(descriptor, path)
            yield
        finally:
            os.close(descriptor)

    def _flock(self, descriptor: int, path: Path) -> None:
        deadline = time.monotonic() + FLOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LedgerError(f"lock file {path}: another process has been changing it for {FLOCK_SECONDS:g} s; `fuser {path}` names it") from error
                time.sleep(0.01)
            except OSError as error:
                raise LedgerError(_advice(path, error)) from error
            else:
                return

    def _read(self, key: str) -> _Entry:
        return self._read_file(self._path(key))

    def _read_file(self, path: Path) -> _Entry:
        try:
            return _parsed(f"lock file {path}", path.read_text())
        except FileNotFoundError:
            return _Entry(0, None)
        except UnicodeDecodeError as error:
            raise LedgerError(_damaged(f"lock file {path}", error)) from error
        except OSError as error:
            raise LedgerError(_advice(path, error)) from error

    def _put(self, holder: Holder) -> Holder:
        self._replace(self._path(holder.key), _document(holder))
        return holder

    def _replace(self, path: Path, document: dict[str, object]) -> None:
        """Write beside, sync, rename, sync the folder: after a power cut the old content is there or the new."""
        beside = path.with_suffix(".new")  # one writer at a time: the flock is held
        try:
            with beside.open("w") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise LedgerError(_advice(path, error)) from error


class Files(Protocol):
    """Files on another host that are changed by comparing and swapping. Every call raises `PlatformError`."""

    def look(self, path: Path) -> tuple[str | None, float]:
        """Return a file's text, or None where there is none, and that host's wall clock."""

    def swap(self, path: Path, expected: str | None, text: str) -> bool:
        """Replace a file durably if it still holds `expected`, under the flock of its sibling file; return whether it did."""

    def entries(self, folder: Path) -> tuple[str, ...]:
        """Return the names in a folder, sorted."""


class Swapping(Protocol):
    """Texts by key that are changed by comparing and swapping, somewhere else. Every call raises `PlatformError`."""

    def place(self, key: str) -> str:
        """Say in words where the text of a key is, for an error."""

    def look(self, key: str) -> tuple[str | None, float]:
        """Return a key's text, or None where there is none, and the wall clock of that place."""

    def swap(self, key: str, expected: str | None, text: str) -> bool:
        """Replace a key's text durably if it still is `expected` (None: is missing); return whether it did."""

    def keys(self) -> tuple[str, ...]:
        """Return every key that has a text, sorted."""


@dataclass(frozen=True, slots=True)
class FolderOfKeys:
    """The files of `FileLockStore` on another host."""

    folder: Path
    files: Files

    def place(self, key: str) -> str:
        """Name the file."""
        return f"lock file {self._path(key)}"

    def look(self, key: str) -> tuple[str | None, float]:
        """Read the file."""
        return self.files.look(self._path(key))

    def swap(self, key: str, expected: str | None, text: str) -> bool:
        """Replace the file if it is as expected."""
        return self.files.swap(self._path(key), expected, text)

    def keys(self) -> tuple[str, ...]:
        """List the folder."""
        return tuple(unquote(name.removesuffix(SUFFIX)) for name in self.files.entries(self.folder) if name.endswith(SUFFIX))

    def _path(self, key: str) -> Path:
        return self.folder / f"{quote(key, safe='')}{SUFFIX}"


class SwappedLockStore:
    """Keys somewhere else: read, decided here by the clock of that place, and swapped only if nobody was quicker.

    Every change may be repeated: whoever finds its own entry keeps it. A place that cannot be reached is a `LedgerError`.
    """

    def __init__(self, texts: Swapping) -> None:
        """Hold keys where `texts` reaches."""
        self._texts = texts

    def acquire(self, key: str, run_id: str, owner: ProcessIdentity, ttl: float) -> Holder:
        """Take a key that is free, expired, or whose holder was a process of this host that is dead; the same run and owner keep their epoch."""

        def decide(entry: _Entry, now: float) -> Holder:
            found = entry.holder
            if found is not None and (found.run_id, found.owner) == (run_id, owner):
                return replace(found, expires_at=now + ttl)
            if found is not None and not _stale_elsewhere(found, now):
                raise LockHeld(_held(found))
            return Holder(key, run_id, owner, entry.epoch + 1, now + ttl, _note(owner), since=now)

        return self._change(key, decide)

    def renew(self, holder: Holder, ttl: float) -> Holder:
        """Hold for `ttl` seconds from now, also when the time had run out and nobody has taken the key since."""

        def decide(entry: _Entry, now: float) -> Holder:
            if entry.epoch != holder.epoch or entry.holder is None:
                now_held = _held(entry.holder) if entry.holder else f"key {holder.key} was released"
                raise LockHeld(f"run {holder.run_id} no longer holds key {holder.key} (its epoch was {holder.epoch}, now {entry.epoch}): {now_held}")
            return replace(entry.holder, expires_at=now + ttl)

        return self._change(holder.key, decide)

    def release(self, holder: Holder) -> None:
        """Free the key; nothing happens when somebody else has taken it over."""
        for _ in self._tries(holder.key):
            text, entry, _now = self._read(holder.key)
            if entry.epoch != holder.epoch or entry.holder is None:
                return
            if self._swap(holder.key, text, {"key": holder.key, "epoch": entry.epoch, "holder": None}):
                return

    def holders(self) -> tuple[Holder, ...]:
        """Return everybody who holds a key now, sorted by key."""
        try:
            keys = self._texts.keys()
        except PlatformError as error:
            raise LedgerError(f"locks: {error}") from error
        found = [(entry.holder, now) for _, entry, now in map(self._read, keys)]
        return tuple(sorted((holder for holder, now in found if holder is not None and not _stale_elsewhere(holder, now)), key=lambda holder: holder.key))

    def _change(self, key: str, decide: Callable[[_Entry, float], Holder]) -> Holder:
        for _ in self._tries(key):
            text, entry, now = self._read(key)
            holder = decide(entry, now)
            if self._swap(key, text, _document(holder)):
                return holder
        raise AssertionError  # pragma: no cover - `_tries` raises

    def _tries(self, key: str) -> Iterator[None]:
        deadline = time.monotonic() + SWAP_SECONDS
        while time.monotonic() < deadline:
            yield
        raise LedgerError(f"{self._texts.place(key)}: others were quicker for {SWAP_SECONDS:g} s; try again")

    def _read(self, key: str) -> tuple[str | None, _Entry, float]:
        try:
            text, now = self._texts.look(key)
        except PlatformError as error:
            raise LedgerError(f"{self._texts.place(key)}: {error}") from error
        return text, _Entry(0, None) if text is None else _parsed(self._texts.place(key), text), now

    def _swap(self, key: str, expected: str | None, document: dict[str, object]) -> bool:
        try:
            return self._texts.swap(key, expected, json.dumps(document))
        except PlatformError as error:
            raise LedgerError(f"{self._texts.place(key)}: {error}") from error


class HeldLocks:
    """The keys that one run holds, all or none."""

    def __init__(self, store: LockStore, holders: Iterable[Holder], ttl: float) -> None:
        """Use `acquire_all` instead."""
        self._store = store
        self._holders = tuple(holders)
        self._ttl = ttl

    @classmethod
    def acquire_all(cls, store: LockStore, keys: Iterable[str], run_id: str, owner: ProcessIdentity, ttl: float) -> Self:
        """Take every key in sorted order, so that two runs never wait for each other; when one is held, free the others and raise `LockHeld`."""
        taken: list[Holder] = []
        try:
            for key in sorted(set(keys)):
                taken.append(store.acquire(key, run_id, owner, ttl))  # noqa: PERF401 - what was taken before a failure is freed below
        except FrangibleError as refusal:
            try:
                cls(store, taken, ttl).release()
            except LedgerError as error:
                refusal.add_note(f"and not freed before this process ends: {error}")
            raise
        return cls(store, taken, ttl)

    @property
    def holders(self) -> tuple[Holder, ...]:
        """What is held, in sorted order of the keys."""
        return self._holders

    def renew(self, ttl: float | None = None) -> None:
        """Hold every key for `ttl` seconds from now, or as long as at first; raise `LockHeld` when one was taken over."""
        self._holders = tuple(self._store.renew(holder, self._ttl if ttl is None else ttl) for holder in self._holders)

    def release(self) -> None:
        """Free every key that is still ours; the ones after a failing key too."""
        holders, self._holders = self._holders, ()
        failed: list[FrangibleError] = []
        for holder in reversed(holders):
            try:
                self._store.release(holder)
            except FrangibleError as error:
                failed.append(error)
        if failed:
            raise LedgerError("; ".join(str(error) for error in failed)) from failed[0]


def _holder(key: str, epoch: int, held: dict[str, Any]) -> Holder:
    owner = ProcessIdentity.from_json(held["owner"])
    return Holder(key, str(held["run_id"]), owner, epoch, float(held["expires_at"]), str(held["note"]), float(held["since"]))


def _document(holder: Holder) -> dict[str, object]:
    held = {"run_id": holder.run_id, "owner": holder.owner.to_json(), "expires_at": holder.expires_at, "note": holder.note, "since": holder.since}
    return {"key": holder.key, "epoch": holder.epoch, "holder": held}


def _parsed(place: str, text: str) -> _Entry:
    try:
        data = json.loads(text)
        held = data["holder"]
        return _Entry(int(data["epoch"]), None if held is None else _holder(data["key"], int(data["epoch"]), held))
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(_damaged(place, error)) from error


def _damaged(place: str, error: Exception) -> str:
    return f"{place} is damaged ({error!r}); when `frangible status` shows no run there, delete it"


def _stale(holder: Holder, now: float) -> bool:
    return holder.expires_at <= now or (holder.owner.is_local and not holder.owner.is_alive())


def _stale_elsewhere(holder: Holder, now: float) -> bool:
    """Holders come from many hosts, and two may have one name: only one of this very boot can be looked at from here."""
    return holder.expires_at <= now or (holder.owner.boot == boot_id() and _stale(holder, now))


def _held(holder: Holder) -> str:
    return (
        f"key {holder.key} is held by {holder.note} for run {holder.run_id} (process {holder.owner.pid}) since {_moment(holder.since)} until "
        f"{_moment(holder.expires_at)} at the latest; `frangible abort {holder.run_id}` frees it, and `frangible recover` if that run is dead"
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _note(owner: ProcessIdentity) -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = str(os.getuid())
    return f"{user}@{owner.host}"


def _advice(path: Path, error: OSError) -> str:
    return f"lock file {path}: {error.strerror}; expected a folder that every run on this host may write, with room on its disk"
