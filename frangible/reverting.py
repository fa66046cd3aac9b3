"""Reverting from a lease, by whoever finds it: the injector itself, the supervisor, or `frangible recover`.

One sequence for all of them: claim, stop the injector, revert, observe, observe again after a settle time, record. A revert
never waits for the ledger: what cannot be recorded now is reported and left for `recover` to record later.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_exponential

from frangible.clock import Clock, SystemClock
from frangible.errors import FrangibleError, LedgerError, PlatformError, RevertFailed
from frangible.fault import Fault, Observation
from frangible.process import boot_id

if TYPE_CHECKING:
    from frangible.ledger import Lease, Ledger
    from frangible.platforms import Platform
    from frangible.process import ProcessIdentity

__all__ = ["LEDGER_PATIENCE", "REVERT_LIMIT", "SKEW", "Reverted", "Reverter"]

LEDGER_PATIENCE = 0.25
"""Seconds that a revert gives the ledger before it goes on without it; less than the supervisor's `UNBEGUN_PATIENCE`."""
RECORD_PATIENCE = 3.0
"""Seconds that the ledger has to be told of a revert that was observed: nothing is in force any more, and a lease that stays open keeps others out."""
SKEW = 5.0
"""Seconds that the clocks of two hosts may differ; `frangible doctor` refuses more."""
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
    limit: float = REVERT_LIMIT
    """Seconds after which the revert has failed."""
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

    def record(self, lease: "Lease", detail: str) -> Reverted:
        """Tell the ledger of a revert that was observed and could not be recorded then; the target is left alone."""
        done = self._recorded(lease, detail)
        # A claim that was given up for lateness may still land, once, between our claim and our record.
        return done if done.recorded or done.by_us else self._recorded(lease, detail)

    def _recorded(self, lease: "Lease", detail: str) -> Reverted:
        from frangible.ledger import LeaseState

        claimed = self._claim(lease, RECORD_PATIENCE)
        if claimed is not None and claimed.state is LeaseState.REVERTED:
            self._forget(claimed)
            return Reverted(claimed, detail, recorded=True, by_us=False)
        return self._record(claimed, lease, detail)

    def _claim(self, lease: "Lease", patience: float = LEDGER_PATIENCE) -> "Lease | None":
        """Claim in the ledger, or return None when it does not answer within `patience` seconds."""
        ledger = self.ledger
        if ledger is None:
            return None
        # A thread, because a locked or dying disk can block the call for longer than the target may wait.
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="claim")
        try:
            return pool.submit(ledger.claim, lease.id, self.claimer).result(timeout=patience)
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
        if self._is_here(lease):
            if not lease.injector.kill():
                raise RevertFailed(f"the process that injects {lease.fault} (pid {lease.injector.pid}) does not die; end it, then run `frangible recover`")
            return
        expires_in = lease.expires_at + SKEW - (self.ledger.store_time() if self.ledger else self.clock.wall())
        if expires_in > 0:
            raise RevertFailed(
                f"lease {lease.id}: its injector runs on {lease.injector.host} and may still act for {expires_in:.0f} s; "
                f"run `frangible abort {lease.run_id}` there, or `frangible recover --watch` here"
            )

    def _is_here(self, lease: "Lease") -> bool:
        """Whether its injector could only run on this host: of this boot, or of an earlier one if the lease is this ledger's own.

        Two machines may have one name, and a lease of which there is nothing but the copy in the target may be the other's.
        """
        injector = lease.injector
        if not injector.is_local or injector.boot == boot_id() or self.ledger is None:
            return injector.is_local and injector.boot == boot_id()
        with contextlib.suppress(LedgerError):
            return not self.ledger.is_adopted(lease.id)
        return False

    def _undo(self, lease: "Lease", fault: Fault) -> Observation:
        """Revert and look, again and again until the limit, then once more after the settle time."""
        stop = threading.Event()
        platform = self.platform.for_lease(lease.id)

        def pause(seconds: float) -> None:
            self.clock.wait(stop, seconds)

        def attempt() -> Observation:
            fault.revert(platform, lease.target, lease.prior)
            return fault.observe_reverted(platform, lease.target, lease.prior)

        retrying = Retrying(
            retry=retry_if_result(lambda seen: not seen.real) | retry_if_exception_type(PlatformError),
            stop=stop_after_delay(self.limit),
            wait=wait_exponential(multiplier=0.05, max=2.0),
            sleep=pause,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        seen: Observation = retrying(attempt)
        if seen.real and self.settle > 0:
            self.clock.wait(stop, self.settle)
            seen = fault.observe_reverted(platform, lease.target, lease.prior)
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
            self.platform.delete_lease_copy(lease.target.node, lease.id)
