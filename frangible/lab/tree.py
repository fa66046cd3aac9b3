"""Processes as a tree: who descends from whom, and how to end all of them."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from frangible.errors import LabError

__all__ = [
    "LAB_VARIABLE",
    "MARKS",
    "NODE_VARIABLE",
    "Process",
    "descendants",
    "environment_of",
    "find",
    "freeze",
    "kill_until_gone",
    "send",
    "snapshot",
    "still",
]

TICKS = os.sysconf("SC_CLK_TCK")
LAB_VARIABLE = "FRANGIBLE_LAB"
"""Environment variable with the lab's folder: whose a process is."""
NODE_VARIABLE = "FRANGIBLE_LAB_NODE"
"""Environment variable with the node that a process was started for."""
MARKS = (LAB_VARIABLE, NODE_VARIABLE)


@dataclass(frozen=True, slots=True)
class Process:
    """One live process as /proc/PID/stat shows it (proc(5))."""

    pid: int
    parent: int
    start: int
    """Clock ticks after boot."""
    cpu_seconds: float
    """User and system time of itself and of children that it has reaped."""
    stopped: bool = False
    """Whether it is stopped by a signal (state T)."""


def find(pid: int | str) -> Process | None:
    """Return a live process, or None."""
    # Plain system calls: power off reads some hundred of these several times, and pathlib takes four times as long.
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(descriptor, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in {b"Z", b"X"}:
        return None
    return Process(int(pid), int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])) / TICKS, fields[0] == b"T")


def snapshot() -> dict[int, Process]:
    """Every live process of this host; a zombie is dead."""
    with os.scandir("/proc") as entries:
        found = [find(entry.name) for entry in entries if entry.name.isdigit()]
    return {process.pid: process for process in found if process is not None}


def still(pid: int, start: int) -> bool:
    """Whether the very same process lives."""
    process = find(pid)
    return process is not None and process.start == start


def descendants(root: int, processes: dict[int, Process]) -> list[Process]:
    """Children of a process, their children, and so on, whatever session or group they are in."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [process.pid for process in below]
    return found


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment a process was started with; empty when it is gone, is another user's, or has overwritten it."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def kill(process: Process) -> None:
    """SIGKILL the very same process, if it still lives."""
    send(process, signal.SIGKILL)


def kill_until_gone(members: Callable[[], Iterable[Process]], *, limit: float = 5.0) -> None:
    """SIGKILL whatever `members` returns until it is empty twice in a row; raise `LabError` when that takes too long.

    One empty look is not enough: a process may have been born behind the reader's back while /proc was being listed.
    """
    deadline = time.monotonic() + limit
    empty = 0
    while empty < 2:
        found = list(members())
        empty = 0 if found else empty + 1
        for process in found:
            kill(process)
        if found and time.monotonic() > deadline:
            raise LabError(f"processes {sorted(process.pid for process in found)} survive SIGKILL after {limit:g} s; look at them with `ps`")
        time.sleep(0.002)


def freeze(members: Callable[[], Iterable[Process]], *, limit: float = 5.0) -> None:
    """SIGSTOP whatever `members` returns until all of it is stopped, twice in a row; raise `LabError` when that takes too long."""
    deadline = time.monotonic() + limit
    quiet = 0
    while quiet < 2:
        moving = [process for process in members() if not process.stopped]
        quiet = 0 if moving else quiet + 1
        for process in moving:
            send(process, signal.SIGSTOP)
        if moving and time.monotonic() > deadline:
            raise LabError(f"processes {sorted(process.pid for process in moving)} do not stop on SIGSTOP within {limit:g} s; look at them with `ps`")
        time.sleep(0.002)


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to the very same process, if it still lives."""
    if still(process.pid, process.start):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return
