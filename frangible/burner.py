"""Hold CPUs at a requested utilisation: one process a CPU, corrected twice a second by what was measured.

Standard library only and no other module of the project, so that it runs on a node that has nothing but Python:
`python3 -m frangible.burner --state FILE --utilisation 0.8 --seconds 60`, or this text on the standard input of `python3 -`.
It ends by itself: at its deadline, when FILE.stop appears, and with the process named by `--parent`; its workers end with it.
"""

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import signal
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Law", "main"]

PERIOD = 0.02
"""Seconds of one duty cycle: busy for a part of it, asleep for the rest."""
EVERY = 0.5
"""Seconds between two corrections."""
WINDOW = 4.0
"""Seconds over which the achieved utilisation is told: /proc/stat counts hundredths of a second, so shorter ones are coarse."""
GLANCE = 0.1
"""Seconds between two looks at deadline, parent and stop file."""
PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""
CELL = struct.Struct("dddd")
"""What a worker tells: achieved over the newest window, its mean since the first window was full, duty, time (0: nothing yet)."""


@dataclass(frozen=True, slots=True)
class Law:
    """A proportional and integral controller in velocity form: the share of a period to be busy, from 0 to 1.

    In that form the integral is the duty itself, so what is clamped is never wound up.
    """

    duty: float
    error: float = 0.0

    PROPORTIONAL = 0.2
    INTEGRAL = 0.5

    def corrected(self, wanted: float, measured: float) -> "Law":
        """Return the law after one measurement."""
        error = wanted - measured
        duty = self.duty + self.INTEGRAL * error + self.PROPORTIONAL * (error - self.error)
        return Law(min(1.0, max(0.0, duty)), error)


def _ticks(cpu: int) -> tuple[int, int]:
    """Return busy and all ticks of one CPU since boot (proc(5)); waiting for a disk is idle, what a hypervisor took is not."""
    with Path("/proc/stat").open() as lines:
        for line in lines:
            name, *values = line.split()
            if name == f"cpu{cpu}":
                fields = [int(value) for value in values[:8]]  # guests are counted in user and nice already
                return sum(fields) - fields[3] - fields[4], sum(fields)
    raise SystemExit(f"burner: /proc/stat has no cpu{cpu}")


def _work(cpu: int, wanted: float, main_pid: int, cells: mmap.mmap, place: int) -> None:
    """Burn one CPU until the main process is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, {cpu})
    law = Law(wanted)
    samples = deque([_ticks(cpu)], maxlen=round(WINDOW / EVERY) + 1)
    ramped: tuple[int, int] | None = None
    start = corrected = time.monotonic()
    while os.getppid() == main_pid:  # it may have died before prctl
        while time.monotonic() < start + law.duty * PERIOD:
            pass
        now = time.monotonic()
        start = max(start + PERIOD, now - PERIOD)  # after a pause nothing is caught up on
        if start > now:
            time.sleep(start - now)
        if now - corrected < EVERY:
            continue
        corrected = now
        ticks = _ticks(cpu)
        law = law.corrected(wanted, _share(samples[-1], ticks))
        samples.append(ticks)
        if len(samples) == samples.maxlen:
            ramped = ramped or samples[0]
            CELL.pack_into(cells, place * CELL.size, _share(samples[0], ticks), _share(ramped, ticks), law.duty, now)


def _share(before: tuple[int, int], after: tuple[int, int]) -> float:
    busy, ticks = after[0] - before[0], after[1] - before[1]
    return busy / ticks if ticks > 0 else 0.0


def _tell(state: Path, workers: list[int], wanted: float, cells: mmap.mmap) -> None:
    """Publish what is achieved, whole or not at all."""
    told = [CELL.unpack_from(cells, place * CELL.size) for place in range(len(workers))]
    means = [sum(column) / len(told) for column in zip(*told, strict=True)] if told and all(cell[3] for cell in told) else None
    text = json.dumps(
        {
            "pid": os.getpid(),
            "workers": workers,
            "requested": wanted,
            "achieved": round(means[0], 4) if means else None,
            "average": round(means[1], 4) if means else None,
            "duty": round(means[2], 4) if means else None,
            "told": time.clock_gettime(time.CLOCK_BOOTTIME),
        }
    )
    fresh = state.with_name(f".{state.name}.new")
    fresh.write_text(text)
    fresh.replace(state)


def _burn(state: Path, wanted: float, cpus: list[int], until: float, parent: int | None) -> None:
    """Start a worker a CPU and look after them."""
    stop = state.with_name(f"{state.name}.stop")
    here = os.getpid()
    cells = mmap.mmap(-1, CELL.size * len(cpus))
    workers: list[int] = []
    _tell(state, workers, wanted, cells)  # before looking for the stop file: whoever stops it writes that, then looks here
    if stop.exists():
        return
    try:
        for place, cpu in enumerate(cpus):
            pid = os.fork()
            if pid == 0:
                try:
                    _work(cpu, wanted, here, cells, place)
                finally:
                    os._exit(0)
            workers.append(pid)
        told = 0.0
        while not stop.exists() and time.clock_gettime(time.CLOCK_BOOTTIME) < until and parent in (None, os.getppid()):
            if os.waitpid(-1, os.WNOHANG)[0] != 0:
                break  # one CPU less is not what was asked for
            if time.monotonic() - told >= EVERY:
                told = time.monotonic()
                _tell(state, workers, wanted, cells)
            time.sleep(GLANCE)
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Burn until the deadline, the stop file, or the parent's end."""
    parser = argparse.ArgumentParser(prog="burner", description="Hold CPUs at a requested utilisation.")
    parser.add_argument("--state", type=Path, required=True, help="file to tell in what is achieved; FILE.stop ends it")
    parser.add_argument("--utilisation", type=float, required=True, help="share of the CPUs, above 0, at most 1")
    parser.add_argument("--seconds", type=float, required=True, help="deadline: it ends by itself then")
    parser.add_argument("--cpus", default="", help="numbers with commas; default: all that this process may use")
    parser.add_argument("--parent", type=int, default=None, help="end when this process is no longer the parent")
    asked = parser.parse_args(arguments)
    if not (0 < asked.utilisation <= 1 and asked.seconds > 0):
        parser.error("expected a utilisation above 0 and at most 1, and more than 0 seconds")
    cpus = [int(cpu) for cpu in asked.cpus.split(",") if cpu] or sorted(os.sched_getaffinity(0))
    until = time.clock_gettime(time.CLOCK_BOOTTIME) + asked.seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _burn(asked.state, asked.utilisation, cpus, until, asked.parent)


if __name__ == "__main__":
    main(sys.argv[1:])
