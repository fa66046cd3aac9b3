"""What every action does: choose targets, lease, inject, prove, hold, revert, observe. Runs in the chaoslib process."""

import contextlib
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frangible import admission
from frangible.admission import Admission, RunAborted
from frangible.clock import SystemClock
from frangible.errors import FaultError, FrangibleError, Refused
from frangible.fault import PROOF_EVERY, Fault, LoadFault, Observation, Target, fault_parameters
from frangible.process import ProcessIdentity
from frangible.reverting import Reverted, Reverter
from frangible.targets import Choice, draw

if TYPE_CHECKING:
    from frangible.ledger import Lease

__all__ = ["Choice", "perform", "perform_together"]

EXPIRY_MARGIN = 120.0
"""Seconds after the planned end at which a lease whose injector is out of reach may be reverted by anybody."""


@dataclass(frozen=True, slots=True)
class Part:
    """One fault of an action, and what it is to hit."""

    fault: Fault
    choice: Choice


@dataclass(slots=True)
class Held:
    """One lease in force, and what was seen of it."""

    part: Part
    lease: "Lease"
    proofs: int = 0
    looks: int = 0
    last: Observation | None = None
    reverted: Reverted | None = None
    error: str = field(default="")


_collected: ContextVar[list[Part] | None] = ContextVar("collected", default=None)
"""Where `perform` leaves what it is asked for, while `perform_together` collects."""


def perform(fault: Fault, choice: Choice, hold: float) -> dict[str, object]:
    """Inject one fault on the chosen targets, hold it for `hold` seconds, revert it; return what happened.

    Raises `Refused` when a guard says no, `FaultError` when it could not be injected, `RevertFailed` when it could not be
    undone, chaoslib's `InterruptExecution` when the run was stopped. Whatever was begun has been reverted, or its lease is open.
    """
    part, collected = Part(fault, choice), _collected.get()
    if collected is not None:
        collected.append(part)
        return {}
    return _perform((part,), hold)[0]


def perform_together(activities: Sequence[Callable[[], object]], hold: float) -> dict[str, object]:
    """Inject in turn what each of these activities would, hold all of it for the same `hold` seconds, revert it, the last first.

    The proof begins when all of it is in force. Raises what `perform` raises.
    """
    parts: list[Part] = []
    token = _collected.set(parts)
    try:
        for activity in activities:
            activity()
    finally:
        _collected.reset(token)
    return {"together": _perform(tuple(parts), hold)}


def _perform(parts: Sequence[Part], hold: float) -> list[dict[str, object]]:
    if hold < 0:
        raise FaultError(f"hold must be 0 seconds or more, found {hold}")
    run = admission.current()
    if run.failed:
        raise Refused(f"an earlier action of this run failed: {run.failed}")
    with admission.interruptible():
        try:
            with run.link.at_work():
                return _injected(run, parts, hold)
        except RunAborted:
            raise
        except FrangibleError as error:
            run.failed = str(error)
            run.link.tell({"type": "failed", "refused": isinstance(error, Refused), "message": str(error)})
            raise


def _injected(run: Admission, parts: Sequence[Part], hold: float) -> list[dict[str, object]]:
    """Ask the guards about everything at once, inject, hold, revert; return what happened to each part."""
    environment = run.platform.survey()
    drawn = [draw(environment, part.fault.target_kind, part.choice, run.next_seed()) for part in parts]
    hit = [(part, target) for part, (targets, _) in zip(parts, drawn, strict=True) for target in targets]
    _refuse_twice(hit)
    nodes = sorted({target.node for _, target in hit if target.kind != "load"})
    times = math.prod(part.fault.times(run.platform) for part in parts if isinstance(part.fault, LoadFault))
    answer = run.link.ask("inject", fault=" + ".join(part.fault.kind for part in parts), targets=nodes, load_times=times)
    if not answer["allowed"]:
        raise Refused(*answer["reasons"])
    with _in_force(run, hit, hold) as held:
        _hold(run, held, hold)
    return [_told(part, seed, [one for one in held if one.part is part]) for part, (_, seed) in zip(parts, drawn, strict=True)]


def _refuse_twice(hit: Sequence[tuple[Part, Target]]) -> None:
    """Refuse a fault that would be injected twice where it can be in force once: its second revert would undo the first."""
    counts = Counter((part.fault.kind, str(target)) for part, target in hit)
    twice = [f"{kind} on {target}" for (kind, target), count in counts.items() if count > 1]
    if twice:
        raise Refused(f"asked for {', '.join(twice)} more than once at the same time; choose other targets by `name`, or leave one out")


def _told(part: Part, seed: int, held: Sequence[Held]) -> dict[str, object]:
    return {
        "fault": part.fault.kind,
        "seed": seed,
        "targets": [str(one.lease.target) for one in held],
        "leases": [one.lease.id for one in held],
        "proven": [round(one.proofs / one.looks, 3) if one.looks else 0.0 for one in held],
    }


@contextlib.contextmanager
def _in_force(run: Admission, hit: Sequence[tuple[Part, Target]], hold: float) -> "Iterator[list[Held]]":
    """Inject on each target in turn; whatever happens, revert all that was begun, last first."""
    held: list[Held] = []
    try:
        for part, target in hit:
            _inject(run, part, target, hold, held)
        yield held
    finally:
        _revert_all(run, held)


def _inject(run: Admission, part: Part, target: Target, hold: float, held: list[Held]) -> None:
    fault = part.fault
    lease = run.ledger.intend(_new_lease(run, fault, target, hold))
    one = Held(part, lease)
    held.append(one)
    _tell(run, one, "intended", "", copy=lease.to_json())
    run.platform.put_lease_copy(target.node, lease.id, lease.to_json())
    run.link.check()
    run.ledger.begin_injecting(lease.id)
    _tell(run, one, "injecting", "")
    try:
        fault.inject(run.platform.for_lease(lease.id), target, lease.prior)
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


def _hold(run: Admission, held: Sequence[Held], hold: float) -> None:
    """Look at each target until the hold, which the first look begins, is over or the run is stopped; at least once."""
    clock = SystemClock()
    end = math.inf
    while True:
        for one in held:
            _look(run, one)
        end = min(end, clock.monotonic() + hold)
        left = end - clock.monotonic()
        if left <= 0:
            return
        if clock.wait(run.link.stop, min(PROOF_EVERY, left)):
            raise RunAborted(run.link.abort_reason)


def _look(run: Admission, one: Held) -> None:
    one.looks += 1
    try:
        seen = one.part.fault.observe(run.platform, one.lease.target, one.lease.prior)
    except FrangibleError as error:
        seen = Observation(real=False, detail=f"could not look: {error}")
    one.proofs += seen.real
    one.last = seen
    _tell(run, one, "proven" if seen.real else "not-proven", seen.detail)


def _revert_all(run: Admission, held: Sequence[Held]) -> None:
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
            one.reverted = reverter.revert(one.lease, one.part.fault)
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
