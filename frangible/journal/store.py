"""The journal's database: SQLite by default, PostgreSQL by URL, the same statements on both."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection, delete, insert, literal_column, make_url, select, update
from sqlalchemy.exc import ArgumentError, IntegrityError

from frangible.database import Database, Schema, insert_into
from frangible.errors import JournalError, UsageError
from frangible.journal import models
from frangible.journal.record import RunRecord, record_from_json, record_to_json
from frangible.journal.rows import CHILDREN, content_of, fingerprint_row, load, rows_of, run_row

if TYPE_CHECKING:
    from frangible.fragility import Score
    from frangible.gate import Evidence
    from frangible.judge import IndicatorVerdict

__all__ = ["SCHEMA", "Journal", "RunRecord", "record_from_json", "record_to_json"]

SCHEMA = Schema(
    what="journal",
    variable="FRANGIBLE_JOURNAL",
    error=JournalError,
    migrations=Path(__file__).parent / "migrations",
    head="0002",
    if_damaged="restore a copy, or move it away and a new one is begun",
)
AFTER_EVERY_ID = "\U0010ffff"
"""Sorts behind whatever may follow a prefix."""
NEAR = 500
"""How many of the newest runs are searched for one with a similar id."""


class Journal:
    """Runs that started and what became of them. Safe to use from several threads and beside other processes.

    Whatever the database says no to becomes `JournalError`, which names the database and what to do.
    """

    def __init__(self, database: Database) -> None:
        """Use `open` instead."""
        self._database = database

    @classmethod
    def open(cls, url: str) -> "Journal":
        """Connect, make the file and its folder if need be, and bring the schema to its head."""
        _make_folder(url)
        return cls(Database.open(url, SCHEMA))

    def start(self, record: RunRecord) -> None:
        """Write the row of a run that is about to begin; durable when this returns."""
        with self._database.writing() as connection:
            if _final_content(connection, record.id) is not None:
                raise JournalError(f"journal {self._database.location}: run {record.id} is there already; start the run again for a new id")
            self._write(connection, record)

    def finish(self, record: RunRecord) -> None:
        """Write the final record, all of it or nothing, whether or not its start was written.

        The first final record stays. The same one again changes nothing; another one raises `JournalError`.
        """
        if record.state != "finished" or record.ended_at is None or record.outcome is None:
            raise JournalError(f"run {record.id}: a final record needs state 'finished', `ended_at` and `outcome`")
        if record.proofs:
            from frangible.fragility import faults_of, posterior

            if faults_of(record.proofs):
                posterior(0, 0)  # imports what the summary needs, which on a busy machine takes longer than others wait for the write lock
        try:
            self._finish(record)
        except JournalError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            self._finish(record)  # somebody else inserted the run meanwhile: now it can be compared

    def get(self, run_id: str) -> RunRecord:
        """Return one run by its id or the unique beginning of it; `UsageError` says what else there is."""
        column = models.runs.c.id
        with self._database.reading() as connection:
            exact = load(connection, column == run_id, artifacts=True)
            if exact:
                return exact[0]
            within = select(column).where(column >= run_id, column < run_id + AFTER_EVERY_ID).order_by(column.desc()).limit(4)
            ids = connection.execute(within).scalars().all() if run_id else []
            if len(ids) == 1:
                return load(connection, column == ids[0], artifacts=True)[0]
            if ids:
                raise UsageError(f"run {run_id!r} is ambiguous: {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}; give more of the id")
            raise UsageError(f"no run {run_id!r} in journal {self._database.location}: {_nearest(connection, run_id)}")

    def runs(self, environment: str | None = None, experiment: str | None = None, outcome: str | None = None, limit: int | None = 50) -> tuple[RunRecord, ...]:
        """Return runs, newest first, without `chaos_journal` and `series`: `get` has those. No limit: `None`."""
        asked = {"environment": environment, "experiment": experiment, "outcome": outcome}
        conditions = [models.runs.c[name] == value for name, value in asked.items() if value is not None]
        with self._database.reading() as connection:
            return load(connection, *conditions, limit=limit)

    def fragility(self, environments: Iterable[str] | None = None, fault: str | None = None) -> "tuple[Score, ...]":
        """Return the scores of these environments (all: None), sorted; what was never tested is not among them."""
        from frangible.journal.summary import scores_of

        with self._database.reading() as connection:
            return scores_of(connection, environments, fault)

    def newest(self, wanted: Iterable[tuple[str, str, int]]) -> "tuple[tuple[Evidence, ...], ...]":
        """Return for each environment, experiment and number so many of the newest finished runs, newest first.

        Where none of them is conclusive, the newest conclusive one comes behind them.
        """
        from frangible.journal.newest import newest

        with self._database.reading() as connection:
            return tuple(newest(connection, *each) for each in wanted)

    def indicators(self, runs: Iterable[str]) -> "Mapping[str, tuple[IndicatorVerdict, ...]]":
        """Return the indicators of these runs, by run."""
        from frangible.journal.newest import indicators_of

        with self._database.reading() as connection:
            return indicators_of(connection, runs)

    def orphans(self) -> tuple[RunRecord, ...]:
        """Return every run that started and has no final record; whether its supervisor lives is the caller's question."""
        with self._database.reading() as connection:
            # A literal: with a bound parameter SQLite cannot know that the partial index holds what is asked.
            return load(connection, models.runs.c.state == literal_column("'started'"))

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def _finish(self, record: RunRecord) -> None:
        with self._database.writing() as connection:
            there = _final_content(connection, record.id)
            if there == content_of(record):
                return
            if there:
                raise JournalError(
                    f"journal {self._database.location}: run {record.id} has another final record already, which stays; "
                    f"`frangible journal show {record.id}` shows it"
                )
            if there is None:
                self._write(connection, record)
            else:
                self._rewrite(connection, record)
            if record.proofs:
                from frangible.journal.summary import count

                count(connection, record)

    def _write(self, connection: Connection, record: RunRecord) -> None:
        self._write_fingerprint(connection, record)
        connection.execute(insert(models.runs).values(run_row(record)))
        _write_parts(connection, record)

    def _rewrite(self, connection: Connection, record: RunRecord) -> None:
        """Change the row that `_final_content` locked; deleting it would let another writer believe that there is none."""
        self._write_fingerprint(connection, record)
        connection.execute(update(models.runs).where(models.runs.c.id == record.id).values(run_row(record)))
        for table in CHILDREN:
            connection.execute(delete(table).where(table.c.run_id == record.id))
        _write_parts(connection, record)

    def _write_fingerprint(self, connection: Connection, record: RunRecord) -> None:
        connection.execute(insert_into(connection, models.fingerprints).values(fingerprint_row(record)).on_conflict_do_nothing())


def _write_parts(connection: Connection, record: RunRecord) -> None:
    for table, rows in rows_of(record).items():
        if rows:
            connection.execute(insert(table), rows)


def _final_content(connection: Connection, run_id: str) -> str | None:
    """Return the digest of a run's final record, empty while it has none, None when there is no such run; locks its row."""
    runs = models.runs
    row = connection.execute(select(runs.c.content).where(runs.c.id == run_id).with_for_update()).one_or_none()
    return None if row is None else row.content or ""


def _nearest(connection: Connection, run_id: str) -> str:
    runs = models.runs
    newest = connection.execute(select(runs.c.id).order_by(runs.c.started_at.desc()).limit(NEAR)).scalars().all()
    near = difflib.get_close_matches(run_id, newest, n=1) or newest[:1]
    return f"the nearest is {near[0]}" if near else "it holds none yet; `frangible run EXPERIMENT --environment NAME` makes the first"


def _make_folder(url: str) -> None:
    try:
        parsed = make_url(url)
    except ArgumentError:
        return  # `Database.open` explains what a URL looks like
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return
    folder = Path(parsed.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise JournalError(f"journal {parsed.database}: cannot make its folder: {error.strerror}; name another with {SCHEMA.variable}") from error
