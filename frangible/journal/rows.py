"""A run's record as rows of the journal's tables, and back."""

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from frangible.errors import JournalError
from frangible.fault import JsonValue
from frangible.fingerprint import digest
from frangible.journal import models
from frangible.journal.record import RunRecord, record_to_json
from frangible.judge import FaultProof, IndicatorVerdict, Outcome, Window, WindowName
from frangible.process import ProcessIdentity

__all__ = ["BATCH", "CHILDREN", "content_of", "fingerprint_row", "indicator_of", "load", "rows_of", "run_row"]

CHILDREN = (models.keys, models.windows, models.indicators, models.proofs, models.artifacts)
"""Tables whose rows belong to one run."""
ARTIFACTS = ("chaos_journal", "series")
ENCODING = "json+zlib"
BATCH = 500
"""Runs whose parts are fetched by one statement; databases limit the parameters of one."""

PLAIN = [
    "id",
    "experiment",
    "experiment_title",
    "experiment_digest",
    "environment",
    "region",
    "tier",
    "owner",
    "note",
    "ticket",
    "actor",
    "started_at",
    "ended_at",
    "state",
    "outcome",
    "ending",
    "recovered_after",
]
"""Columns of `runs` that are fields of the record as they stand."""

type Values = dict[str, Any]
"""One row for SQLAlchemy, by column name."""


def content_of(record: RunRecord) -> str:
    """Return the SHA-256 of the record's JSON form: two final records are the same when these are."""
    return hashlib.sha256(record_to_json(record).encode()).hexdigest()


def fingerprint_row(record: RunRecord) -> Values:
    """Return the row of `run_fingerprints`."""
    return {"digest": digest(record.fingerprint), "facts": _json(dict(record.fingerprint))}


def run_row(record: RunRecord) -> Values:
    """Return the row of `runs`; `content` is set for a final record only."""
    who = {f"supervisor_{name}": value for name, value in record.supervisor.to_json().items()}
    structured = {"reasons": _json(record.reasons), "facts": _json(dict(record.facts)), "timings": _json(dict(record.timings))}
    final = content_of(record) if record.state == "finished" else None
    return {name: getattr(record, name) for name in PLAIN} | who | structured | {"fingerprint": digest(record.fingerprint), "content": final}


def rows_of(record: RunRecord) -> Mapping[Table, list[Values]]:
    """Return the rows of each table of `CHILDREN`."""
    return {
        models.keys: _numbered(record, [{"key": key} for key in dict.fromkeys(record.keys)]),
        models.windows: _numbered(record, [{"name": each.name, "starts_at": each.start, "ends_at": each.end} for each in record.windows]),
        models.indicators: _numbered(record, [asdict(each) for each in record.indicators]),
        models.proofs: _numbered(record, [asdict(each) | {"injected": int(each.injected), "reverted": int(each.reverted)} for each in record.proofs]),
        models.artifacts: [
            {"run_id": record.id, "kind": kind, "encoding": ENCODING, "content": zlib.compress(_json(getattr(record, kind)).encode())}
            for kind in ARTIFACTS
            if getattr(record, kind) is not None
        ],
    }


def load(connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None, artifacts: bool = False) -> tuple[RunRecord, ...]:
    """Return the records of the runs that meet all conditions, newest first."""
    query = select(models.runs).where(*conditions).order_by(models.runs.c.started_at.desc(), models.runs.c.id.desc()).limit(limit)
    found = connection.execute(query).all()
    records: list[RunRecord] = []
    for first in range(0, len(found), BATCH):
        records += _assembled(connection, found[first : first + BATCH], artifacts=artifacts)
    return tuple(records)


def _assembled(connection: Connection, found: Sequence[Row[Any]], *, artifacts: bool) -> Iterable[RunRecord]:
    ids = [row.id for row in found]
    wanted = models.fingerprints.c.digest.in_({row.fingerprint for row in found})
    facts = {row.digest: json.loads(row.facts) for row in connection.execute(select(models.fingerprints).where(wanted))}
    parts = {table: _parts(connection, table, ids) for table in CHILDREN if artifacts or table is not models.artifacts}
    return [_record(row, facts[row.fingerprint], {table: of.get(row.id, []) for table, of in parts.items()}) for row in found]


def _parts(connection: Connection, table: Table, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    order = table.c.kind if table is models.artifacts else table.c.position
    rows = connection.execute(select(table).where(table.c.run_id.in_(ids)).order_by(table.c.run_id, order))
    return {run_id: list(group) for run_id, group in groupby(rows, key=attrgetter("run_id"))}


def _record(run: Row[Any], fingerprint: dict[str, str], parts: Mapping[Table, list[Row[Any]]]) -> RunRecord:
    try:
        kept = {row.kind: _artifact(row) for row in parts.get(models.artifacts, [])}
        return RunRecord(
            **{name: getattr(run, name) for name in PLAIN},
            supervisor=ProcessIdentity(run.supervisor_host, run.supervisor_boot, run.supervisor_pid, run.supervisor_start),
            reasons=tuple(json.loads(run.reasons)),
            facts=json.loads(run.facts),
            timings=json.loads(run.timings),
            fingerprint=fingerprint,
            keys=tuple(row.key for row in parts[models.keys]),
            windows=tuple(Window(WindowName(row.name), _measured(row.starts_at), _measured(row.ends_at)) for row in parts[models.windows]),
            indicators=tuple(indicator_of(row) for row in parts[models.indicators]),
            proofs=tuple(_proof(row) for row in parts[models.proofs]),
            chaos_journal=kept.get("chaos_journal"),
            series=kept.get("series"),
        )
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        raise JournalError(
            f"journal: run {run.id} cannot be read: {error}; its row was changed by something other than frangible, or the file is damaged"
        ) from error


def indicator_of(row: Row[Any]) -> IndicatorVerdict:
    """Return one row of `run_indicators` as it was recorded."""
    return IndicatorVerdict(
        indicator=row.indicator,
        window=WindowName(row.window),
        outcome=Outcome(row.outcome),
        reason=row.reason,
        bound=row.bound,
        observed=row.observed,
        low=row.low,
        high=row.high,
        good=_measured(row.good),
        total=_measured(row.total),
        blocks=row.blocks,
        design_effect=row.design_effect,
    )


def _proof(row: Row[Any]) -> FaultProof:
    return FaultProof(
        lease=row.lease,
        fault=row.fault,
        target=row.target,
        injected=bool(row.injected),
        proven_share=_measured(row.proven_share),
        least_proven=_measured(row.least_proven),
        reverted=bool(row.reverted),
        detail=row.detail,
    )


def _artifact(row: Row[Any]) -> JsonValue:
    if row.encoding != ENCODING:
        raise ValueError(f"{row.kind}: expected encoding {ENCODING!r}, found {row.encoding!r}")
    value: JsonValue = json.loads(zlib.decompress(row.content))
    return value


def _measured(value: float | None) -> float:
    return math.nan if value is None else value


def _numbered(record: RunRecord, rows: list[Values]) -> list[Values]:
    return [{"run_id": record.id, "position": position, **row} for position, row in enumerate(rows)]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
