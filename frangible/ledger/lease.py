"""What a lease is, the steps that it may take, and its text form for the copy in the target."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType

from frangible.errors import LedgerError
from frangible.fault import JsonValue, Prior, Target
from frangible.process import ProcessIdentity

__all__ = ["EVERYTHING", "MAY_BECOME_FROM", "OPEN", "Lease", "LeaseState", "Step", "Stop"]

EVERYTHING = "*"
"""Scope of the halt: the stop that is meant for every run."""
FORMAT = 1
"""Format of the copy in the target; a copy may outlive the frangible that wrote it."""


class LeaseState(StrEnum):
    """Where a lease is on its way from the intention to the revert."""

    INTENDED = "intended"
    INJECTING = "injecting"
    INJECTED = "injected"
    REVERTING = "reverting"
    REVERTED = "reverted"
    REVERT_FAILED = "revert-failed"

    @property
    def is_open(self) -> bool:
        """Whether something may be left to revert. An `intended` lease is open too: reverting it finds nothing to do."""
        return self is not LeaseState.REVERTED


OPEN = frozenset(state for state in LeaseState if state.is_open)
MAY_BECOME_FROM: Mapping[LeaseState, frozenset[LeaseState]] = MappingProxyType(
    {
        LeaseState.INTENDED: frozenset(),
        LeaseState.INJECTING: frozenset({LeaseState.INTENDED}),
        LeaseState.INJECTED: frozenset({LeaseState.INJECTING}),
        LeaseState.REVERTING: OPEN,
        LeaseState.REVERTED: frozenset({LeaseState.REVERTING}),
        LeaseState.REVERT_FAILED: frozenset({LeaseState.REVERTING}),
    }
)
"""For each state, those from which a step may lead to it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a lease's history."""

    state: LeaseState
    epoch: int
    by: ProcessIdentity
    at: float
    """Seconds since the epoch, by the store's clock."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody's request that nothing more is injected and what is in force is reverted."""

    scope: str
    """`*` is the halt of everything; else the id of one run."""
    by: str
    reason: str
    since: float
    """Seconds since the epoch, by the store's clock."""

    @property
    def is_halt(self) -> bool:
        """Whether it is meant for every run."""
        return self.scope == EVERYTHING

    def __str__(self) -> str:
        """Say in words who stopped what, and what would allow it again."""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        if self.is_halt:
            return f"halt set by {self.by} at {when} ({self.reason}); `frangible halt off` allows it again"
        return f"run {self.scope} was stopped by {self.by} at {when} ({self.reason}); start a new run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One fault on one target: who injects it, what the target was like before, until when, and how far it is."""

    id: str
    run_id: str
    environment: str
    fault: str
    """Kind of the fault; with module and version it says which code can revert the lease."""
    fault_module: str
    fault_version: int
    parameters: dict[str, JsonValue]
    target: Target
    prior: Prior
    keys: tuple[str, ...]
    """Resource keys that the run holds; sorted."""
    state: LeaseState = LeaseState.INTENDED
    epoch: int = 0
    """How often it has been claimed; only the newest claimer may end it."""
    injector: ProcessIdentity
    claimed_by: ProcessIdentity | None = None
    created_at: float = 0.0
    """Seconds since the epoch by the store's clock, like every time here; `Ledger.intend` sets it."""
    expires_at: float
    updated_at: float = 0.0
    error: str = ""
    """Why the newest revert failed."""

    def __str__(self) -> str:
        """Render `lease r1-ab (node-loss on node app-1)`."""
        return f"lease {self.id} ({self.fault} on {self.target})"

    def to_json(self) -> str:
        """Return the text of the copy that is kept in the target."""
        try:
            return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise LedgerError(f"{self}: its parameters and prior state must be JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "Lease":
        """Return the lease of a copy's text; raise `LedgerError` on anything that `to_json` does not write."""
        from pydantic import TypeAdapter, ValidationError

        try:
            data = json.loads(text)
            found = data.pop("format", None) if isinstance(data, dict) else None
            if found != FORMAT:
                raise LedgerError(
                    f"not the copy of a lease that this frangible can read: expected format {FORMAT}, found {found!r}; use the frangible that wrote it"
                )
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except (ValidationError, ValueError) as error:
            raise LedgerError(f"not the copy of a lease: {error}; look at the target by hand") from error
