"""Rows of the ledger's tables, and the typed values that they stand for."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from frangible.errors import LedgerError
from frangible.fault import Target
from frangible.ledger.lease import EVERYTHING, Lease, LeaseState, Step, Stop
from frangible.ledger.schema import LEDGER, lease_keys, lease_steps, leases, stops
from frangible.process import ProcessIdentity

__all__ = ["lease_row", "process_columns", "select_leases", "select_steps", "select_stops", "stop_for"]

_SAME = (
    *("id", "run_id", "environment", "fault", "fault_module", "fault_version", "parameters"),
    *("prior", "epoch", "created_at", "expires_at", "updated_at", "error"),
)
"""Fields of a lease that are columns of the same name."""


def select_leases(connection: Connection, *wanted: ColumnElement[bool]) -> tuple[Lease, ...]:
    """Return the leases that fulfil every condition, oldest first."""
    try:
        rows = connection.execute(select(leases).where(*wanted).order_by(leases.c.created_at, leases.c.id)).mappings().all()
        if not rows:  # as a rule, and asked for by every run several times
            return ()
        keys: dict[str, list[str]] = {row["id"]: [] for row in rows}
        for lease_id, key in connection.execute(select(lease_keys.c.lease_id, lease_keys.c.key).join(leases).where(*wanted)):
            keys[lease_id].append(key)
        return tuple(_lease(row, tuple(sorted(keys[row["id"]]))) for row in rows)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"ledger {connection.engine.url.database}: a lease is not understood: {error}; {LEDGER.if_damaged}") from error


def select_steps(connection: Connection, lease_id: str) -> tuple[Step, ...]:
    """Return the steps of one lease, oldest first."""
    rows = connection.execute(select(lease_steps).where(lease_steps.c.lease_id == lease_id).order_by(lease_steps.c.number)).mappings()
    return tuple(Step(LeaseState(row["state"]), row["epoch"], _process(row, "by"), row["at"], row["detail"]) for row in rows)


def select_stops(connection: Connection, *scopes: str) -> tuple[Stop, ...]:
    """Return every stop, or those of some scopes, oldest first."""
    statement = select(stops).order_by(stops.c.since, stops.c.scope)
    if scopes:
        statement = statement.where(stops.c.scope.in_(scopes))
    return tuple(Stop(row["scope"], row["requested_by"], row["reason"], row["since"]) for row in connection.execute(statement).mappings())


def stop_for(connection: Connection, run_id: str) -> Stop | None:
    """Return the halt, else the stop of this run, else None."""
    found = {stop.scope: stop for stop in select_stops(connection, EVERYTHING, run_id)}
    return found.get(EVERYTHING) or found.get(run_id)


def process_columns(prefix: str, process: ProcessIdentity | None) -> dict[str, str | int | None]:
    """Return the values of the columns that hold a process."""
    fields = ("host", "boot", "pid", "start")
    return {f"{prefix}_{field}": None if process is None else getattr(process, field) for field in fields}


def lease_row(lease: Lease) -> dict[str, Any]:
    """Return the values of a lease's row."""
    return {
        **{name: getattr(lease, name) for name in _SAME},
        "state": lease.state.value,
        "target_kind": lease.target.kind,
        "target_name": lease.target.name,
        **process_columns("injector", lease.injector),
        **process_columns("claimed_by", lease.claimed_by),
    }


def _process(row: RowMapping, prefix: str) -> ProcessIdentity:
    return ProcessIdentity(row[f"{prefix}_host"], row[f"{prefix}_boot"], row[f"{prefix}_pid"], row[f"{prefix}_start"])


def _lease(row: RowMapping, keys: tuple[str, ...]) -> Lease:
    return Lease(
        **{name: row[name] for name in _SAME},
        state=LeaseState(row["state"]),
        target=Target(row["target_kind"], row["target_name"]),
        keys=keys,
        injector=_process(row, "injector"),
        claimed_by=None if row["claimed_by_pid"] is None else _process(row, "claimed_by"),
    )
