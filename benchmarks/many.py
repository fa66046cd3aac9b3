"""Many trivial runs: `frangible run` over as many environments, beside `xargs` over `chaos run` of the same file, in one run on one machine.

    python -m benchmarks.many --runs 265 --at-most 2

What `chaos run` does not do is in the first number: guards, locks, a ledger, a supervisor for each run, a journal that all of them are in.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.speed import BIN, INVENTORY, TRIVIAL, environment


def inventory(count: int) -> str:
    """Return as many environments as runs, which have nothing in common."""
    _, _, entry = INVENTORY.partition("\n")
    return "environments:\n" + "".join(entry.replace("somewhere", f"env-{number:03d}") for number in range(count))


def fleet(folder: Path, _count: int, at_most: int) -> int:
    """Run all of them with one command; return how many are in its list with a verdict."""
    command = [str(BIN / "frangible"), "run", "trivial.yaml", "--select", "env-*", "--at-most", str(at_most), "--json", "--quiet"]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode != 3:  # no hypothesis, so nothing can be held
        raise SystemExit(f"frangible run: exit code {done.returncode}, expected 3\n{done.stderr}")
    return sum(record["outcome"] == "inconclusive" for record in json.loads(done.stdout))


def xargs(folder: Path, count: int, at_most: int) -> int:
    """Run `chaos run` under xargs, each with a journal file of its own; return how many completed."""
    chaos = [str(BIN / "chaos"), "--no-version-check", "--no-log-file", "run", "--journal-path", "{}.json", "trivial.yaml"]
    names = "\n".join(f"chaos-{number}" for number in range(count))
    subprocess.run(
        ["xargs", "-P", str(at_most), "-I", "{}", *chaos], cwd=folder, env=environment(folder), input=names, text=True, capture_output=True, check=True
    )
    return sum(json.loads(path.read_text())["status"] == "completed" for path in folder.glob("chaos-*.json"))


def measured(what: Callable[[Path, int, int], int], folder: Path, count: int, at_most: int) -> tuple[float, float]:
    """Return seconds and CPU seconds of all child processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    found = what(folder, count, at_most)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if found != count:
        raise SystemExit(f"{what.__name__}: {found} of {count} runs completed")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=265)
    parser.add_argument("--at-most", type=int, default=len(os.sched_getaffinity(0)), help="side by side")
    options = parser.parse_args()
    table = Table("what", "seconds", "ms a run", "CPU ms a run")
    took: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="frangible-many-") as name:
        folder = Path(name)
        (folder / "trivial.yaml").write_text(TRIVIAL)
        (folder / "frangible-inventory.yaml").write_text(inventory(options.runs))
        for title, what in ((f"frangible run --select --at-most {options.at_most}", fleet), (f"xargs -P {options.at_most} over chaos run", xargs)):
            seconds, cpu = measured(what, folder, options.runs, options.at_most)
            took.append((seconds, cpu))
            table.add_row(title, f"{seconds:.1f}", f"{seconds / options.runs * 1000:.0f}", f"{cpu / options.runs * 1000:.0f}")
    Console().print(table)
    (ours, our_cpu), (theirs, their_cpu) = took
    Console().print(
        f"{options.runs} runs: xargs over chaos run takes {theirs / ours:.1f} times as long as frangible, and {their_cpu / our_cpu:.1f} times its CPU time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
