"""CPU utilisation achieved against requested: frangible's burner beside stress-ng, in turn, on the same CPUs. `make benchmark-cpu`.

What is achieved is read from /proc/stat by this program, not by either of them. Whatever else runs on the machine counts as utilisation too.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RAMP = 5.0
"""Seconds that each of them has to come up, before measuring begins."""


def ticks(cpus: Sequence[int]) -> tuple[int, int]:
    """Return busy and all ticks of these CPUs since boot (proc(5))."""
    busy = total = 0
    names = {f"cpu{cpu}" for cpu in cpus}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            values = [int(field) for field in fields[:8]]
            total += sum(values)
            busy += sum(values) - values[3] - values[4]
    return busy, total


def utilisation(cpus: Sequence[int], seconds: float) -> float:
    """Return how busy these CPUs are over so many seconds, in percent."""
    before = ticks(cpus)
    time.sleep(seconds)
    after = ticks(cpus)
    return 100 * (after[0] - before[0]) / (after[1] - before[1])


@contextmanager
def running(command: Sequence[str]) -> Iterator[None]:
    """Keep a program running, and end it."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def achieved(command: Sequence[str], cpus: Sequence[int], seconds: float) -> float:
    """Return the utilisation while a program runs, after it has come up."""
    with running(command):
        time.sleep(RAMP)
        return utilisation(cpus, seconds)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="measured for each value and program")
    parser.add_argument("--percent", type=int, nargs="+", default=[25, 50, 80, 95])
    asked = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    listed = ",".join(map(str, cpus))
    stress = shutil.which("stress-ng")
    if stress is None:
        print("stress-ng is missing (Debian package stress-ng): only the burner is measured")
    print(f"CPUs {listed}; {asked.seconds:g} s each; busy without either: {utilisation(cpus, asked.seconds):.1f} %")
    print(f"{'requested':>9}  {'frangible':>9}  {'stress-ng':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for percent in asked.percent:
            state = Path(folder) / f"{percent}"
            burner = (
                sys.executable,
                "-m",
                "frangible.burner",
                "--state",
                str(state),
                "--utilisation",
                f"{percent / 100}",
                "--seconds",
                "3600",
                "--cpus",
                listed,
            )
            ours = achieved((*burner, "--parent", str(os.getpid())), cpus, asked.seconds)
            row = f"{percent:>7} %  {ours:>7.1f} %"
            if stress is not None:
                theirs = achieved((stress, "--cpu", str(len(cpus)), "--cpu-load", str(percent), "--taskset", listed), cpus, asked.seconds)
                row += f"  {theirs:>7.1f} %"
            print(row, flush=True)


if __name__ == "__main__":
    main()
