"""Run the project's checks and tests side by side and say what failed.

    python ci/check.py              everything, as CI runs it
    python ci/check.py lint types   only these steps

Each step's output is shown when it fails; the closing line of each test run is shown at the end.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
PYTEST = f"{PYTHON} -m coverage run -m pytest"
PYTEST_SUMMARY = re.compile(r"\b(passed|failed|errors?|deselected|no tests ran)\b.* in [0-9.]+s")


@dataclass(frozen=True, slots=True)
class Step:
    """One named command; its exit code is its answer."""

    name: str
    command: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step."""

    step: Step
    code: int
    seconds: float
    output: str

    @property
    def closing_line(self) -> str:
        """Pytest's own summary of its run, or what was said last."""
        lines = [line for line in self.output.splitlines() if line.strip()] or [""]
        return next((line for line in reversed(lines) if PYTEST_SUMMARY.search(line)), lines[-1])


TESTS = ("wheel", "lab", "unit")
STAGES: tuple[tuple[Step, ...], ...] = (
    (
        # The longest first: two run at a time.
        Step("unit", f'{PYTEST} -n 2 -m "not lab and not cluster"'),
        Step("types", "ci/typecheck"),
        Step("format", f"{PYTHON} -m ruff format --check"),
        Step("lint", f"{PYTHON} -m ruff check"),
        Step("imports", "ci/imports"),
        Step("wheel", "ci/wheel-test"),
    ),
    # The lab measures itself, so nothing else runs beside it; its tests mostly wait, so two labs do (tests/lab/conftest.py).
    (Step("lab", f"{PYTEST} -n 2 --dist loadscope --no-loadscope-reorder -m lab"),),
    # A process that was killed while it wrote its data leaves a file that cannot be read.
    (Step("coverage", f"{PYTHON} -W ignore -m coverage combine -q && rm -f .coverage.* && {PYTHON} -m coverage report"),),
)


class Runner:
    """Runs steps, two at a time, each in a process group of its own so that an interrupt leaves nothing behind."""

    def __init__(self) -> None:
        """Start with nothing running."""
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, step: Step) -> Result:
        """Run one step to its end."""
        began = time.monotonic()
        with self._lock:
            if self._stopped:
                return Result(step, 130, 0.0, "interrupted")
            process = subprocess.Popen(  # noqa: S602 - commands are the constants above
                step.command, shell=True, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            self._running.add(process)
        output = process.communicate()[0]
        with self._lock:
            self._running.discard(process)
        return Result(step, process.returncode, time.monotonic() - began, output)

    def stop(self) -> None:
        """Interrupt what runs; pytest then tears its fixtures down."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                os.killpg(process.pid, signal.SIGINT)


def say(text: str) -> None:
    """Print at once, also when nobody's terminal is there."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def report(result: Result) -> None:
    """Say how a step ended, with its output when it failed."""
    if result.code == 0:
        say(f"  ok      {result.step.name:<9} {result.seconds:6.1f} s")
        return
    say(f"  FAILED  {result.step.name:<9} {result.seconds:6.1f} s   exit code {result.code}: {result.step.command}")
    say("\n".join(f"  | {line}" for line in result.output.rstrip().splitlines()))


def run_stage(runner: Runner, steps: Sequence[Step]) -> list[Result]:
    """Run the steps of one stage and report each as it ends."""
    results = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for future in as_completed([pool.submit(runner.run, step) for step in steps]):
            results.append(future.result())
            report(results[-1])
    return results


def chosen(names: Sequence[str]) -> list[list[Step]]:
    """Return the stages that contain the named steps, or all of them."""
    known = [step.name for stage in STAGES for step in stage]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"check: no step {', '.join(unknown)}; there are {', '.join(known)}")
    picked = [[step for step in stage if not names or step.name in names] for stage in STAGES]
    return [stage for stage in picked if stage]


def summarise(results: Sequence[Result], seconds: float) -> int:
    """Print the closing lines and the outcome; return the exit code."""
    failed = [result.step.name for result in results if result.code != 0]
    verdict = f"FAILED: {', '.join(failed)}" if failed else "everything passed"
    say(f"\n{verdict} ({len(results)} steps, {seconds:.0f} s)")
    tests = {result.step.name: result for result in results}
    for name in TESTS:
        if name in tests:
            say(f"{name}:\n{tests[name].closing_line}")
    return 1 if failed else 0


def main(names: Sequence[str]) -> int:
    """Run the named steps, or all; return 0 when every one passed."""
    began = time.monotonic()
    stages = chosen(names)
    for old in ROOT.glob(".coverage*"):
        if not names:
            old.unlink()
    runner = Runner()
    results: list[Result] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: runner.stop())
    for stage in stages:
        say(f"running {', '.join(step.name for step in stage)}")
        results += run_stage(runner, stage)
    return summarise(results, time.monotonic() - began)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
