"""How often is nothing called something: fault-free runs on the embedded lab, and what their verdicts were.

    python benchmarks/false_alarms.py --runs 100

Each run is a placebo: lease, proof, hold and revert as for a real fault, and nothing is done. Environments run side by side. A verdict of
`deviated` is a false alarm; its share is printed with the upper limit that this many runs can show (Clopper and Pearson 1934, one-sided, 95 %).
An `inconclusive` run accuses nobody, but costs a run: its reasons are printed too. On a busy machine orders are truly late now and then.
"""

import argparse
import contextlib
import itertools
import json
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.special import betaincinv

from benchmarks.labs import lab
from benchmarks.short import write_experiment, write_hypothesis
from frangible import launch
from frangible.home import Home
from frangible.inventory import Inventory, load_inventory
from frangible.journal import Journal
from frangible.request import Request

CONFIDENCE = 0.95
HYPOTHESIS = """\
name: false-alarms
title: Orders are taken and acknowledged as they were before
requires: {metric: 'orders_offered_total{${labels}}', at-least: 20}
recovery: {within: 30s, steady-for: 2s}
indicators:
  - name: orders-acknowledged
    kind: ratio
    block: 2s
    good: 'order_outcomes_total{${labels},outcome="in_time"}'
    valid: 'order_outcomes_total{${labels}}'
    bound: {at-least: 0.99}
    tolerated-share: 0.02
    when-absent: broken
  - name: orders-acknowledged-quickly
    kind: ratio
    block: 2s
    good: 'order_acknowledgement_seconds_bucket{${labels},le="0.2"}'
    valid: 'order_acknowledgement_seconds_count{${labels}}'
    bound: {drop-at-most: 0.05}
    when-absent: broken
  - name: gateways-connected
    kind: gauge
    block: 1s
    lookback: 1s
    query: 'generator_gateways_connected{${labels}}'
    bound: {at-least: 2}
    when-absent: broken
"""


@dataclass(frozen=True)
class Judged:
    """One fault-free run."""

    run: str
    environment: str
    outcome: str
    reasons: tuple[str, ...]
    seconds: float


def nothing(folder: Path) -> Path:
    """Write an experiment in which nothing is injected, as short as its bounds can be shown to be kept, and its hypothesis."""
    windows = {"baseline": "6s", "baseline-limit": "60s", "settle": "300ms"}
    arguments = {"role": "execution", "count": 1, "hold": 10.0}
    return write_experiment(folder / "nothing.yaml", write_hypothesis(folder, HYPOTHESIS), windows, "placebo", "hold_without_fault", arguments)


def execute(home: Home, inventory: Inventory, environment: str, experiment: Path) -> Judged:
    """Run once, as `frangible run` does."""
    began = time.monotonic()
    plan = launch.prepare(experiment, inventory.get(environment), inventory, home, request=Request("false alarms"))
    handle = launch.start(plan)
    refusals = [event["reasons"] for event in handle.events() if event["event"] == "refused"]
    handle.channel.close()
    with contextlib.closing(Journal.open(home.journal_url)) as journal:
        records = {record.id: record for record in journal.runs(environment=environment, limit=5)}
    record = records.get(plan.run_id)
    reasons = record.reasons if record is not None else tuple(*refusals) or ("the run left no record",)
    return Judged(plan.run_id, environment, (record.outcome if record else None) or "no verdict", tuple(reasons), time.monotonic() - began)


def run_all(home: Home, runs: int, folder: Path) -> list[Judged]:
    """Deal the runs to the environments, one at a time in each."""
    inventory = load_inventory(home.lab / "inventory.yaml")
    experiment = nothing(folder)
    names = sorted(name for name, environment in inventory.environments.items() if environment.nodes)  # nothing runs in a parent
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[tally]}"))
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress, ThreadPoolExecutor(len(names)) as pool:
        task = progress.add_task("fault-free runs", total=runs, tally="")
        tally: Counter[str] = Counter()

        def work(environment: str, count: int) -> list[Judged]:
            done = []
            for _ in range(count):
                done.append(execute(home, inventory, environment, experiment))
                tally[done[-1].outcome] += 1
                progress.update(task, advance=1, tally=", ".join(f"{name} {number}" for name, number in sorted(tally.items())))
            return done

        counts = [len(range(index, runs, len(names))) for index in range(len(names))]
        return list(itertools.chain.from_iterable(pool.map(work, names, counts)))


def upper_limit(alarms: int, runs: int) -> float:
    """Return the greatest share of false alarms that so few of so many runs leave possible."""
    return 1.0 if alarms >= runs else float(betaincinv(alarms + 1, runs - alarms, CONFIDENCE))


def report(judged: list[Judged], *, as_json: bool) -> None:
    """Print counts, reasons, the share of false alarms and durations."""
    counts = Counter(one.outcome for one in judged)
    conclusive = counts["held"] + counts["deviated"]
    limit = upper_limit(counts["deviated"], conclusive)
    seconds = sorted(one.seconds for one in judged)
    if as_json:
        figures = {"runs": len(judged), "outcomes": dict(counts), "false alarms": counts["deviated"], "upper limit": limit, "confidence": CONFIDENCE}
        print(json.dumps({**figures, "median seconds": median(seconds), "judged": [asdict(one) for one in judged]}, indent=1))
        return
    print(f"fault-free runs: {len(judged)}")
    for environment in sorted({one.environment for one in judged}):
        of_it = Counter(one.outcome for one in judged if one.environment == environment)
        print(f"  {environment}: " + ", ".join(f"{name} {of_it[name]}" for name in sorted(of_it)))
    share = counts["deviated"] / conclusive if conclusive else 0.0
    print(f"false alarms: {counts['deviated']} of {conclusive} conclusive runs ({share:.1%}; with {CONFIDENCE:.0%} confidence at most {limit:.1%})")
    print(f"seconds a run: median {median(seconds):.1f}, shortest {seconds[0]:.1f}, longest {seconds[-1]:.1f}")
    for outcome in sorted(set(counts) - {"held"}):
        whys = Counter(re.sub(r"\d[\d.,]*", "N", one.reasons[0] if one.reasons else "no reason") for one in judged if one.outcome == outcome)
        print(f"{outcome}, by first reason (numbers left out):")
        for why, number in whys.most_common():
            print(f"  {number} x {why}")
    for one in judged:
        if one.outcome == "deviated":
            print(f"  {one.run} on {one.environment}: {'; '.join(one.reasons)}")


def main() -> int:
    """Run them all; exit 0 when none was a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--home", type=Path, default=None, help="home with a lab that is up; else one is brought up")
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs: expected 1 or more, found {options.runs}")
    with lab(options.home) as home, tempfile.TemporaryDirectory(prefix="frangible-false-alarms-") as folder:
        judged = run_all(home, options.runs, Path(folder))
    report(judged, as_json=options.json)
    return 1 if any(one.outcome == "deviated" for one in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
