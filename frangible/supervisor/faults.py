"""The faults of one run as its supervisor sees them: what was heard of each lease, and reverting those that are in force."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from frangible.errors import FrangibleError, LedgerError, PlatformError
from frangible.judge import FaultProof
from frangible.process import ProcessIdentity
from frangible.reverting import Reverter

if TYPE_CHECKING:
    from frangible.channel import Message
    from frangible.clock import Clock
    from frangible.fault import FaultRegistry
    from frangible.ledger import Lease
    from frangible.supervisor.admitting import Admitted
    from frangible.supervisor.telling import Emit

__all__ = ["Faults"]

REVERT_STATES = frozenset({"reverting", "reverted", "revert-failed"})
"""What a process tells of a lease that it has begun to revert."""


@dataclass
class Seen:
    """What was heard of one lease."""

    lease: "Lease"
    looks: int = 0
    proofs: int = 0
    injected: bool = False
    reverted: bool = False
    state: str = ""
    detail: str = ""
    doubt: str = ""
    """What was seen when the fault was not real."""


class Faults:
    """Every lease of one run. `note` is called with each proof, and once for each revert that was observed."""

    def __init__(
        self, admitted: "Admitted", registry: "FaultRegistry", emit: "Emit", note: Callable[[Literal["proven", "reverted"]], None], clock: "Clock"
    ) -> None:
        """Begin with nothing."""
        self.failures: list[str] = []
        """What could not be reverted, or not recorded."""
        self._admitted = admitted
        self._registry = registry
        self._emit = emit
        self._note = note
        self._clock = clock
        self._me = ProcessIdentity.current()
        self._seen: dict[str, Seen] = {}
        self._progress_at = clock.monotonic()

    # --- what is heard ------------------------------------------------------------------------------------------------

    def hear(self, message: "Message") -> None:
        """Take in what the chaoslib process tells of one lease, and tell it on where it is news."""
        from frangible.ledger import Lease

        if "copy" in message:
            self._seen[message["lease"]] = Seen(Lease.from_json(message["copy"]))
        seen = self._seen[message["lease"]]
        news = (message["state"], message["detail"]) != (seen.state, seen.detail)
        seen.state, seen.detail = message["state"], message["detail"]
        if news and message["state"] in REVERT_STATES:
            self._progress_at = self._clock.monotonic()
        match message["state"]:
            case "injected":
                seen.injected = True
            case "proven" | "not-proven":
                seen.looks += 1
                seen.proofs += message["state"] == "proven"
                if message["state"] == "proven":
                    self._note("proven")
                else:
                    seen.doubt = message["detail"]
            case "reverted":
                self._reverted(seen)
            case "revert-failed":
                self.failures.append(message["detail"])
        if news:  # a fault that is proven twice a second is told once
            told = ("lease", "fault", "target", "state", "detail")
            self._emit(event="fault", **{key: message[key] for key in told})

    def proofs(self) -> tuple[FaultProof, ...]:
        """Say of each lease how real its fault was, for the judge."""
        return tuple(self._proof(seen) for seen in self._seen.values())

    def _proof(self, seen: Seen) -> FaultProof:
        lease = seen.lease
        least = self._registry.load(lease.fault).least_proven
        share = seen.proofs / seen.looks if seen.looks else 0.0
        detail = seen.doubt if seen.doubt and seen.reverted and share < least else seen.detail
        return FaultProof(lease.id, lease.fault, str(lease.target), seen.injected, share, least, seen.reverted, detail)

    def _reverted(self, seen: Seen) -> None:
        if not seen.reverted:
            seen.reverted = True
            self._note("reverted")

    # --- what is in force ---------------------------------------------------------------------------------------------

    def open_leases(self) -> "tuple[Lease, ...]":
        """Leases of this run that are not reverted: from the ledger, or from memory when it does not answer."""
        try:
            return self._admitted.ledger.open_leases(run_id=self._admitted.plan.run_id)
        except LedgerError:
            return tuple(seen.lease for seen in self._seen.values() if not seen.reverted)

    def any_unclaimed(self) -> bool:
        """Whether a fault is in force that nobody has begun to revert."""
        return any(lease.claimed_by is None and not self._is_reverted(lease) for lease in self.open_leases())

    def is_reverted_by(self, process: ProcessIdentity | None) -> bool:
        """Whether this process is reverting something now: by the ledger, or by its own word where the ledger could not be told."""
        return process is not None and any(self._is_being_reverted(lease, process) for lease in self.open_leases())

    def idle_since(self, moment: float) -> float:
        """Seconds since the chaoslib process last got on with its reverts, but no longer than since a moment of the monotonic clock."""
        return self._clock.monotonic() - max(moment, self._progress_at)

    def _is_being_reverted(self, lease: "Lease", process: ProcessIdentity) -> bool:
        from frangible.ledger import LeaseState

        told = lease.id in self._seen and self._seen[lease.id].state == "reverting"
        return told or (lease.claimed_by == process and lease.state is LeaseState.REVERTING)

    def _is_reverted(self, lease: "Lease") -> bool:
        """Whether its revert was observed, whatever the ledger has been told."""
        return lease.id in self._seen and self._seen[lease.id].reverted

    # --- reverting ----------------------------------------------------------------------------------------------------

    def revert_open(self) -> None:
        """Revert what is in force, the last first; record what was reverted while the ledger could not be told."""
        admitted = self._admitted
        for lease in reversed(self.open_leases()):
            seen = self._seen.setdefault(lease.id, Seen(lease))
            report = partial(self._report_revert, seen)
            reverter = Reverter(admitted.platform, admitted.ledger, self._me, settle=admitted.plan.windows.settle, report=report)
            try:
                if seen.reverted:
                    reverter.record(lease, seen.detail)
                else:
                    reverter.revert(lease, self._registry.build(lease.fault, lease.parameters))
            except FrangibleError as error:
                self.failures.append(str(error))
                self._emit(event="log", level="error", message=str(error))

    def remove_copies(self) -> None:
        """Remove the copies of leases that are reverted: the process that reverted one may have died before it could."""
        for seen in self._seen.values():
            if seen.reverted:
                with contextlib.suppress(PlatformError):  # `recover` finds and removes what is left
                    self._admitted.platform.delete_lease_copy(seen.lease.target.node, seen.lease.id)

    def unrecorded(self) -> str:
        """Say which reverts the ledger does not know of; empty when it knows all. A lease that stays open keeps every other run out."""
        reverted = [seen.lease for seen in self._seen.values() if seen.reverted]
        why = "it cannot be written"
        try:
            still_open = {lease.id for lease in self._admitted.ledger.open_leases(run_id=self._admitted.plan.run_id)}
        except LedgerError as error:
            still_open, why = {lease.id for lease in reverted}, str(error)
        left = [str(lease) for lease in reverted if lease.id in still_open]
        return f"{', '.join(left)}: reverted, but the ledger could not be told ({why}); run `frangible recover` when it can be" if left else ""

    def _report_revert(self, seen: Seen, lease: str, state: str, detail: str) -> None:
        if state == "reverted":
            self._reverted(seen)
        self._emit(event="fault", lease=lease, fault=seen.lease.fault, target=str(seen.lease.target), state=state, detail=detail)
