"""`frangible recover`: revert what runs that died have left in force."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, InventoryPath, inventory_at
from frangible.cli.output import print_json
from frangible.errors import InventoryError, UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from pathlib import Path

    from frangible.inventory import Inventory
    from frangible.recovery import RecoveryReport

__all__ = ["app"]

EVERY = 5.0
"""Seconds between two looks with `--watch`."""

app = new_app()


@app.command()
def recover(
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only this run.", autocompletion=completion.runs)] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking until interrupted.")] = False,
    inventory: InventoryPath = None,
    as_json: AsJson = False,
) -> None:
    """Revert what runs that died have left in force, and close those runs.

    Faults of runs whose supervisor lives are left to it. Exits with 0 when nothing is left, with 1 when something is.
    With --watch and --json it prints one document a line whenever something changed.

    \b
    Example:
      frangible recover --watch
    """
    home = Home.find()
    loaded = _inventory(inventory, home)
    report = _look(home, loaded, run)
    _tell(report, as_json=as_json, line=watch)
    stop = threading.Event()
    told = report
    while watch:
        stop.wait(EVERY)
        report = _look(home, loaded, run)
        if report != told:
            _tell(report, as_json=as_json, line=True)
        told = report
    if not report.clean:
        raise typer.Exit(1)


def _look(home: Home, inventory: "Inventory | None", run: str | None) -> "RecoveryReport":
    from frangible.fault import FaultRegistry
    from frangible.recovery import recover as recover_all

    return recover_all(home, inventory, run_id=run, registry=FaultRegistry())


def _inventory(explicit: "Path | None", home: Home) -> "Inventory | None":
    """Return the inventory; without one the leases' own records have to do."""
    try:
        return inventory_at(explicit, home)[1]
    except (InventoryError, UsageError) as error:
        if explicit is not None:
            raise
        for line in str(error).splitlines():
            typer.echo(f"frangible: {line}", err=True)
        return None


def _tell(report: "RecoveryReport", *, as_json: bool, line: bool) -> None:
    if as_json:
        document = {
            "reverted": list(report.reverted),
            "failed": list(report.failed),
            "closed_runs": list(report.closed_runs),
            "in_progress": list(report.in_progress),
            "problems": list(report.problems),
            "nothing_left": report.clean,
        }
        if line:
            import json

            typer.echo(json.dumps(document))
        else:
            print_json(document)
        return
    for what, ones in (("reverted", report.reverted), ("NOT reverted", report.failed), ("closed run", report.closed_runs)):
        for one in ones:
            typer.echo(f"{what}: {one}")
    for problem in report.problems:
        typer.echo(f"frangible: {problem}", err=True)
    typer.echo(_summary(report))


def _summary(report: "RecoveryReport") -> str:
    if not report.clean:
        return "something is left: see above"
    if report.in_progress:
        return f"nothing is left over; in progress, and watched by their supervisors: {', '.join(report.in_progress)}"
    return "nothing is left in force"
