"""May this be injected? Facts in, decision out. Pure.

A guard that did not get its answer refuses, and a guard that the inventory does not configure is listed, so that nobody takes its silence
for a yes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.environment import Limits
    from frangible.ledger import Stop

__all__ = ["OUTSIDE", "Decision", "Facts", "decide"]

OUTSIDE = "outside"
"""Where an observer is that no node of the environment carries."""
ALLOWED_TIER = "staging"
NOT_YET = ("trading sessions", "freezes", "alerts")
"""Guards that no inventory can configure yet."""
ROUNDING = 1e-9
"""So that a third of three nodes is one node, whatever the last digit of the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out immediately before a decision."""

    environment: str
    tier: str
    halt: "Stop | None"
    stop_for_run: "Stop | None"
    open_leases: tuple[str, ...]
    """Ids of the leases of other runs in this environment that are not reverted."""
    targets: tuple[str, ...]
    """Names of the nodes that are about to be hit; empty when a run is admitted."""
    roles: Mapping[str, tuple[str, ...]]
    """Roles of every node of the environment, by node name."""
    nodes_in_force: tuple[str, ...]
    """Nodes that this run has hit already and not reverted."""
    limits: "Limits"
    observers: Mapping[str, str]
    """Where `prometheus`, the `runner` and other observers are: a node or host name, or `outside`; empty or missing when unknown."""
    load_times: float = 1.0
    """How many times the present load is about to be offered."""
    forbidden: tuple[str, ...] = ()
    """What this user may not do that the run's faults need, and what grants it."""
    unanswered: tuple[str, ...] = ()
    """Guards that could not get their answer, and why."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed, or refused with every reason."""

    reasons: tuple[str, ...]
    """Each says what was found and what would allow it."""
    not_configured: tuple[str, ...]
    """Guards that were not asked, because the inventory says nothing about them."""

    @property
    def allowed(self) -> bool:
        """Whether no guard said no."""
        return not self.reasons


def decide(facts: Facts) -> Decision:
    """Ask every guard; all reasons are given at once."""
    guards = (_tier, _stops, _leases, _unknown_targets, _nodes_at_once, _shares_of_roles, _load, _observers, _permissions, _unanswered)
    reasons = tuple(reason for guard in guards for reason in guard(facts))
    return Decision(reasons, NOT_YET if facts.observers.get("prometheus") else (*NOT_YET, "prometheus location"))


def _tier(facts: Facts) -> Iterator[str]:
    if facts.tier == "production":
        yield f"environment {facts.environment} is production, where nothing is ever injected; choose one whose tier is {ALLOWED_TIER}"
    elif facts.tier != ALLOWED_TIER:
        yield f"environment {facts.environment} is of tier {facts.tier!r}; only {ALLOWED_TIER} is allowed"


def _stops(facts: Facts) -> Iterator[str]:
    yield from (str(stop) for stop in (facts.halt, facts.stop_for_run) if stop is not None)


def _leases(facts: Facts) -> Iterator[str]:
    if facts.open_leases:
        yield f"other runs left {facts.environment} with leases that are not reverted ({_listed(facts.open_leases)}); `frangible recover` reverts them"


def _unknown_targets(facts: Facts) -> Iterator[str]:
    unknown = sorted(set(facts.targets) - set(facts.roles))
    if unknown:
        yield f"{_listed(unknown)} is not a node of {facts.environment}, so its blast radius is unknown; choose among {_listed(sorted(facts.roles))}"


def _nodes_at_once(facts: Facts) -> Iterator[str]:
    hit = _hit(facts)
    limit = facts.limits.nodes_at_once
    if facts.targets and len(hit) > limit:
        yield (
            f"{len(hit)} nodes of {facts.environment} would be hit at once ({_listed(sorted(hit))}) and its limits allow {limit}; "
            "choose fewer, wait for the revert, or raise `nodes-at-once`"
        )


def _shares_of_roles(facts: Facts) -> Iterator[str]:
    if not facts.targets:
        return
    hit = _hit(facts)
    for role in sorted({role for node in facts.targets for role in facts.roles.get(node, ())}):
        nodes = {node for node, roles in facts.roles.items() if role in roles}
        taken = nodes & hit
        # What the loss of a role's only node does is what an experiment must be able to find out.
        if len(nodes) > 1 and len(taken) > facts.limits.share_of_role * len(nodes) + ROUNDING:
            yield (
                f"{len(taken)} of {len(nodes)} nodes of role {role} in {facts.environment} would be hit ({_listed(sorted(taken))}) and its limits allow "
                f"a share of {facts.limits.share_of_role:g}; choose fewer, or raise `share-of-role`"
            )


def _load(facts: Facts) -> Iterator[str]:
    if not facts.load_times <= facts.limits.load_at_most + ROUNDING:  # not a number is no yes either
        yield (
            f"{facts.environment} would be offered {facts.load_times:.3g} times its present load and its limits allow {facts.limits.load_at_most:g} times; "
            "choose a smaller `factor`, or raise `load-at-most`"
        )


def _observers(facts: Facts) -> Iterator[str]:
    if facts.targets and not facts.observers.get("runner"):
        yield "where the runner itself runs is unknown; say which host or node it is on"
    for observer, place in sorted(facts.observers.items()):
        hit = sorted(target for target in set(facts.targets) if place != OUTSIDE and _same_place(place, target))
        if hit:
            yield f"{observer} runs on {_listed(hit)}, which would be hit: nobody would see what happens; choose another target, or move {observer} outside"


def _permissions(facts: Facts) -> Iterator[str]:
    yield from facts.forbidden


def _unanswered(facts: Facts) -> Iterator[str]:
    yield from (f"a guard got no answer and refuses: {guard}; mend that and try again" for guard in facts.unanswered)


def _hit(facts: Facts) -> set[str]:
    return {*facts.targets, *facts.nodes_in_force}


def _same_place(one: str, other: str) -> bool:
    """Whether two names may be one host; `app-1` may be `app-1.ldn.example`."""
    first, second = one.casefold().rstrip("."), other.casefold().rstrip(".")
    if "." in first and "." in second:
        return first == second
    return first.partition(".")[0] == second.partition(".")[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
