"""What every action does: choose targets, lease, inject, prove, hold, revert, observe. Runs in the chaoslib process."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frangible import admission
from frangible.admission import Admission, RunAborted
from frangible.clock import SystemClock
from frangible.errors import FaultError, FrangibleError, Refused
from frangible.fault import Fault, LoadFault, Observation, Target, fault_parameters
from frangible.process import ProcessIdentity
from frangible.reverting import Reverted, Reverter
from frangible.targets import Choice, draw

if TYPE_CHECKING:
    from frangible.ledger import Lease

__all__ = ["Choice", "perform"]

PROOF_EVERY = 0.5
"""Seconds between two looks whether the fault is still real."""
EXPIRY_MARGIN = 120.0
"""Seconds after the planned end at which a lease whose injector is out of reach may be reverted by anybody."""


@dataclass(slots=True)
class Held:
    """One lease in force, and what was seen of it."""

    lease: "Lease"
    proofs: int = 0
    looks: int = 0
    last: Observation | None = None
    reverted: Reverted | None = None
    error: str = field(default="")


def perform(fault: Fault, choice: Choice, hold: float) -> dict[str, object]:
    """Inject one fault on the chosen targets, hold it for `hold` seconds, revert it; return what happened.

    Raises `Refused` when a guard says no, `FaultError` when it could not be injected, `RevertFailed` when it could not be
    undone, chaoslib's `InterruptExecution` when the run was stopped. Whatever was begun has been reverted, or its lease is open.
    """
    if hold < 0:
        raise FaultError(f"hold must be 0 seconds or more, found {hold}")
    run = admission.current()
    if run.failed:
        raise Refused(f"an earlier action of this run failed: {run.failed}")
    with admission.interruptible():
        try:
            return _perform(run, fault, choice, hold)
        except RunAborted:
            raise
        except FrangibleError as error:
            run.failed = str(error)
            run.link.tell({"type": "failed", "refused": isinstance(error, Refused), "message": str(error)})
            raise


def _perform(run: Admission, fault: Fault, choice: Choice, hold: float) -> dict[str, object]:
    targets, seed = draw(run.plan.environment, fault.target_kind, choice)
    nodes = sorted({target.node for target in targets if target.kind != "load"})
    times = fault.times(run.platform) if isinstance(fault, LoadFault) else 1.0
    answer = run.link.ask("inject", fault=fault.kind, targets=nodes, target_kind=fault.target_kind, load_times=times)
    if not answer["allowed"]:
        raise Refused(*answer["reasons"])
    with _in_force(run, fault, targets, hold) as held:
        _hold(run, fault, held, hold)
    return {
        "fault": fault.kind,
        "seed": seed,
        "targets": [str(one.lease.target) for one in held],
        "leases": [one.lease.id for one in held],
        "proven": [round(one.proofs / one.looks, 3) if one.looks else 0.0 for one in held],
    }


@contextlib.contextmanager
def _in_force(run: Admission, fault: Fault, targets: Sequence[Target], hold: float) -> "Iterator[list[Held]]":
    """Inject on each target in turn; whatever happens, revert all that was begun, last first."""
    held: list[Held] = []
    try:
        for target in targets:
            _inject(run, fault, target, hold, held)
        yield held
    finally:
        _revert_all(run, fault, held)


def _inject(run: Admission, fault: Fault, target: Target, hold: float, held: list[Held]) -> None:
    lease = run.ledger.intend(_new_lease(run, fault, target, hold))
    one = Held(lease)
    held.append(one)
    _tell(run, one, "intended", "", copy=lease.to_json())
    run.platform.put_lease_copy(target.node, lease.id, lease.to_json())
    run.link.check()
    run.ledger.begin_injecting(lease.id)
    _tell(run, one, "injecting", "")
    try:
        fault.inject(run.platform, target, lease.prior)
    except FrangibleError as error:
        raise FaultError(f"{fault.kind} on {target} could not be injected: {error}") from error
    run.ledger.mark_injected(lease.id)
    _tell(run, one, "injected", "")


def _new_lease(run: Admission, fault: Fault, target: Target, hold: float) -> "Lease":
    from frangible.ledger import Lease, LeaseState

    now = run.ledger.store_time()
    return Lease(
        id=f"{run.plan.run_id}-{secrets.token_hex(3)}",
        run_id=run.plan.run_id,
        environment=run.plan.environment.name,
        fault=fault.kind,
        fault_module=type(fault).__module__,
        fault_version=fault.version,
        parameters=fault_parameters(fault),
        target=target,
        prior=fault.capture(run.platform, target),
        keys=run.plan.keys,
        state=LeaseState.INTENDED,
        epoch=0,
        injector=ProcessIdentity.current(),
        claimed_by=None,
        created_at=now,
        expires_at=now + hold + EXPIRY_MARGIN,
        updated_at=now,
        error="",
    )


def _hold(run: Admission, fault: Fault, held: Sequence[Held], hold: float) -> None:
    """Look at each target until the hold is over or the run is stopped; at least once."""
    clock = SystemClock()
    end = clock.monotonic() + hold
    while True:
        for one in held:
            _look(run, fault, one)
        left = end - clock.monotonic()
        if left <= 0:
            return
        if clock.wait(run.link.stop, min(PROOF_EVERY, left)):
            raise RunAborted(run.link.abort_reason)


def _look(run: Admission, fault: Fault, one: Held) -> None:
    one.looks += 1
    try:
        seen = fault.observe(run.platform, one.lease.target, one.lease.prior)
    except FrangibleError as error:
        seen = Observation(real=False, detail=f"could not look: {error}")
    one.proofs += seen.real
    one.last = seen
    _tell(run, one, "proven" if seen.real else "not-proven", seen.detail)


def _revert_all(run: Admission, fault: Fault, held: Sequence[Held]) -> None:
    """Revert every lease even when one of them fails; raise the first failure at the end."""
    failures: list[FrangibleError] = []
    for one in reversed(held):
        reverter = Reverter(
            run.platform,
            run.ledger,
            ProcessIdentity.current(),
            settle=0.0 if run.link.stop.is_set() else run.plan.windows.settle,
            report=lambda _lease, state, detail, one=one: _tell(run, one, state, detail),  # type: ignore[misc]
        )
        try:
            one.reverted = reverter.revert(one.lease, fault)
        except FrangibleError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _tell(run: Admission, one: Held, state: str, detail: str, **more: str) -> None:
    """Tell the supervisor; when it is gone the revert goes on all the same."""
    with contextlib.suppress(RunAborted):
        run.link.tell(
            {
                "type": "fault",
                "lease": one.lease.id,
                "fault": one.lease.fault,
                "target": str(one.lease.target),
                "state": state,
                "detail": detail,
                **more,
            }
        )
