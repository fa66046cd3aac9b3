"""`frangible fragility`: which environments are fragile, and to what."""

import time
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, InventoryPath, inventory_at, journal_of
from frangible.cli.output import columns, moment, print_json, span
from frangible.errors import InputError, UsageError
from frangible.fragility import CONFIDENCE, NO_FAULTS, Score, scores
from frangible.home import Home

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app"]

app = new_app()
OPEN = frozenset({"toolkit-action"})
"""Kinds that stand for whatever an experiment makes of them: without a run of one, there is nothing that was not tested."""
HEADER = ("ENVIRONMENT", "FAULT", f"HOLDS ({CONFIDENCE:.0%})", "RUNS", "HELD", "DEVIATED", "INCONCLUSIVE", "LAST", "STARTED", "AGE", "RUN")
STYLES = {"held": "green", "deviated": "red", "inconclusive": "yellow", "unknown": "yellow"}


@app.command()
def fragility(
    environment: Annotated[
        list[str] | None,
        typer.Option("--environment", "-e", metavar="NAME", help="Name or glob; may be given again.", autocompletion=completion.environments),
    ] = None,
    region: Annotated[str, typer.Option("--region", metavar="NAME", help="Environments of this region.")] = "",
    owner: Annotated[str, typer.Option("--owner", metavar="TEAM", help="Environments of this team.")] = "",
    fault: Annotated[str | None, typer.Option("--fault", metavar="KIND", help="One kind of fault.", autocompletion=completion.faults)] = None,
    inventory: InventoryPath = None,
    as_json: AsJson = False,
) -> None:
    """Show which environments are fragile, and to what.

    One line an environment and kind of fault: how probable it is that the next run holds, with the interval that the runs so far allow, and
    the counts. A run counts for each kind of fault that it injected; inconclusive runs are no evidence. What was never tested is `unknown`:
    environments of the inventory are listed with every known fault. Without an inventory it shows what the journal has.

    \b
    Example:
      frangible fragility --region newyork --fault node-loss
    """
    home = Home.find()
    names = _environments(home, inventory, tuple(environment or ()), region, owner)
    kinds = _kinds(fault)
    with journal_of(home) as journal:
        stored = journal.fragility(fault=fault)
    wanted = [score for score in stored if _is_wanted(score.environment, names, environment or [], by_inventory=bool(region or owner))]
    found = scores(wanted, names, kinds)
    if as_json:
        print_json([_document(score) for score in found])
    elif found:
        _print(found)
    else:
        typer.echo("no such run and no inventory; `frangible run EXPERIMENT --environment NAME` makes the first")


def _environments(home: Home, inventory: Path | None, names: tuple[str, ...], region: str, owner: str) -> tuple[str, ...]:
    """Return the inventory's environments that are meant; none without an inventory, unless one is needed to know what is meant."""
    from frangible.inventory import Selection

    try:
        _, loaded = inventory_at(inventory, home)
    except InputError:
        raise
    except UsageError:
        if inventory is not None or region or owner:
            raise
        return ()
    known = [name for name in names if name in loaded.environments or any(character in name for character in "*?[")]
    if names and not known:
        return ()  # the journal may remember an environment that the inventory has forgotten
    return tuple(one.name for one in loaded.select(Selection(names=tuple(known), region=region, owner=owner)))


def _is_wanted(name: str, selected: tuple[str, ...], patterns: list[str], *, by_inventory: bool) -> bool:
    """Say whether a score is to be shown; by region and owner only the inventory knows."""
    if name in selected:
        return True
    return not by_inventory and (not patterns or any(fnmatchcase(name, pattern) for pattern in patterns))


def _kinds(fault: str | None) -> tuple[str, ...]:
    from frangible.fault import FaultRegistry
    from frangible.yamlfile import nearest

    known = tuple(kind for kind in FaultRegistry().kinds() if kind not in NO_FAULTS)
    if fault is None:
        return tuple(kind for kind in known if kind not in OPEN)
    if fault in known:
        return (fault,)
    raise UsageError(f"--fault {fault!r}: no known fault is called that; {nearest(fault, known)}")


def _print(found: tuple[Score, ...]) -> None:
    """Print coloured columns on a terminal and plain ones into a pipe, where nothing may be cut."""
    from rich.console import Console

    console = Console(highlight=False)
    now = time.time()
    if not console.is_terminal:
        typer.echo(columns(HEADER, [_row(score, now) for score in found]))
        return
    _print_table(console, found, now)


def _print_table(console: "Console", found: tuple[Score, ...], now: float) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in HEADER:
        table.add_column(title, justify="right" if title in HEADER[3:7] else "left", overflow="fold")
    for score in found:
        style = STYLES["unknown" if not score.known else "deviated" if score.deviated else "held"]
        first, kind, holds, *rest = _row(score, now)
        table.add_row(first, kind, Text(holds, style), *rest[:4], Text(rest[4], STYLES.get(rest[4], "")), *rest[5:])
    console.print(table)


def _row(score: Score, now: float) -> tuple[str, ...]:
    counts = tuple(str(number) for number in (score.runs, score.held, score.deviated, score.inconclusive))
    age = "-" if score.last_at is None else _age(now - score.last_at)
    return (score.environment, score.fault, _holds(score), *counts, score.last_outcome or "-", moment(score.last_at), age, score.last_run or "-")


def _holds(score: Score) -> str:
    if not score.known or score.holds is None:
        return "unknown"
    return f"{score.holds.mean:.2f} ({score.holds.low:.2f}-{score.holds.high:.2f})"


def _age(seconds: float) -> str:
    return span(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def _document(score: Score) -> dict[str, object]:
    """Return JSON; what is unknown has no probability, not even the prior's."""
    document = asdict(score) | {"runs": score.runs, "known": score.known}
    return document | ({} if score.known else {"holds": None})
