"""Several runs of `frangible run`: one view for all of them, one table at the end, one exit code."""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from frangible.cli.live import REDRAW, STYLES, clock_text, write_now
from frangible.cli.output import columns, json_document, span
from frangible.cli.watching import Watched, reading_text
from frangible.errors import UsageError
from frangible.fleet import Ended, Fleet, worst

if TYPE_CHECKING:
    from rich.console import RenderableType

    from frangible.forkserver import ForkServer
    from frangible.home import Home
    from frangible.hypothesis import Hypothesis
    from frangible.inventory import Environment, Inventory, Selection
    from frangible.plan import Plan
    from frangible.progress import Event, IndicatorReading

__all__ = ["LeftAlone", "chosen", "fork_from", "hypotheses_of", "labels", "parse_selection", "run_fleet", "run_many", "summary"]

LABEL = "label:"
FIELDS = ("region", "parent", "owner", "tier")
INCONCLUSIVE = 3


class LeftAlone(Exception):
    """The user pressed Ctrl-C twice: leave, and let the supervisors revert."""


def parse_selection(texts: Sequence[str]) -> "Selection":
    """Turn `ny-*`, `region=london,tier=staging`, `label:cluster=lon1` into a selection; raise `UsageError` for what means nothing."""
    from frangible.inventory import Selection

    names: list[str] = []
    fields: dict[str, str] = {}
    matchers: dict[str, str] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        key, given, value = part.partition("=")
        if not part or (given and not value):
            raise UsageError(f"--select {part!r}: expected a name, a glob such as 'ny-*', or KEY=VALUE, found nothing to compare with")
        if not given:
            names.append(part)
            continue
        where, key = (matchers, key.removeprefix(LABEL)) if key.startswith(LABEL) else (fields, key)
        if where is fields and key not in FIELDS:
            raise UsageError(f"--select {part!r}: expected one of {', '.join(FIELDS)} or {LABEL}NAME before the `=`, found {key!r}")
        if where.setdefault(key, value) != value:
            raise UsageError(f"--select: {key} is given twice, as {where[key]!r} and {value!r}; no environment can be both")
    return Selection(names=tuple(names), labels=matchers, **fields)


def chosen(inventory: "Inventory", names: Sequence[str], selections: Sequence[str]) -> "tuple[Environment, ...]":
    """Return the named environments in their order, then the selected ones by name, each once."""
    found = {name: inventory.get(name) for name in names}
    if selections:
        selected = inventory.select(parse_selection(selections))
        if not selected:
            raise UsageError(f"--select {','.join(selections)}: no environment of {inventory.path} matches; it has {', '.join(inventory.environments)}")
        found |= {environment.name: environment for environment in selected if environment.name not in found}
    return tuple(found.values())


def labels(plans: "Sequence[Plan]") -> dict[str, str]:
    """Name each run by its environment, and by as much more as tells it from the others."""
    several = len({plan.experiment_path for plan in plans}) > 1
    names = {plan.run_id: f"{plan.environment.name} {plan.experiment}" if several else plan.environment.name for plan in plans}
    totals, seen = Counter(names.values()), Counter[str]()
    for run_id, name in names.items():
        seen[name] += 1
        if totals[name] > 1:
            names[run_id] = f"{name} #{seen[name]}"
    return names


class Board(Protocol):
    """Where the progress of many runs goes."""

    def show(self, plan: "Plan", event: "Event") -> None:
        """Take an event of one run in."""

    def end(self, ended: Ended) -> None:
        """Take in how a run ended."""

    def say(self, text: str) -> None:
        """Show a sentence of the command's own; may be called from a signal handler."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class QuietBoard:
    """Says nothing but what answers a key."""

    def __init__(self, plans: "Sequence[Plan]") -> None:
        """Name the runs."""
        self.names = labels(plans)
        self.watched = {plan.run_id: Watched(run=plan.run_id, environment=self.names[plan.run_id], experiment=plan.experiment) for plan in plans}
        self.ended: list[Ended] = []
        self._one_at_a_time = threading.Lock()

    def show(self, plan: "Plan", event: "Event") -> None:
        """Take an event of one run in, and print its line where there is one."""
        with self._one_at_a_time:
            line = self.watched[plan.run_id].apply(event)
            if line is not None:
                self.line(event["at"], f"{self.names[plan.run_id]}: {line}")

    def end(self, ended: Ended) -> None:
        """Print how a run ended."""
        with self._one_at_a_time:
            self.ended.append(ended)
            self.line(time.time(), f"{self.names[ended.plan.run_id]}: {ended.outcome.upper()} ({len(self.ended)} of {len(self.names)} runs ended)")

    def line(self, at: float, text: str) -> None:
        """Nothing: this one is quiet."""

    def say(self, text: str) -> None:
        """Say it all the same."""
        write_now(text)

    def close(self) -> None:
        """Nothing to leave."""


class LineBoard(QuietBoard):
    """One line for each event of interest, with the environment's name."""

    def line(self, at: float, text: str) -> None:
        """Print a line."""
        typer.echo(f"{clock_text(at)} {text}", err=True)


class TableBoard(QuietBoard):
    """One table for all runs in progress, redrawn in place."""

    def __init__(self, plans: "Sequence[Plan]") -> None:
        """Start to draw."""
        from rich.console import Console
        from rich.live import Live

        super().__init__(plans)
        self.said = ""
        self._live: Live = Live(
            get_renderable=lambda: board(self, time.time()),
            console=Console(stderr=True),
            refresh_per_second=REDRAW,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def say(self, text: str) -> None:
        """Show a sentence under the table."""
        self.said = text

    def close(self) -> None:
        """Draw the last picture and stop."""
        self._live.stop()


def board(shown: TableBoard, now: float) -> "RenderableType":
    """Draw the counts and a row for each run in progress."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ended = list(shown.ended)
    over = {one.plan.run_id for one in ended}
    head = Text(f"{len(over)} of {len(shown.watched)} runs ended", style="bold")
    for outcome, count in Counter(one.outcome for one in ended).items():
        head.append(f"  {count} {outcome}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("environment", "phase", "left", "faults in force", "worst indicator"):
        table.add_column(name, overflow="fold")
    for watched in shown.watched.values():
        if watched.run not in over and watched.phase != "starting":
            table.add_row(*_row(watched, now))
    return Group(head, table, *([Text(shown.said, style="yellow")] if shown.said else []))


def _row(watched: Watched, now: float) -> "Iterator[RenderableType]":
    from rich.text import Text

    yield Text(watched.environment)
    yield Text(watched.phase, style="cyan")
    yield Text("" if watched.until is None else span(max(0.0, round(watched.until - now))))
    yield Text(", ".join(f"{one.fault} on {one.target}" for one in list(watched.faults.values()) if one.state not in ("intended", "reverted")))
    reading = worst_reading(watched)
    yield Text("" if reading is None else reading_text(reading), style="" if reading is None else STYLES.get(reading["state"], ""))


def worst_reading(watched: Watched) -> "IndicatorReading | None":
    """Return the indicator that says most: a broken one, else one without data, else the first."""
    order = ("broken", "no-data", "kept", "waived")
    return min(watched.readings.values(), key=lambda reading: order.index(reading["state"]), default=None)


def open_board(plans: "Sequence[Plan]", *, quiet: bool) -> Board:
    """Choose: nothing, a table where stderr is a terminal, or lines."""
    if quiet:
        return QuietBoard(plans)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return TableBoard(plans)
    return LineBoard(plans)


def run_fleet(fleet: Fleet, *, quiet: bool) -> tuple[Ended, ...]:
    """Run it with one view; Ctrl-C and SIGTERM abort all, a second one raises `LeftAlone`."""
    import signal

    from frangible.cli.run import catching

    view = open_board(fleet.plans, quiet=quiet)
    fleet.on_event, fleet.on_end = view.show, view.end
    asked = 0

    def stop(number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise LeftAlone
        view.say("stopping all runs: faults are being reverted; Ctrl-C again leaves that to the supervisors")
        fleet.abort(f"stopped by {signal.Signals(number).name}")

    try:
        with catching(stop):
            return fleet.run()
    except LeftAlone:
        left = [handle.run_id for handle in fleet.in_progress()]
        view.close()
        typer.echo(f"frangible: left {', '.join(left) or 'no run'}; their supervisors go on reverting: see `frangible status`", err=True)
        raise
    finally:
        view.close()


def fork_from(server: "ForkServer", fleet: Fleet) -> None:
    """Let the runs of a fleet be forked from this server."""
    from frangible import ahead, launch

    fleet.start = partial(launch.start_forked, server=server)
    if any(plan.hypotheses for plan in fleet.plans):
        server.imports(ahead.JUDGING)


def run_many(fleet: Fleet, *, as_json: bool, quiet: bool) -> int:
    """Run them, print what came of each, and return the worst exit code."""
    try:
        ended = run_fleet(fleet, quiet=quiet)
    except LeftAlone:
        return INCONCLUSIVE
    if as_json:
        typer.echo(json_document(list(documents(ended, fleet.home))))
    else:
        typer.echo(summary(ended))
    for one in ended:
        _tell(one)
    return worst(one.exit_code for one in ended)


def _tell(ended: Ended) -> None:
    """Say on stderr what somebody has to look at."""
    where = f"frangible: {ended.plan.environment.name}: "
    if ended.state == "failed":
        typer.echo(f"{where}{'; '.join(ended.reasons) or 'the run failed'}; its log is {ended.plan.folder / 'supervisor.log'}", err=True)
    if ended.state == "died":
        for reason in ended.reasons:
            typer.echo(f"{where}{reason}", err=True)
    if ended.event is not None and ended.event.get("journalled") is False:
        typer.echo(f"{where}the journal could not be written; `frangible journal import {ended.plan.record_path}` puts the record in", err=True)


def documents(ended: Sequence[Ended], home: "Home") -> Iterator[dict[str, object]]:
    """Yield the records of the runs; for a run without one, how it ended."""
    from frangible.cli.opening import journal_of
    from frangible.journal import record_to_json

    with ExitStack() as stack:
        journal = cache(lambda: stack.enter_context(journal_of(home)))
        for one in ended:
            if one.state != "verdict" or one.event is None:
                yield _unjudged(one)
            elif one.event.get("journalled") is False:
                yield json.loads(one.plan.record_path.read_text(encoding="utf-8"))
            else:
                yield json.loads(record_to_json(journal().get(one.plan.run_id)))


def _unjudged(ended: Ended) -> dict[str, object]:
    return {
        "id": None if ended.state == "not started" else ended.plan.run_id,
        "experiment": ended.plan.experiment,
        "environment": ended.plan.environment.name,
        "outcome": ended.outcome,
        "reasons": list(ended.reasons),
        "exit_code": ended.exit_code,
    }


def summary(ended: Sequence[Ended]) -> str:
    """Render the table of all runs, and the counts."""
    names = labels([one.plan for one in ended])
    rows = [
        (
            names[one.plan.run_id],
            one.outcome.upper(),
            "-" if one.began is None or one.ended is None else span(round(one.ended - one.began, 1)),
            "-" if one.began is None else one.plan.run_id,
            next(iter(one.reasons), ""),
        )
        for one in ended
    ]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in Counter(one.outcome for one in ended).items())
    return f"{columns(('environment', 'outcome', 'took', 'run', 'first reason'), rows)}\n{len(ended)} run{'s' if len(ended) != 1 else ''}: {counts}"


def hypotheses_of(experiment: Path, folders: Sequence[Path]) -> "dict[Path, Mapping[str, Hypothesis]]":
    """Load what the experiment may name, once for all runs."""
    from frangible import launch

    return {experiment: launch.hypotheses_for(experiment, tuple(folders))}
