"""What was rehearsed in memory needs no compiling in a real database, and leaves nothing there."""

from dataclasses import replace
from pathlib import Path

import pytest

from frangible import database
from frangible.journal import Journal, RunRecord
from frangible.ledger import Lease, Ledger
from frangible.process import ProcessIdentity
from frangible.rehearsal import rehearse

ME = ProcessIdentity.current()


def url(folder: Path, name: str) -> str:
    return f"sqlite:///{folder / name}"


def started(run_id: str) -> RunRecord:
    texts = dict.fromkeys(("experiment", "experiment_title", "experiment_digest", "environment", "region", "tier", "owner", "note", "ticket", "actor"), "x")
    return RunRecord(id=run_id, **texts, supervisor=ME, started_at=1.0, state="started", keys=("a", "b"), facts={"c": "d"})  # type: ignore[arg-type]


def test_the_life_of_a_run_without_faults_is_compiled_already(tmp_path: Path) -> None:
    for opening, name in ((Ledger.open, "ledger.db"), (Journal.open, "journal.db")):
        opening(url(tmp_path, name)).close()  # makes the tables
    rehearse()
    before = set(database._COMPILED)
    ledger, journal = Ledger.open(url(tmp_path, "ledger.db")), Journal.open(url(tmp_path, "journal.db"))
    assert ledger.open_leases(environment="somewhere") == ledger.open_leases(run_id="r") == ()
    assert ledger.stops() == ()
    assert ledger.stop_for("r") is None
    journal.start(started("r"))
    journal.finish(replace(started("r").unjudged("why", 2.0), chaos_journal={"status": "completed"}))
    new = set(database._COMPILED) - before
    assert [key for key in new if "TextClause" not in str(key)] == [], "the revision of a schema is asked for in words"
    assert [record.id for record in journal.runs()] == ["r"], "the rehearsal was elsewhere"
    ledger.close()
    journal.close()


def test_two_databases_of_one_process_stay_two(tmp_path: Path) -> None:
    """They share what was compiled, and nothing else."""
    first, second = Journal.open(url(tmp_path, "1.db")), Journal.open(url(tmp_path, "2.db"))
    first.start(started("only-in-the-first"))
    assert [record.id for record in first.runs()] == ["only-in-the-first"]
    assert second.runs() == ()
    first.close()
    second.close()


@pytest.mark.parametrize("step", ["begin_injecting", "mark_injected"])
def test_steps_of_a_lease_are_as_durable_as_without_a_rehearsal(tmp_path: Path, step: str) -> None:
    rehearse()
    ledger = Ledger.open(url(tmp_path, "ledger.db"))
    ledger.intend(lease("r-1"))
    ledger.begin_injecting("r-1")
    if step == "mark_injected":
        ledger.mark_injected("r-1")
    ledger.close()
    with_another = Ledger.open(url(tmp_path, "ledger.db"))
    assert [str(one.state) for one in with_another.open_leases(run_id="r")] == [{"begin_injecting": "injecting", "mark_injected": "injected"}[step]]
    with_another.close()


def lease(name: str) -> Lease:
    from frangible.fault import Target

    return Lease(
        id=name,
        run_id="r",
        environment="e",
        fault="f",
        fault_module="m",
        fault_version=1,
        parameters={},
        target=Target("node", "n"),
        prior={},
        keys=("k",),
        injector=ME,
        expires_at=1.0,
    )
