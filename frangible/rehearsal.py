"""What a run asks of ledger and journal, once over in memory: afterwards the SQL is compiled for every database that this process opens.

Whoever forks processes that each live for one run does this first: compiling took half of what such a process does.
"""

from contextlib import closing
from dataclasses import replace

from frangible.database import Database
from frangible.fault import Target
from frangible.journal.models import metadata as journal_tables
from frangible.journal.store import SCHEMA, Journal, RunRecord
from frangible.judge import Window, WindowName
from frangible.ledger import Lease
from frangible.ledger.schema import LEDGER
from frangible.ledger.schema import metadata as ledger_tables
from frangible.ledger.store import Ledger
from frangible.process import ProcessIdentity

__all__ = ["rehearse"]


def rehearse() -> None:
    """Go through the life of a lease and of a run's row."""
    me = ProcessIdentity.current()
    with closing(Database.in_memory(LEDGER, ledger_tables)) as database:
        _lease(Ledger(database), me)
    with closing(Database.in_memory(SCHEMA, journal_tables)) as database:
        for several in (1, 2):  # one row and many are two statements
            _row(Journal(database), me, several)


def _lease(ledger: Ledger, me: ProcessIdentity) -> None:
    ledger.stops()
    ledger.stop_for("run")
    ledger.open_leases(environment="here")
    lease = Lease(
        id="run-1",
        run_id="run",
        environment="here",
        fault="none",
        fault_module="none",
        fault_version=1,
        parameters={},
        target=Target("node", "n"),
        prior={},
        keys=("key",),
        injector=me,
        expires_at=0.0,
    )
    ledger.intend(lease)
    ledger.begin_injecting(lease.id)
    ledger.mark_injected(lease.id)
    ledger.renew(lease.id, 1.0)
    claimed = ledger.claim(lease.id, me)
    ledger.open_leases(run_id="run")
    ledger.mark_reverted(lease.id, claimed.epoch)


def _row(journal: Journal, me: ProcessIdentity, several: int) -> None:
    names = tuple(map(str, range(several)))
    started = RunRecord(
        id=f"run-{several}",
        experiment="",
        experiment_title="",
        experiment_digest="",
        environment="",
        region="",
        tier="",
        owner="",
        note="",
        ticket="",
        actor="",
        supervisor=me,
        started_at=0.0,
        state="started",
        keys=names,
        fingerprint={"a": "b"},
        facts=dict.fromkeys(names, ""),
    )
    journal.start(started)
    windows = (Window(WindowName.BASELINE, 0.0, 1.0), Window(WindowName.EFFECT, 1.0, 2.0))[:several]
    journal.finish(replace(started.unjudged("why", 1.0), reasons=names, windows=windows, chaos_journal={}, series={} if several > 1 else None))
