"""Before anything happens: guards, locks, fingerprint, and the run's row in the journal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from frangible.errors import FrangibleError, LedgerError, PlatformError, Refused
from frangible.process import ProcessIdentity

if TYPE_CHECKING:
    from frangible.guard import Facts
    from frangible.journal import Journal, RunRecord
    from frangible.ledger import Lease, Ledger, Stop
    from frangible.locks import HeldLocks
    from frangible.plan import Plan
    from frangible.platforms import Platform

__all__ = ["LOCK_TTL", "Admitted", "admit", "guard_facts"]

LOCK_TTL = 30.0
"""Seconds after which a lock whose holder stopped renewing it may be taken over."""


@dataclass
class Admitted:
    """What a run holds from its admission to its end."""

    plan: "Plan"
    ledger: "Ledger"
    journal: "Journal"
    platform: "Platform"
    locks: "HeldLocks"
    record: "RunRecord"


def admit(plan: "Plan") -> Admitted:
    """Ask every guard, take every lock, write the run's row; raise `Refused` and leave nothing behind otherwise."""
    from frangible.fingerprint import capture
    from frangible.journal import Journal
    from frangible.ledger import Ledger
    from frangible.locks import HeldLocks
    from frangible.platforms import open_platform

    me = ProcessIdentity.current()
    try:
        plan.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        ledger = Ledger.open(plan.ledger_url)
        journal = Journal.open(plan.journal_url)
        platform = open_platform(plan.environment)
        _ask_guards(plan, ledger, platform, locked=False)
        locks = HeldLocks.acquire_all(platform.locks(), plan.keys, plan.run_id, me, LOCK_TTL)
    except Refused:
        raise
    except (FrangibleError, OSError) as error:
        raise Refused(str(error)) from error
    try:
        facts = _ask_guards(plan, ledger, platform, locked=True)
        record = _started(plan, me, capture(plan.environment, platform), facts)
        journal.start(record)
    except Refused:
        locks.release()
        raise
    except FrangibleError as error:
        locks.release()
        raise Refused(str(error)) from error
    return Admitted(plan, ledger, journal, platform, locks, record)


def guard_facts(plan: "Plan", ledger: "Ledger", platform: "Platform", targets: tuple[str, ...], load_times: float = 1.0) -> "Facts":
    """Collect what the guards ask about; a question without an answer is listed as such, and refuses."""
    from frangible.guard import Facts

    environment = plan.environment
    observers: Mapping[str, str] = {}
    unanswered: list[str] = []
    leases: tuple[Lease, ...] = ()
    forbidden: tuple[str, ...] = ()
    stops: dict[str, Stop] = {}
    try:
        leases = ledger.open_leases(environment=environment.name)
        stops = {stop.scope: stop for stop in ledger.stops()}
    except LedgerError as error:
        unanswered.append(f"unreverted leases and halt: {error}")
    in_force = tuple(lease.target.node for lease in leases if lease.run_id == plan.run_id and lease.target.kind != "load")
    for target in targets:
        try:
            platform.node(target)
        except PlatformError as error:
            unanswered.append(f"state of {target}: {error}")
    try:
        environment, observers = (platform.survey() if plan.injects else environment), platform.observers()
    except PlatformError as error:
        unanswered.append(f"where everything is: {error}")
    try:
        forbidden = platform.forbidden(plan.needs) if plan.injects else ()
    except PlatformError as error:
        unanswered.append(f"what this user may do: {error}")
    return Facts(
        environment=environment.name,
        tier=environment.tier,
        halt=stops.get("*"),
        stop_for_run=stops.get(plan.run_id),
        open_leases=tuple(lease.id for lease in leases if lease.run_id != plan.run_id),
        targets=targets,
        roles={node.name: tuple(node.roles) for node in environment.nodes},
        nodes_in_force=in_force,
        limits=environment.limits,
        observers=observers,
        load_times=load_times,
        forbidden=forbidden,
        unanswered=tuple(unanswered),
    )


def _ask_guards(plan: "Plan", ledger: "Ledger", platform: "Platform", *, locked: bool) -> dict[str, str]:
    """Return what the journal should know about the guards; raise `Refused` when one of them says no.

    Leases of other runs are left-overs only where we hold the lock; else they may be those of the run that does, and the lock names it.
    """
    from frangible.guard import decide

    facts = guard_facts(plan, ledger, platform, targets=())
    decision = decide(facts if locked else replace(facts, open_leases=()))
    if not decision.allowed:
        raise Refused(*decision.reasons)
    return {f"guard.{name}": "not configured" for name in decision.not_configured}


def _started(plan: "Plan", me: ProcessIdentity, fingerprint: "dict[str, str]", facts: "dict[str, str]") -> "RunRecord":
    from frangible.journal import RunRecord

    environment = plan.environment
    return RunRecord(
        id=plan.run_id,
        experiment=plan.experiment,
        experiment_title=plan.title,
        experiment_digest=plan.digest,
        environment=environment.name,
        region=environment.region or "",
        tier=environment.tier,
        owner=environment.owner.team if environment.owner else "",
        note=plan.note,
        ticket=plan.ticket,
        actor=plan.actor,
        supervisor=me,
        started_at=time.time(),
        ended_at=None,
        state="started",
        outcome=None,
        reasons=(),
        ending="",
        keys=plan.keys,
        windows=(),
        indicators=(),
        proofs=(),
        fingerprint=fingerprint,
        facts=facts | ({"draw.seed": str(plan.seed)} if plan.injects else {}),
        recovered_after=None,
        timings={},
        chaos_journal=None,
        series=None,
    )
