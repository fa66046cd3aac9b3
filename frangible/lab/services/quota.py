"""A node's CPU limit, as far as one can be kept without rights: whoever keeps to it waits while the node has used it up.

The kernel (cpu.max of cgroups(7)) lets nothing on the node run then. Here others run on, and what they use counts all the same, so the one
that waits gets what they leave of the limit; where they leave nothing, it gets one turn in each period.
"""

import asyncio
import os
import time
from collections.abc import Callable

from frangible.lab.tree import MARKS, environment_of, find

__all__ = ["PERIOD", "NodeUse", "Quota"]

PERIOD = 0.1
"""Seconds, the kernel's usual quota period."""
EVERY = 1.0
"""Seconds between two looks for processes that are new on the node."""


class NodeUse:
    """CPU that the processes of this node use: its services, its supervisord, and whatever burns its CPUs."""

    def __init__(self) -> None:
        """Begin with this process."""
        self._here = _marks(os.getpid())
        self._others: dict[int, tuple[int, float]] = {}
        self._known = {os.getpid()}
        self._listed_at = -EVERY
        self._spent = 0.0

    def seconds(self) -> float:
        """Return the CPU seconds that they have used, each from the time at which it was first seen."""
        if time.monotonic() - self._listed_at >= EVERY:
            self._listed_at = time.monotonic()
            self._look_for_more()
        for pid, (start, before) in list(self._others.items()):
            process = find(pid)
            if process is None or process.start != start:
                del self._others[pid]
                continue
            self._spent += max(0.0, process.cpu_seconds - before)
            self._others[pid] = (start, process.cpu_seconds)
        return self._spent + time.process_time()

    def _look_for_more(self) -> None:
        with os.scandir("/proc") as entries:
            there = {int(entry.name) for entry in entries if entry.name.isdigit()}
        for pid in there - self._known:
            process = find(pid) if _marks(pid) == self._here else None
            if process is not None:
                self._others[pid] = (process.start, process.cpu_seconds)
        self._known = there | {os.getpid()}


def _marks(pid: int) -> tuple[str | None, ...]:
    """Return whose a process is: the lab and the node that it was started for."""
    environment = environment_of(pid)
    return tuple(environment.get(name) for name in MARKS)


class Quota:
    """So many CPUs in each period; what is used above that is owed, at most one period's share."""

    def __init__(self, cpus: float | None, used: Callable[[], float] = time.process_time) -> None:
        """Begin with a whole period's share; `used` tells the CPU seconds that count against it."""
        self._cpus = cpus
        self._used = used
        self._renewed_at, self._used_at = time.monotonic(), used()
        self._left = PERIOD * (cpus or 0.0)

    async def wait(self) -> float:
        """Return once what was owed has been paid back, with the seconds that took; at most a period: even the worst neighbours leave a turn in each."""
        if self._cpus is None:
            return 0.0
        now, used, share = time.monotonic(), self._used(), PERIOD * self._cpus
        left = self._left + (now - self._renewed_at) * self._cpus - (used - self._used_at)
        self._left = min(share, max(-share, left))
        self._renewed_at, self._used_at = now, used
        if self._left > 0:
            return 0.0
        pause = max(0.005, -self._left / self._cpus)
        await asyncio.sleep(pause)
        return pause
