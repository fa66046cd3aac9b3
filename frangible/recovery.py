"""What `frangible recover` does: revert whatever runs that are no longer watched have left in force, and close their rows."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frangible.errors import FrangibleError, JournalError, LedgerError, PlatformError
from frangible.fault import FaultRegistry
from frangible.reverting import Reverter

if TYPE_CHECKING:
    from frangible.home import Home
    from frangible.inventory import Inventory
    from frangible.journal import Journal, RunRecord
    from frangible.ledger import Lease, Ledger
    from frangible.platforms import Platform

__all__ = ["RecoveryReport", "recover"]


@dataclass
class RecoveryReport:
    """What `recover` found and did; empty lists mean that nothing was left over."""

    reverted: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    closed_runs: list[str] = field(default_factory=list)
    in_progress: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is left that somebody has to look at."""
        return not self.failed and not self.problems


def recover(home: "Home", inventory: "Inventory | None", *, run_id: str | None = None, registry: FaultRegistry) -> RecoveryReport:
    """Revert every lease whose run is no longer watched, on any environment, then close the rows of runs that died.

    A lease is found in the ledger, or by its copy in the target. A run is watched while its supervisor lives on this host, or holds a lock
    where the target lives: that is how a run of somebody else's, with another ledger and journal, is known and left alone. Without an
    inventory only the ledger's leases are found, and their environments' platforms cannot be reached: that is a problem in the report.
    """
    return _Recovery(home, inventory, run_id, registry).run()


@dataclass
class _Recovery:
    home: "Home"
    inventory: "Inventory | None"
    run_id: str | None
    registry: FaultRegistry
    report: RecoveryReport = field(default_factory=RecoveryReport)
    _platforms: "dict[str, Platform]" = field(default_factory=dict)

    def run(self) -> RecoveryReport:
        with contextlib.ExitStack() as opened:
            ledger, journal = self._ledger(), self._journal()
            for store in (ledger, journal):
                if store is not None:
                    opened.callback(store.close)
            return self._recover(ledger, journal)

    def _recover(self, ledger: "Ledger | None", journal: "Journal | None") -> RecoveryReport:
        live = self._live_runs(journal)
        known = () if ledger is None else ledger.open_leases(run_id=self.run_id)[::-1]  # what came last is undone first
        self._revert_all(known, live, ledger)
        # Copies are looked for afterwards: asking every environment takes long, and most of what is open is in the ledger.
        tried = {lease.id for lease in known}
        for environment in self.inventory.environments if self.inventory else ():
            # Environments that keep their copies in one place see each other's.
            found = [lease for lease in self._copies(environment, ledger) if lease.id not in tried]
            tried |= {lease.id for lease in found}
            self._revert_all(found, live, ledger)
        if journal is not None:
            self._close_runs(journal, live)
        self.report.in_progress.extend(sorted(live))
        return self.report

    def _revert_all(self, leases: "Iterable[Lease]", live: set[str], ledger: "Ledger | None") -> None:
        for lease in leases:
            with contextlib.suppress(FrangibleError):  # without an answer the journal's has to do; the revert will name what is out of reach
                live |= self._holding(lease.environment)
            if lease.run_id not in live:
                self._revert(lease, ledger)

    def _holding(self, environment: str) -> set[str]:
        """Runs that hold a lock where the environment lives: their supervisors renew it, and are there to revert."""
        return {holder.run_id for holder in self._platform(environment).locks().holders()}

    def _ledger(self) -> "Ledger | None":
        from frangible.ledger import Ledger

        with contextlib.suppress(OSError):  # the ledger's own error says more
            self.home.path.mkdir(parents=True, exist_ok=True, mode=0o700)  # a machine that only came to recover has none yet
        try:
            return Ledger.open(self.home.ledger_url)
        except LedgerError as error:
            self.report.problems.append(f"{error}; only leases found by their copy in a target are reverted")
            return None

    def _journal(self) -> "Journal | None":
        from frangible.journal import Journal

        try:
            return Journal.open(self.home.journal_url)
        except JournalError as error:
            self.report.problems.append(str(error))
            return None

    def _live_runs(self, journal: "Journal | None") -> set[str]:
        """Runs whose supervisor is alive: theirs to revert."""
        if journal is None:
            return set()
        return {run.id for run in journal.orphans() if run.supervisor.is_local and run.supervisor.is_alive()}

    def _copies(self, environment: str, ledger: "Ledger | None") -> "list[Lease]":
        """Return the leases that only their copies tell of; adopt them, and drop copies of what was reverted."""
        from frangible.ledger import Lease, LeaseState

        unknown: list[Lease] = []
        try:
            platform = self._platform(environment)
            watched = self._holding(environment)  # before the copies: a run that ends in between then counts as watched, not as left over
            copies = platform.lease_copies()
        except FrangibleError as error:
            self.report.problems.append(f"environment {environment}: its lease copies cannot be read: {error}")
            return []
        for name, text in copies.items():
            try:
                lease = Lease.from_json(text)
            except LedgerError as error:
                problem = f"the lease copy {name} is left alone: {error}"
                self.report.problems += [] if problem in self.report.problems else [problem]
                continue
            if lease.run_id in watched or self.run_id not in {None, lease.run_id}:
                continue
            known = self._known(lease, ledger)
            if known is not None and known.state is LeaseState.REVERTED:
                platform.delete_lease_copy(lease.target.node, lease.id)
            else:
                unknown.append(known or lease)
        return unknown

    @staticmethod
    def _known(lease: "Lease", ledger: "Ledger | None") -> "Lease | None":
        if ledger is None:
            return None
        with contextlib.suppress(LedgerError):
            return ledger.get(lease.id)
        with contextlib.suppress(LedgerError):
            ledger.adopt(lease)
        return None

    def _platform(self, environment: str) -> "Platform":
        from frangible.platforms import open_platform

        if self.inventory is None:
            raise PlatformError(f"environment {environment} cannot be reached without an inventory; name one with --inventory")
        if environment not in self._platforms:
            self._platforms[environment] = open_platform(self.inventory.get(environment))
        return self._platforms[environment]

    def _revert(self, lease: "Lease", ledger: "Ledger | None") -> None:
        from frangible.process import ProcessIdentity

        try:
            fault = self.registry.build(lease.fault, lease.parameters)
            reverter = Reverter(self._platform(lease.environment), ledger, ProcessIdentity.current(), settle=1.0)
            done = reverter.revert(lease, fault)
            if ledger is not None and not done.recorded and done.by_us:
                done = reverter.record(lease, done.detail)  # a busy ledger gets more time now that nothing is in force
        except FrangibleError as error:
            self.report.failed.append(f"{lease.id} ({lease.fault} on {lease.target} of {lease.environment}): {error}")
            return
        told = f"{lease.id} ({lease.fault} on {lease.target} of {lease.environment}): {done.detail}"
        self.report.reverted.append(told)
        if not done.recorded and done.by_us:
            self.report.problems.append(f"{lease.id}: reverted, but the ledger could not be told; run `frangible recover` again when it can be written")

    def _close_runs(self, journal: "Journal", live: set[str]) -> None:
        for run in journal.orphans():
            if run.id in live or self.run_id not in {None, run.id}:
                continue
            if not run.supervisor.is_local:
                self.report.problems.append(f"run {run.id} was started on {run.supervisor.host}; run `frangible recover` there to close it")
                continue
            try:
                journal.finish(self._final_record(run))
                self.report.closed_runs.append(run.id)
            except JournalError as error:
                self.report.problems.append(str(error))

    def _final_record(self, run: "RunRecord") -> "RunRecord":
        """Return what the run spooled when it could not write the journal, else `inconclusive: runner died`."""
        from frangible.journal import record_from_json

        spooled = self.home.runs / run.id / "record.json"
        if spooled.exists():
            return record_from_json(spooled.read_text())
        return run.unjudged("runner died: the supervisor of this run ended without a verdict, and `frangible recover` closed it", time.time())
