"""The newest runs of an experiment on an environment, from the index and without their parts."""

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, literal_column, select

from frangible.gate import Evidence
from frangible.journal import models
from frangible.journal.rows import BATCH, indicator_of
from frangible.judge import IndicatorVerdict

__all__ = ["indicators_of", "newest"]

CONCLUSIVE = ("held", "deviated")


def newest(connection: Connection, environment: str, experiment: str, count: int) -> tuple[Evidence, ...]:
    """Return so many of the newest finished runs, newest first, and the newest conclusive one behind them where they have none."""
    runs = models.runs.c
    of = (runs.environment == environment, runs.experiment == experiment, runs.state == literal_column("'finished'"))
    query = select(runs.id, runs.outcome, runs.started_at, runs.reasons).where(*of).order_by(runs.started_at.desc(), runs.id.desc())
    found = list(_evidence(connection.execute(query.limit(count)).all()))
    if found and not any(one.outcome in CONCLUSIVE for one in found):
        # The concatenation keeps SQLite from the index of outcomes, which has the whole journal's.
        found += _evidence(connection.execute(query.where(runs.outcome.concat("").in_(CONCLUSIVE)).limit(1)).all())
    return tuple(found)


def indicators_of(connection: Connection, runs: Iterable[str]) -> Mapping[str, tuple[IndicatorVerdict, ...]]:
    """Return the indicators of these runs, by run."""
    table, wanted = models.indicators, sorted(set(runs))
    found: dict[str, tuple[IndicatorVerdict, ...]] = dict.fromkeys(wanted, ())
    for first in range(0, len(wanted), BATCH):
        query = select(table).where(table.c.run_id.in_(wanted[first : first + BATCH])).order_by(table.c.run_id, table.c.position)
        for row in connection.execute(query):
            found[row.run_id] += (indicator_of(row),)
    return found


def _evidence(rows: Iterable[Sequence[object]]) -> Iterable[Evidence]:
    for run, outcome, started_at, reasons in rows:
        yield Evidence(str(run), str(outcome), float(str(started_at)), next(iter(json.loads(str(reasons))), ""))
