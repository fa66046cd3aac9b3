"""What a user waits for, side by side with what they would use instead, in one run on one machine.

    python -m benchmarks.speed

Cold start of `frangible --help`; a cold `frangible run` against a cold `chaos run` of the same trivial experiment, in turns; and, on the
embedded lab, the time from the signal that aborts a run to its last revert.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.labs import lab
from benchmarks.short import experiments

TRIVIAL = """\
title: trivial
description: one probe, no fault
method:
  - type: probe
    name: this-machine
    provider: {type: python, module: platform, func: node}
"""
INVENTORY = """\
environments:
  - name: somewhere
    region: london
    tier: staging
    owner: {team: benchmarks, contact: nobody}
    platform: {kind: hosts, transport: local, root: targets, locks: locks}
"""
BIN = Path(sys.executable).parent


def timed(command: list[str], folder: Path, expected: set[int]) -> float:
    """Run a command to its end; return the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode not in expected:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}, expected {sorted(expected)}\n{done.stdout}{done.stderr}")
    return took


def environment(home: Path) -> dict[str, str]:
    """Return this process's variables with a home of the benchmark's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRANGIBLE_") or name == "FRANGIBLE_PROMETHEUS"}
    return kept | {"FRANGIBLE_HOME": str(home)}


def cold(repeats: int, advance: Callable[[], None]) -> Iterator[tuple[str, list[float]]]:
    """Time `--help` and the trivial experiment, the two ways to run it in turns."""
    with tempfile.TemporaryDirectory(prefix="frangible-speed-") as name:
        folder = Path(name)
        (folder / "trivial.yaml").write_text(TRIVIAL)
        (folder / "frangible-inventory.yaml").write_text(INVENTORY)
        frangible, chaos = str(BIN / "frangible"), str(BIN / "chaos")
        commands = {
            "frangible --help": ([frangible, "--help"], {0}),
            "chaos --help": ([chaos, "--help"], {0}),
            "frangible run trivial.yaml": ([frangible, "run", "trivial.yaml", "--environment", "somewhere", "--quiet"], {3}),
            "chaos run trivial.yaml": ([chaos, "--no-version-check", "--no-log-file", "run", "trivial.yaml"], {0}),
        }
        for command, expected in commands.values():  # the first of each writes caches and databases
            timed(command, folder, expected)
        times: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(repeats):
            for what, (command, expected) in commands.items():
                times[what].append(timed(command, folder, expected))
            advance()
        yield from times.items()


def aborts(repeats: int, home: Path | None, advance: Callable[[], None]) -> list[float]:
    """Abort runs while a node is lost; return the seconds from each signal to the last revert."""
    with lab(home) as found, tempfile.TemporaryDirectory(prefix="frangible-speed-") as name:
        path = experiments(Path(name), hold=30.0)["node-loss"]
        return [_abort(path, found.path, advance) for _ in range(repeats)]


def _abort(path: Path, home: Path, advance: Callable[[], None]) -> float:
    known = set((home / "runs").glob("*"))
    starter = subprocess.Popen(
        [str(BIN / "frangible"), "run", str(path), "--environment", "lab-london", "--quiet"],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    events = until(lambda: next((e for e in events_of(home, known) if e.get("state") == "proven"), None), starter)
    if not events:
        raise SystemExit("benchmark: a run ended before its fault was proven; look at `frangible journal list`")
    sent = time.time()
    starter.send_signal(signal.SIGTERM)
    starter.wait(60)
    reverted = [float(str(event["at"])) for event in events_of(home, known) if event.get("state") == "reverted"]
    advance()
    return max(reverted) - sent


def events_of(home: Path, known: set[Path]) -> list[dict[str, object]]:
    """Return the events of the runs of a home that were not known before."""
    found = [path for path in (home / "runs").glob("*") if path not in known]
    lines = [line for path in found if (path / "events.jsonl").exists() for line in (path / "events.jsonl").read_text().splitlines()]
    parsed = []
    for line in lines:
        with contextlib.suppress(ValueError):  # the last line may be half written
            parsed.append(json.loads(line))
    return parsed


def until[Found](look: Callable[[], Found | None], process: "subprocess.Popen[bytes]") -> Found | None:
    """Look until something is found or the process has ended."""
    while process.poll() is None:
        if found := look():
            return found
        time.sleep(0.02)
    return None


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--aborts", type=int, default=10, help="0 leaves the lab alone")
    parser.add_argument("--home", type=Path, default=None, help="home with a lab that is up; else one is brought up")
    options = parser.parse_args()
    table = Table("what", "median s", "lowest", "highest", "times")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("measuring", total=options.repeats + options.aborts)
        rows = dict(cold(options.repeats, lambda: progress.advance(task)))
        if options.aborts:
            rows["abort: signal to last revert (lab)"] = aborts(options.aborts, options.home, lambda: progress.advance(task))
    for what, seconds in rows.items():
        table.add_row(what, f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f}", f"{max(seconds):.3f}", str(len(seconds)))
    Console().print(table)
    ratio = statistics.median(rows["frangible run trivial.yaml"]) / statistics.median(rows["chaos run trivial.yaml"])
    Console().print(f"frangible run takes {ratio:.2f} times as long as chaos run of the same file")
    return 0


if __name__ == "__main__":
    sys.exit(main())
