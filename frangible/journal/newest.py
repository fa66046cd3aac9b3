"""The newest runs of an experiment on an environment, from the index and without their parts."""

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, Integer, bindparam, literal_column, select

from frangible.gate import Evidence
from frangible.journal import models
from frangible.journal.rows import BATCH, indicator_of
from frangible.judge import IndicatorVerdict

__all__ = ["indicators_of", "newest"]

CONCLUSIVE = ("held", "deviated")


RUNS = models.runs.c
OF = (RUNS.environment == bindparam("of_environment"), RUNS.experiment == bindparam("of_experiment"), RUNS.state == literal_column("'finished'"))
NEWEST = (
    select(RUNS.id, RUNS.outcome, RUNS.started_at, RUNS.reasons)
    .where(*OF)
    .order_by(RUNS.started_at.desc(), RUNS.id.desc())
    .limit(bindparam("most", type_=Integer))
)
"""Built once: a gate asks it for hundreds of experiments and environments."""
# The concatenation keeps SQLite from the index of outcomes, which has the whole journal's.
NEWEST_CONCLUSIVE = NEWEST.where(RUNS.outcome.concat("").in_(CONCLUSIVE))


def newest(connection: Connection, environment: str, experiment: str, count: int) -> tuple[Evidence, ...]:
    """Return so many of the newest finished runs, newest first, and the newest conclusive one behind them where they have none."""
    of = {"of_environment": environment, "of_experiment": experiment}
    found = list(_evidence(connection.execute(NEWEST, {**of, "most": count}).all()))
    if found and not any(one.outcome in CONCLUSIVE for one in found):
        found += _evidence(connection.execute(NEWEST_CONCLUSIVE, {**of, "most": 1}).all())
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
