"""How much does a run on one lab environment disturb the others? What may run side by side is limited by the answer.

    python -m benchmarks.crosstalk
    python -m benchmarks.crosstalk --fault cpu-saturation --hold 30

While each shipped experiment runs on `lab-newyork`, with short windows, orders of all other environments are watched: how many were
acknowledged within their bound, and after what time. That is set beside a quiet spell just before. The environments share one machine and nothing
else, so what they notice of each other is its CPUs and disk. A placebo shows what a run costs by itself.

Disturbed means that the share in time fell by more than TOLERATED, since the shipped hypotheses' bounds leave so much. A fault that disturbs
has to need a part of the machine alone (its class's `exclusive`): resource keys then keep its runs apart. Exits with 1 when one
disturbs and does not say so. On a machine that has other work the figures are those of the other work.
"""

import argparse
import json
import math
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.labs import lab
from benchmarks.short import write_hypothesis
from frangible import launch
from frangible.experiment import shipped_experiments
from frangible.home import Home
from frangible.inventory import Inventory, load_inventory
from frangible.lab import status
from frangible.request import Request

DISTURBING = "lab-newyork"
FAULTS = ("placebo", "node-loss", "middleware-restart", "process-pause", "volume-surge", "cpu-saturation")
TOLERATED = 0.01
"""Share of orders in time that may be missing beside quiet: what `order-flow` leaves (at least 0.99)."""
SETTLED = 180.0
"""Seconds after which the environments are taken as they are."""
SCRAPES = 3.0
"""Seconds after a window's end at which Prometheus holds its last samples."""


@dataclass(frozen=True)
class Orders:
    """What became of an environment's orders in one window."""

    in_time: float
    """Share of those decided, 0 to 1; NaN where none was."""
    median: float
    """Seconds until acknowledged, to the resolution of the histogram's buckets."""
    late: float
    """The same for the 99th percentile."""


@dataclass(frozen=True)
class Spell:
    """One window on the other environments."""

    fault: str
    seconds: float
    orders: dict[str, Orders]
    outcome: str = ""
    """How the disturbing run ended; empty for quiet."""


def ask(prometheus: str, query: str, at: float) -> float:
    """Return the one number that a query has at a time; NaN where there is none."""
    address = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query, 'time': at})}"
    with urllib.request.urlopen(address, timeout=30) as response:
        result = json.load(response)["data"]["result"]
    return float(result[0]["value"][1]) if result else math.nan


def watched(prometheus: str, environment: str, began: float, ended: float) -> Orders:
    """Return what became of the orders of an environment between two times."""
    span = f"[{max(2, round(ended - began))}s]"
    outcomes = f'sum(increase(order_outcomes_total{{environment="{environment}"LABEL}}{span}))'
    share = outcomes.replace("LABEL", ',outcome="in_time"') + " / " + outcomes.replace("LABEL", "")
    buckets = f'sum by (le) (increase(order_acknowledgement_seconds_bucket{{environment="{environment}"}}{span}))'
    quantiles = [ask(prometheus, f"histogram_quantile({quantile}, {buckets})", ended) for quantile in (0.5, 0.99)]
    return Orders(ask(prometheus, share, ended), *quantiles)


def experiments(folder: Path, faults: Sequence[str], hold: float) -> Iterator[tuple[str, Path]]:
    """Write each shipped experiment with short windows and bounds that do not matter here."""
    hypothesis = write_hypothesis(folder)
    for fault in faults:
        document = yaml.safe_load((shipped_experiments() / f"{fault}.yaml").read_text())
        document["extensions"] = [{"name": "frangible", "baseline": "3s", "baseline-limit": "45s", "recovery-limit": "20s", "settle": "300ms"}]
        probe = document["steady-state-hypothesis"]["probes"][0]
        document["steady-state-hypothesis"]["probes"] = [probe]
        probe["provider"]["arguments"] = {"hypothesis": hypothesis}
        document["method"][0]["provider"]["arguments"]["hold"] = hold
        path = folder / f"{fault}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        yield fault, path


def disturbed(home: Home, inventory: Inventory, experiment: Path) -> tuple[float, float, str]:
    """Run it; return when its fault was first proven, when it began to be reverted, and how the run ended."""
    plan = launch.prepare(experiment, inventory.get(DISTURBING), inventory, home, request=Request("cross-talk"))
    handle = launch.start(plan)
    events = [dict(event) for event in handle.events()]
    handle.channel.close()
    moments = {state: [float(str(e["at"])) for e in events if e["event"] == "fault" and e["state"] == state] for state in ("proven", "reverting")}
    if not moments["proven"] or not moments["reverting"]:
        why = next((e["reasons"] for e in reversed(events) if e.get("reasons")), "see `frangible journal list`")
        raise SystemExit(f"cross-talk: the fault of {experiment.stem} was never proven: {why}")
    outcome = next((str(e["outcome"]) for e in reversed(events) if e.get("outcome")), "no verdict")
    return min(moments["proven"]), min(moments["reverting"]), outcome


def settle(look: Callable[[], Spell]) -> None:
    """Wait until every environment is steady: a lab that was in use may still work off what came in."""
    end = time.monotonic() + SETTLED
    while any(orders.in_time < 1 - TOLERATED for orders in look().orders.values()) and time.monotonic() < end:
        print("cross-talk: not every environment is steady yet", file=sys.stderr)


def measure(home: Home, faults: Sequence[str], hold: float) -> Iterator[tuple[Spell, Spell]]:
    """For each fault, watch a quiet spell and then one with the fault in force elsewhere."""
    state = status(home.lab)
    if state is None:
        raise SystemExit("cross-talk: the lab is down")
    inventory = load_inventory(state.inventory)
    others = [spec.name for spec in state.estate if spec.name != DISTURBING]

    def look(fault: str, began: float, ended: float, outcome: str = "") -> Spell:
        time.sleep(max(0.0, ended + SCRAPES - time.time()))
        return Spell(fault, ended - began, {name: watched(state.prometheus_url, name, began, ended) for name in others}, outcome)

    settle(lambda: look("quiet", time.time(), time.time() + hold))
    with tempfile.TemporaryDirectory(prefix="frangible-crosstalk-") as folder:
        for fault, path in experiments(Path(folder), faults, hold):
            now = time.time()
            quiet = look("quiet", now, now + hold)
            yield quiet, look(fault, *disturbed(home, inventory, path))


def lost(quiet: Spell, spell: Spell) -> float:
    """Return the greatest share of orders that an environment had in time when it was quiet and has not now; NaN where none can be told.

    One that was not steady when it was quiet tells nothing.
    """
    steady = [name for name, orders in quiet.orders.items() if orders.in_time >= 1 - TOLERATED]
    differences = [quiet.orders[name].in_time - spell.orders[name].in_time for name in steady]
    return math.nan if not differences or any(map(math.isnan, differences)) else max(differences)


def meaning(quiet: Spell, spell: Spell, exclusive: frozenset[str]) -> tuple[str, bool]:
    """Say what that means for runs side by side, and whether the fault's resource keys already see to it."""
    difference, alone = lost(quiet, spell), f"alone on its machine's {', '.join(sorted(exclusive))}" if exclusive else "side by side"
    if math.isnan(difference):
        return "cannot be told: no environment was steady when it was quiet", False
    if difference > TOLERATED:
        return f"disturbs others; runs {alone}", bool(exclusive)
    return f"disturbs nobody; runs {alone}", True


def rows(spells: Sequence[tuple[Spell, Spell]]) -> Iterator[tuple[str, str, list[str]]]:
    """For each pair, a name and cells: in time for each environment, then the slowest environment's median and 99th percentile."""
    for pair in spells:
        for spell in pair:
            shares = [f"{orders.in_time:.2%}" for orders in spell.orders.values()]
            times = [f"{1000 * max(getattr(orders, which) for orders in spell.orders.values()):.0f}" for which in ("median", "late")]
            yield spell.fault, spell.outcome, [f"{spell.seconds:.0f}", *shares, *times]


def show(spells: Sequence[tuple[Spell, Spell]]) -> bool:
    """Print the table and what it means; return whether resource keys keep apart what disturbs."""
    from frangible.fault import FaultRegistry

    names = list(spells[0][1].orders)
    table = Table("while in force on " + DISTURBING, "s", *(f"{name}, in time" for name in names), "median ms", "99 % ms")
    for fault, _, cells in rows(spells):
        table.add_row(fault, *cells)
    Console(width=160).print(table)
    print("Milliseconds are those of the slowest environment. What it means for runs on one machine:")
    fine = True
    for quiet, spell in spells:
        said, agrees = meaning(quiet, spell, FaultRegistry().exclusive(spell.fault))
        fine &= agrees
        warning = "" if agrees else "   <-- NOT kept apart by its resource keys"
        print(f"  {spell.fault:<20} {lost(quiet, spell):+.2%} of orders no longer in time at worst: {said}{warning}")
    return fine


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this; may be given several times")
    parser.add_argument("--hold", type=float, default=15.0, help="seconds for which each fault is in force, and of quiet before it")
    parser.add_argument("--home", type=Path, default=None, help="home with a lab that is up; else one is brought up")
    options = parser.parse_args()
    if options.hold < 5:
        parser.error(f"--hold: expected 5 seconds or more, found {options.hold:g}")
    with lab(options.home) as home:
        spells = list(measure(home, options.fault or FAULTS, options.hold))
    return 0 if show(spells) else 1


if __name__ == "__main__":
    sys.exit(main())
