"""Laws of the guard: what speaks against an injection is never outweighed."""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from frangible.environment import Limits
from frangible.guard import Facts, decide
from frangible.ledger import EVERYTHING, Stop

NODES = ("app-1", "app-2", "app-3", "db-1")
nodes = st.lists(st.sampled_from(NODES), unique=True).map(tuple)
words = st.text("abc", max_size=4)
stops = st.none() | st.builds(Stop, st.just(EVERYTHING), words, words, st.floats(0, 1e9))
roles = st.fixed_dictionaries({node: st.lists(st.sampled_from(["gateway", "risk", "database"]), unique=True).map(tuple) for node in NODES})
facts = st.builds(
    Facts,
    environment=st.just("ldn-1"),
    tier=st.sampled_from(["staging", "staging", "staging", "production", "development", ""]),
    halt=stops,
    stop_for_run=stops,
    open_leases=st.lists(words, max_size=1).map(tuple),
    targets=nodes,
    roles=roles,
    nodes_in_force=nodes,
    limits=st.builds(Limits, nodes_at_once=st.integers(0, 5), share_of_role=st.floats(0, 1)),
    observers=st.dictionaries(st.sampled_from(["prometheus", "runner", "ledger"]), st.sampled_from([*NODES, "outside", "ops-7", ""])),
    unanswered=st.lists(words, max_size=1).map(tuple),
)
harmless = facts.map(lambda found: replace(found, tier="staging", halt=None, stop_for_run=None, open_leases=(), unanswered=()))
mixed = facts | harmless


@st.composite
def against(draw: st.DrawFn, before: Facts) -> Facts:
    """The same facts with one thing more that speaks against."""
    other = draw(st.sampled_from(NODES))
    stop = Stop(EVERYTHING, "ana", "now", 0.0)
    return draw(
        st.sampled_from(
            [
                replace(before, tier="production"),
                replace(before, halt=stop),
                replace(before, stop_for_run=stop),
                replace(before, open_leases=(*before.open_leases, "r0-a")),
                replace(before, targets=(*before.targets, other)),
                replace(before, nodes_in_force=(*before.nodes_in_force, other)),
                replace(before, limits=before.limits.model_copy(update={"nodes_at_once": max(0, before.limits.nodes_at_once - 1)})),
                replace(before, limits=before.limits.model_copy(update={"share_of_role": before.limits.share_of_role / 2})),
                replace(before, observers={**before.observers, "second prometheus": other}),
                replace(before, unanswered=(*before.unanswered, "halt: disk full")),
            ]
        )
    )


@given(st.data(), mixed)
def test_one_more_thing_against_it_never_allows(data: st.DataObject, before: Facts) -> None:
    """Whatever is added that speaks against, a refusal stays one."""
    after = data.draw(against(before))
    assert decide(before).allowed or not decide(after).allowed


@given(mixed)
def test_production_is_never_allowed(found: Facts) -> None:
    """Whatever else is true; and so is every tier but staging."""
    assert not decide(replace(found, tier="production")).allowed
    assume(found.tier != "staging")
    assert not decide(found).allowed


@given(mixed, st.text())
def test_a_guard_without_an_answer_is_never_allowed(found: Facts, guard: str) -> None:
    """It fails closed, whatever else is true."""
    assert not decide(replace(found, unanswered=(guard,))).allowed


@given(mixed)
def test_allowed_means_within_every_limit(found: Facts) -> None:
    """Counted apart from the guard: nodes, shares of roles and observers of whatever was allowed."""
    assume(decide(found).allowed)
    assert found.halt is None
    assert found.stop_for_run is None
    assert not found.open_leases
    if not found.targets:
        return
    hit = set(found.targets) | set(found.nodes_in_force)
    assert len(hit) <= found.limits.nodes_at_once
    for role in {role for target in found.targets for role in found.roles[target]}:
        of_role = [node for node in NODES if role in found.roles[node]]
        assert len(of_role) == 1 or len(hit.intersection(of_role)) / len(of_role) <= found.limits.share_of_role + 1e-6
    assert not hit.intersection(found.targets).intersection(found.observers.values())


@given(mixed)
def test_a_refusal_has_words(found: Facts) -> None:
    """Allowed and reasons exclude each other, and no reason is empty."""
    decision = decide(found)
    assert decision.allowed == (not decision.reasons)
    assert all(decision.reasons)
    assert {"trading sessions", "freezes", "alerts"} <= set(decision.not_configured)
