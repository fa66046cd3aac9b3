"""What each guard refuses, in which words, and what it lets through."""

from dataclasses import replace

import pytest

from frangible.environment import Limits
from frangible.guard import Facts, decide
from frangible.ledger import EVERYTHING, Stop

FINE = Facts(
    environment="ldn-1",
    tier="staging",
    halt=None,
    stop_for_run=None,
    open_leases=(),
    targets=("app-1",),
    roles={"app-1": ("gateway",), "app-2": ("gateway", "risk"), "db-1": ("database",)},
    nodes_in_force=(),
    limits=Limits(),
    observers={"prometheus": "outside", "runner": "ops-7", "ledger": "ops-7"},
)
THREE = {"app-1": ("gateway",), "app-2": ("gateway",), "app-3": ("gateway",)}


def test_nothing_against_it_is_allowed() -> None:
    """No reasons, and the guards that no inventory can configure yet are listed."""
    decision = decide(FINE)
    assert decision.allowed
    assert decision.reasons == ()
    assert decision.not_configured == ("trading sessions", "freezes", "alerts")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"tier": "production"}, ["ldn-1 is production", "nothing is ever injected", "staging"], id="production"),
        pytest.param({"tier": "development"}, ["'development'", "only staging"], id="another tier"),
        pytest.param({"tier": ""}, ["only staging"], id="no tier"),
        pytest.param(
            {"forbidden": ("jane may not patch nodes; deploy/access/node grants it",)}, ["jane may not patch nodes", "deploy/access/node"], id="rights"
        ),
        pytest.param({"halt": Stop(EVERYTHING, "ana@ldn", "incident 7", 0.0)}, ["halt set by ana@ldn", "incident 7", "`frangible halt off`"], id="halt"),
        pytest.param({"stop_for_run": Stop("r1", "bob@nyc", "enough", 0.0)}, ["run r1 was stopped by bob@nyc", "enough"], id="stop of the run"),
        pytest.param({"open_leases": ("r0-a", "r0-b")}, ["r0-a, r0-b", "not reverted", "`frangible recover`"], id="unreverted leases"),
        pytest.param({"targets": ("app-9",)}, ["app-9 is not a node of ldn-1", "app-1, app-2, db-1"], id="unknown target"),
        pytest.param({"targets": ("app-1", "db-1")}, ["2 nodes", "app-1, db-1", "allow 1", "`nodes-at-once`"], id="too many targets"),
        pytest.param({"nodes_in_force": ("db-1",)}, ["2 nodes", "app-1, db-1", "allow 1"], id="too many with those in force"),
        pytest.param({"limits": Limits(nodes_at_once=0)}, ["1 nodes", "allow 0"], id="none allowed"),
        pytest.param({"limits": Limits(share_of_role=0.4)}, ["1 of 2 nodes of role gateway", "share of 0.4", "`share-of-role`"], id="too much of a role"),
        pytest.param(
            {"roles": THREE, "nodes_in_force": ("app-2",), "limits": Limits(nodes_at_once=3)}, ["2 of 3", "gateway", "app-1, app-2"], id="role in force"
        ),
        pytest.param({"observers": {"runner": "ops-7", "prometheus": "app-1"}}, ["prometheus runs on app-1", "move prometheus outside"], id="prometheus"),
        pytest.param({"observers": {"runner": "APP-1.ldn.example", "prometheus": "outside"}}, ["runner runs on app-1"], id="the runner's host"),
        pytest.param({"observers": {"runner": "ops-7", "ledger": "app-1"}}, ["ledger runs on app-1"], id="the ledger's host"),
        pytest.param({"observers": {"prometheus": "outside"}}, ["where the runner itself runs is unknown"], id="runner unknown"),
        pytest.param({"unanswered": ("state of app-1: timed out",)}, ["no answer", "state of app-1: timed out"], id="no answer"),
    ],
)
def test_each_guard_refuses_in_words(change: dict[str, object], words: list[str]) -> None:
    """One thing that speaks against it gives one reason, which says what was found and what would allow it."""
    decision = decide(replace(FINE, **change))  # type: ignore[arg-type]
    assert not decision.allowed
    assert len(decision.reasons) == 1
    for word in words:
        assert word in decision.reasons[0]


def test_all_reasons_are_given_at_once() -> None:
    """Somebody who mends one thing does not meet the next one only then."""
    decision = decide(replace(FINE, tier="production", open_leases=("r0-a",), unanswered=("halt: disk full", "state of app-1: timed out")))
    assert len(decision.reasons) == 4


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"targets": ("db-1",), "limits": Limits(share_of_role=0.0)}, id="the only node of a role"),
        pytest.param({"limits": Limits(share_of_role=0.5)}, id="exactly the share"),
        pytest.param({"roles": THREE, "limits": Limits(share_of_role=1 / 3)}, id="exactly a third"),
        pytest.param({"nodes_in_force": ("app-1",)}, id="the same node again"),
        pytest.param({"targets": ("app-1", "db-1"), "limits": Limits(nodes_at_once=2)}, id="two where two are allowed"),
        pytest.param({"observers": {"runner": "app-1.nyc.example", "prometheus": "db-1"}, "targets": ("app-2",)}, id="observers on other nodes"),
        pytest.param(
            {"targets": (), "nodes_in_force": (), "limits": Limits(nodes_at_once=0), "observers": {"prometheus": "outside"}}, id="admission without targets"
        ),
    ],
)
def test_what_is_within_the_limits_is_allowed(change: dict[str, object]) -> None:
    """The limits may be reached; a role's only node may be hit, because its loss is what an experiment must be able to find out."""
    assert decide(replace(FINE, **change)).reasons == ()  # type: ignore[arg-type]


def test_an_unknown_place_of_prometheus_is_listed() -> None:
    """It does not refuse, and it is not silent either."""
    decision = decide(replace(FINE, observers={"runner": "ops-7"}))
    assert decision.allowed
    assert decision.not_configured[-1] == "prometheus location"


def test_two_hosts_of_the_same_first_name_in_two_domains_are_two() -> None:
    """Full names are compared in full; a short name may be either host, and refuses."""
    roles = {"app-1.ldn.example": ("gateway",)}
    facts = replace(FINE, roles=roles, targets=("app-1.ldn.example",))
    assert decide(replace(facts, observers={"runner": "app-1.nyc.example"})).allowed
    assert not decide(replace(facts, observers={"runner": "app-1"})).allowed
