"""Hold this node's CPUs at a utilisation: `python3 -m frangible.helper.burn --lease L --seconds 60 --utilisation 0.8 --cpus 2 --cgroups /node/cgroups`.

The node's CPUs are `--cpus` of them; what is used of them is what the root of the node's cgroups has used, the counter that the kubelet reports too.
So on a node that is a container it is that container's own use, not the machine's. The pod's CPU limit is the hard ceiling; below it, this loop
corrects the share of each 20 ms that its processes are busy, twice a second, by what was measured.
"""

import argparse
import ctypes
import math
import mmap
import os
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from frangible.burner import PERIOD, PR_SET_PDEATHSIG, WINDOW, Law
from frangible.helper.holding import EVERY, hold

__all__ = ["Burn", "main", "used"]

DUTY = struct.Struct("d")


def used(cgroups: Path) -> float:
    """Return the CPU seconds that the root of a cgroup hierarchy has used; raises OSError where neither version tells.

    https://docs.kernel.org/admin-guide/cgroup-v1/cpuacct.html and cgroup-v2.html, `cpu.stat`.
    """
    for name in ("cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage"):
        if (cgroups / name).exists():
            return int((cgroups / name).read_text()) / 1e9
    for line in (cgroups / "cpu.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec":
            return int(value) / 1e6
    raise OSError(f"{cgroups} has neither cpuacct.usage nor a cpu.stat that tells what was used")


class Burn:
    """Processes that are busy for a part of the time."""

    def __init__(self, utilisation: float, cpus: float, cgroups: Path) -> None:
        """Nothing is started yet."""
        self._wanted, self._cpus, self._cgroups = utilisation, cpus, cgroups
        self._duty = mmap.mmap(-1, DUTY.size)
        self._law = Law(utilisation)
        self._samples: deque[tuple[float, float]] = deque(maxlen=round(WINDOW / EVERY) + 1)
        self._ramped: tuple[float, float] | None = None
        self._since = 0.0

    def begin(self) -> None:
        """Start as many as there are CPUs; the kernel kills them when this process dies."""
        here = os.getpid()
        DUTY.pack_into(self._duty, 0, self._wanted)
        self._samples.append(self._sample())
        for _ in range(math.ceil(self._cpus)):
            if os.fork() == 0:
                os.closerange(3, 256)  # the parent's pipe ends when the one that holds it does
                try:
                    self._work(here)
                finally:
                    os._exit(0)

    def look(self) -> dict[str, object]:
        """Correct by what was used since the last look; tell what was achieved over the newest window."""
        now = self._sample()
        self._law = self._law.corrected(self._wanted, self._share(self._samples[-1], now))
        DUTY.pack_into(self._duty, 0, self._law.duty)
        self._samples.append(now)
        told: dict[str, object] = {"achieved": None, "average": None, "duty": round(self._law.duty * math.ceil(self._cpus) / self._cpus, 4)}
        if len(self._samples) == self._samples.maxlen:
            if self._ramped is None:
                self._ramped, self._since = self._samples[0], time.time() - (now[0] - self._samples[0][0])
            told["since"] = round(self._since, 3)
            told |= {"achieved": round(self._share(self._samples[0], now), 4), "average": round(self._share(self._ramped, now), 4)}
        return told

    def undo(self) -> list[str]:
        """Nothing is left when this process is gone."""
        return []

    def _sample(self) -> tuple[float, float]:
        return time.monotonic(), used(self._cgroups)

    def _share(self, before: tuple[float, float], after: tuple[float, float]) -> float:
        seconds = after[0] - before[0]
        return (after[1] - before[1]) / (seconds * self._cpus) if seconds > 0 else 0.0

    def _work(self, parent: int) -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        start = time.monotonic()
        while os.getppid() == parent:  # it may have died before prctl
            busy = DUTY.unpack_from(self._duty, 0)[0] * PERIOD
            while time.monotonic() < start + busy:
                pass
            now = time.monotonic()
            start = max(start + PERIOD, now - PERIOD)  # after a pause nothing is caught up on
            if start > now:
                time.sleep(start - now)


def main(arguments: Sequence[str]) -> int:
    """Burn until the deadline, SIGTERM or the pod's deletion."""
    parser = argparse.ArgumentParser(prog="burn", description="Hold this node's CPUs at a utilisation for a while.")
    parser.add_argument("--lease", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--utilisation", type=float, required=True, help="share of the CPUs, above 0, at most 1")
    parser.add_argument("--cpus", type=float, required=True, help="how many the node has")
    parser.add_argument("--cgroups", type=Path, required=True, help="where the root of the node's cgroups is mounted")
    asked = parser.parse_args(arguments)
    return hold(Burn(asked.utilisation, asked.cpus, asked.cgroups), asked.seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
