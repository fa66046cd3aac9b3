"""`frangible status`: who holds what, until when."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, InventoryPath, inventory_at, journal_of, ledger_of
from frangible.cli.output import columns, moment, print_json
from frangible.errors import FrangibleError
from frangible.home import Home

if TYPE_CHECKING:
    from pathlib import Path

    from frangible.journal import RunRecord
    from frangible.ledger import Lease, Stop
    from frangible.locks import Holder

__all__ = ["app"]

app = new_app()


@dataclass
class Found:
    """What was found; a part that could not be read is among the problems."""

    halt: "Stop | None" = None
    leases: "tuple[Lease, ...]" = ()
    runs: "tuple[RunRecord, ...]" = ()
    locks: "list[Holder]" = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@app.command()
def status(inventory: InventoryPath = None, as_json: AsJson = False) -> None:
    """Show locks, open leases, runs in progress and the halt: who, and until when.

    Exits with 1 when a part could not be read, since nobody knows then what is in force.

    \b
    Example:
      frangible status
    """
    found = _look(Home.find(), inventory)
    if as_json:
        print_json(_document(found))
    else:
        for line in _lines(found):
            typer.echo(line)
        for problem in found.problems:
            typer.echo(f"frangible: {problem}", err=True)
    if found.problems:
        raise typer.Exit(1)


def _look(home: Home, inventory: "Path | None") -> Found:
    """Read each part for itself, so that one that fails hides no other."""
    found = Found()
    try:
        with ledger_of(home) as ledger:
            found.leases = ledger.open_leases()
            found.halt = next((stop for stop in ledger.stops() if stop.scope == "*"), None)
    except FrangibleError as error:
        found.problems.append(str(error))
    try:
        with journal_of(home) as journal:
            found.runs = journal.orphans()
    except FrangibleError as error:
        found.problems.append(str(error))
    _look_at_locks(home, inventory, found)
    return found


def _look_at_locks(home: Home, inventory: "Path | None", found: Found) -> None:
    from frangible.platforms import open_platform

    try:
        _, loaded = inventory_at(inventory, home)
    except FrangibleError as error:
        found.problems.extend(f"locks are unknown: {line}" for line in str(error).splitlines())
        return
    seen = set()
    for environment in loaded.environments.values():
        try:
            holders = open_platform(environment).locks().holders()
        except FrangibleError as error:
            found.problems.append(f"locks of {environment.name} are unknown: {error}")
            continue
        for holder in holders:
            if (holder.key, holder.run_id, holder.epoch) not in seen:
                seen.add((holder.key, holder.run_id, holder.epoch))
                found.locks.append(holder)


def _lines(found: Found) -> list[str]:
    halt = found.halt
    lines = ["halt: off" if halt is None else f"halt: ON since {moment(halt.since)} by {halt.by}: {halt.reason or 'no reason given'}"]
    lines += _table("runs in progress", ("RUN", "EXPERIMENT", "ENVIRONMENT", "WHO", "SINCE", "SUPERVISOR"), [_run(run) for run in found.runs])
    lines += _table("open leases", ("LEASE", "ENVIRONMENT", "FAULT", "TARGET", "STATE", "EXPIRES", "ERROR"), [_lease(lease) for lease in found.leases])
    lines += _table("locks", ("KEY", "RUN", "WHO", "UNTIL"), [(one.key, one.run_id, one.note, moment(one.expires_at)) for one in found.locks])
    if any(not _alive(run) for run in found.runs):
        lines.append("a run without a living supervisor is closed, and its faults reverted, by `frangible recover`")
    return lines


def _table(title: str, header: tuple[str, ...], rows: "list[tuple[str, ...]]") -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in columns(header, rows).splitlines())] if rows else [f"{title}: none"]


def _run(run: "RunRecord") -> tuple[str, ...]:
    process = run.supervisor
    state = "" if _alive(run) else " (dead)"
    return (run.id, run.experiment, run.environment, run.actor, moment(run.started_at), f"pid {process.pid} on {process.host}{state}")


def _alive(run: "RunRecord") -> bool:
    """Whether the supervisor lives, as far as this host can know."""
    return not run.supervisor.is_local or run.supervisor.is_alive()


def _lease(lease: "Lease") -> tuple[str, ...]:
    return (lease.id, lease.environment, lease.fault, str(lease.target), str(lease.state), moment(lease.expires_at), lease.error)


def _document(found: Found) -> dict[str, object]:
    halt = found.halt
    return {
        "halt": None if halt is None else {"by": halt.by, "reason": halt.reason, "since": halt.since},
        "runs": [
            {
                "id": run.id,
                "experiment": run.experiment,
                "environment": run.environment,
                "actor": run.actor,
                "started_at": run.started_at,
                "supervisor": run.supervisor.to_json(),
                "supervisor_alive": _alive(run),
            }
            for run in found.runs
        ],
        "leases": [
            {
                "id": lease.id,
                "run": lease.run_id,
                "environment": lease.environment,
                "fault": lease.fault,
                "target": str(lease.target),
                "state": str(lease.state),
                "expires_at": lease.expires_at,
                "error": lease.error,
            }
            for lease in found.leases
        ],
        "locks": [
            {"key": one.key, "run": one.run_id, "who": one.note, "expires_at": one.expires_at, "owner": one.owner.to_json(), "epoch": one.epoch}
            for one in found.locks
        ],
        "problems": found.problems,
    }
