"""Reverting from a lease, by whoever finds it: the injector itself, the supervisor, or `frangible recover`.

One sequence for all of them: claim, stop the injector, revert, observe, observe again after a settle time, record. A revert
never waits for the ledger: what cannot be recorded now is reported and left for `recover` to record later.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_exponential

from frangible.clock import Clock, SystemClock
from frangible.errors import FrangibleError, JournalError, LedgerError, PlatformError, RevertFailed
from frangible.fault import Fault, FaultRegistry, Observation

if TYPE_CHECKING:
    from frangible.home import Home
    from frangible.inventory import Inventory
    from frangible.journal import Journal, RunRecord
    from frangible.ledger import Lease, Ledger
    from frangible.platforms import Platform
    from frangible.process import ProcessIdentity

__all__ = ["RecoveryReport", "Reverted", "Reverter", "recover"]

LEDGER_PATIENCE = 0.5
"""Seconds that a revert gives the ledger before it goes on without it."""
REVERT_LIMIT = 30.0
"""Seconds after which a revert that does not take effect has failed."""


@dataclass(frozen=True, slots=True)
class Reverted:
    """What came of one revert."""

    lease: "Lease"
    detail: str
    recorded: bool
    """False when the target is clean but the ledger could not be told."""
    by_us: bool = True
    """False when somebody else had reverted it, or took the revert over."""


@dataclass(frozen=True)
class Reverter:
    """Reverts leases of one environment on behalf of one process."""

    platform: "Platform"
    ledger: "Ledger | None"
    claimer: "ProcessIdentity"
    settle: float = 0.0
    """Seconds until the second observation: a request in flight may still land."""
    clock: Clock = field(default_factory=SystemClock)
    report: Callable[[str, str, str], None] = lambda _lease, _state, _detail: None
    """Called with lease id, fault state and detail, for progress."""

    def revert(self, lease: "Lease", fault: Fault) -> Reverted:
        """Undo one lease; raise `RevertFailed` when the fault is still there at the end."""
        from frangible.ledger import LeaseState

        claimed = self._claim(lease)
        if claimed is not None and claimed.state is LeaseState.REVERTED:
            self._forget(claimed)
            return Reverted(claimed, "already reverted", recorded=True, by_us=False)
        self._stop_injector(lease)
        self.report(lease.id, "reverting", "")
        if claimed is not None and self._never_injected(claimed):
            self.report(lease.id, "reverted", "never injected")
            return self._record(claimed, lease, "never injected")
        try:
            seen = self._undo(lease, fault)
        except (FrangibleError, OSError) as error:
            self._record_failure(claimed, str(error))
            self.report(lease.id, "revert-failed", str(error))
            raise RevertFailed(f"{lease.fault} on {lease.target} could not be reverted: {error}; run `frangible recover`") from error
        self.report(lease.id, "reverted", seen.detail)
        return self._record(claimed, lease, seen.detail)

    def _claim(self, lease: "Lease") -> "Lease | None":
        """Claim in the ledger, or return None when it does not answer in time."""
        ledger = self.ledger
        if ledger is None:
            return None
        # A thread, because a locked or dying disk can block the call for longer than the target may wait.
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="claim")
        try:
            return pool.submit(ledger.claim, lease.id, self.claimer).result(timeout=LEDGER_PATIENCE)
        except (LedgerError, FutureTimeout):
            return self._already_reverted(lease)
        finally:
            pool.shutdown(wait=False)

    def _already_reverted(self, lease: "Lease") -> "Lease | None":
        from frangible.ledger import LeaseState

        if self.ledger is None:
            return None
        with contextlib.suppress(LedgerError):
            found = self.ledger.get(lease.id)
            return found if found.state is LeaseState.REVERTED else None
        return None

    def _never_injected(self, claimed: "Lease") -> bool:
        """Whether the lease was claimed before `injecting`: then nobody has injected, and nobody can any more."""
        from frangible.ledger import LeaseState

        if self.ledger is None:
            return False
        with contextlib.suppress(LedgerError):
            return all(step.state is not LeaseState.INJECTING for step in self.ledger.history(claimed.id))
        return False

    def _stop_injector(self, lease: "Lease") -> None:
        if lease.injector == self.claimer:
            return
        if lease.injector.is_local:
            if not lease.injector.kill():
                raise RevertFailed(f"the process that injects {lease.fault} (pid {lease.injector.pid}) does not die; end it, then run `frangible recover`")
            return
        expires_in = lease.expires_at - (self.ledger.store_time() if self.ledger else self.clock.wall())
        if expires_in > 0:
            raise RevertFailed(
                f"lease {lease.id}: its injector runs on {lease.injector.host} and may still act for {expires_in:.0f} s; "
                f"run `frangible abort {lease.run_id}` there, or `frangible recover --watch` here"
            )

    def _undo(self, lease: "Lease", fault: Fault) -> Observation:
        """Revert and look, again and again until the limit, then once more after the settle time."""
        stop = threading.Event()

        def pause(seconds: float) -> None:
            self.clock.wait(stop, seconds)

        def attempt() -> Observation:
            fault.revert(self.platform, lease.target, lease.prior)
            return fault.observe_reverted(self.platform, lease.target, lease.prior)

        retrying = Retrying(
            retry=retry_if_result(lambda seen: not seen.real) | retry_if_exception_type(PlatformError),
            stop=stop_after_delay(REVERT_LIMIT),
            wait=wait_exponential(multiplier=0.05, max=2.0),
            sleep=pause,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        seen: Observation = retrying(attempt)
        if seen.real and self.settle > 0:
            self.clock.wait(stop, self.settle)
            seen = fault.observe_reverted(self.platform, lease.target, lease.prior)
            if not seen.real:  # something in flight landed after our revert
                seen = retrying(attempt)
        if not seen.real:
            raise RevertFailed(f"the fault is still there: {seen.detail}")
        return seen

    def _record(self, claimed: "Lease | None", lease: "Lease", detail: str) -> Reverted:
        """Write `reverted`, then remove the copy; a copy that outlives its lease is found and removed by `recover`."""
        if claimed is None or self.ledger is None:
            return Reverted(lease, detail, recorded=False)
        try:
            done = self.ledger.mark_reverted(claimed.id, claimed.epoch)
        except LedgerError:
            taken_over = self._already_reverted(claimed)
            return Reverted(taken_over or claimed, detail, recorded=taken_over is not None, by_us=False)
        self._forget(done)
        return Reverted(done, detail, recorded=True)

    def _record_failure(self, claimed: "Lease | None", error: str) -> None:
        if claimed is not None and self.ledger is not None:
            with contextlib.suppress(LedgerError):
                self.ledger.mark_revert_failed(claimed.id, claimed.epoch, error)

    def _forget(self, lease: "Lease") -> None:
        with contextlib.suppress(PlatformError):
            self.platform.delete_lease_copy(lease.target.name, lease.id)


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

    A lease is found in the ledger, or by its copy in the target. Runs whose supervisor lives on this host are left alone. Without an
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
        ledger = self._ledger()
        journal = self._journal()
        live = self._live_runs(journal)
        leases = self._leases(ledger)
        for lease in leases.values():
            if lease.run_id in live:
                continue
            self._revert(lease, ledger)
        if journal is not None:
            self._close_runs(journal, live)
        self.report.in_progress.extend(sorted(live))
        return self.report

    def _ledger(self) -> "Ledger | None":
        from frangible.ledger import Ledger

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

    def _leases(self, ledger: "Ledger | None") -> "dict[str, Lease]":
        """Open leases by id: the ledger's, and those of which only a target has kept a copy."""
        found: dict[str, Lease] = {}
        if ledger is not None:
            found = {lease.id: lease for lease in ledger.open_leases(run_id=self.run_id)}
        for environment in self.inventory.environments if self.inventory else ():
            found |= {lease.id: lease for lease in self._copies(environment, ledger) if lease.id not in found}
        return found

    def _copies(self, environment: str, ledger: "Ledger | None") -> "list[Lease]":
        """Return the leases that only their copies tell of; adopt them, and drop copies of what was reverted."""
        from frangible.ledger import Lease, LeaseState

        unknown: list[Lease] = []
        try:
            platform = self._platform(environment)
            copies = platform.lease_copies()
        except FrangibleError as error:
            self.report.problems.append(f"environment {environment}: its lease copies cannot be read: {error}")
            return []
        for text in copies.values():
            lease = Lease.from_json(text)
            if self.run_id not in {None, lease.run_id}:
                continue
            known = self._known(lease, ledger)
            if known is not None and known.state is LeaseState.REVERTED:
                platform.delete_lease_copy(lease.target.name, lease.id)
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
        reason = "runner died: the supervisor of this run ended without a verdict, and `frangible recover` closed it"
        return replace(run, ended_at=time.time(), state="finished", outcome="inconclusive", reasons=(reason,), ending="runner-died")
