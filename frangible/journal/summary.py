"""The journal's summary: one row an environment and kind of fault, kept up to date as runs finish."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, select, update

from frangible.database import insert_into
from frangible.fragility import Posterior, Score, counted, faults_of
from frangible.journal import models
from frangible.journal.record import RunRecord

__all__ = ["count", "scores_of"]

TABLE = models.fragility


def count(connection: Connection, record: RunRecord) -> None:
    """Add a final record to the rows of its faults; to be called once a run, in the transaction that writes it."""
    for fault in faults_of(record.proofs):  # sorted, so that two writers never wait for each other
        _ensure(connection, record, fault)
        key = (TABLE.c.environment == record.environment, TABLE.c.fault == fault)
        before = connection.execute(select(TABLE).where(*key).with_for_update()).one()
        after = counted(_score(before), str(record.outcome), record.id, record.started_at)
        connection.execute(update(TABLE).where(*key).values(_values(after)))


def scores_of(connection: Connection, environments: Iterable[str] | None = None, fault: str | None = None) -> tuple[Score, ...]:
    """Return the stored scores, sorted by environment and fault."""
    query = select(TABLE).order_by(TABLE.c.environment, TABLE.c.fault)
    if environments is not None:
        query = query.where(TABLE.c.environment.in_(list(environments)))
    if fault is not None:
        query = query.where(TABLE.c.fault == fault)
    return tuple(_score(row) for row in connection.execute(query))


def _ensure(connection: Connection, record: RunRecord, fault: str) -> None:
    """Make the row without a run in it where there is none, so that it can be locked."""
    empty = dict.fromkeys(("held", "deviated", "inconclusive"), 0) | dict.fromkeys(("mean", "low", "high"), 0.0)
    first = {"environment": record.environment, "fault": fault, "last_run": "", "last_at": record.started_at, "last_outcome": ""}
    connection.execute(insert_into(connection, TABLE).values(first | empty).on_conflict_do_nothing())


def _score(row: Row[Any]) -> Score:
    return Score(
        environment=row.environment,
        fault=row.fault,
        held=row.held,
        deviated=row.deviated,
        inconclusive=row.inconclusive,
        last_run=row.last_run,
        last_at=row.last_at if row.last_run else None,
        last_outcome=row.last_outcome,
        holds=Posterior(row.mean, row.low, row.high) if row.last_run else None,
    )


def _values(score: Score) -> dict[str, Any]:
    """Return the columns that a run changes."""
    holds = score.holds
    if holds is None:
        raise ValueError(f"{score.environment}, {score.fault}: expected a score with runs in it")
    kept = ("held", "deviated", "inconclusive", "last_run", "last_at", "last_outcome")
    return {name: getattr(score, name) for name in kept} | {"mean": holds.mean, "low": holds.low, "high": holds.high}
