"""Which targets a choice means, and how they are drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frangible.environment import Environment
from frangible.errors import Refused
from frangible.targets import Choice, candidates, draw

ENVIRONMENT = Environment.model_validate(
    {
        "name": "estate",
        "region": "london",
        "tier": "staging",
        "owner": {"team": "t"},
        "platform": {"kind": "hosts", "root": "/r", "locks": "/l"},
        "nodes": [
            {"name": "app-1", "roles": ["gateway", "execution"]},
            {"name": "app-2", "roles": ["gateway", "execution"]},
            {"name": "app-3", "roles": ["gateway"]},
            {"name": "core-1", "roles": ["nats"]},
        ],
        "services": [{"name": "execution", "role": "execution"}, {"name": "gateway", "role": "gateway", "nodes": ["app-1"]}],
        "middleware": [{"name": "nats", "nodes": ["core-1"]}],
    },
    by_name=True,
)


@pytest.mark.parametrize(
    ("kind", "choice", "names"),
    [
        pytest.param("node", Choice(), ["app-1", "app-2", "app-3", "core-1"], id="every node"),
        pytest.param("node", Choice(role="execution"), ["app-1", "app-2"], id="nodes of a role"),
        pytest.param("node", Choice(role="execution", name="app-2"), ["app-2"], id="role and name"),
        pytest.param("service", Choice(service="nats"), ["core-1/nats"], id="middleware is a service"),
        pytest.param("service", Choice(service="gateway"), ["app-1/gateway", "app-2/gateway", "app-3/gateway"], id="a service by its role"),
        pytest.param("service", Choice(name="app-1"), ["app-1/execution", "app-1/gateway"], id="all services of a node"),
        pytest.param("load", Choice(role="execution"), ["estate"], id="the load is one target"),
    ],
)
def test_a_choice_means_what_matches_all_of_it(kind: str, choice: Choice, names: list[str]):
    assert [target.name for target in candidates(ENVIRONMENT, kind, choice)] == names


@pytest.mark.parametrize(
    ("share", "count"), [(1.0, 4), (0.5, 2), (0.3, 1), (0.01, 1), (0.75, 3)], ids=["all", "half", "rounded down", "at least one", "three quarters"]
)
def test_a_share_is_rounded_down_to_at_least_one(share: float, count: int):
    targets, _ = draw(ENVIRONMENT, "node", Choice(share=share), 1)
    assert len(targets) == count


@pytest.mark.parametrize("choice", [Choice(count=5), Choice(count=0), Choice(role="risk")], ids=["too many", "none", "no such role"])
def test_what_cannot_be_drawn_is_refused(choice: Choice):
    with pytest.raises(Refused, match="estate"):
        draw(ENVIRONMENT, "node", choice, 1)


@given(seed=st.integers(1, 2**31 - 1), count=st.integers(1, 4))
def test_a_draw_has_no_target_twice_and_its_seed_draws_it_again(seed: int, count: int):
    targets, used = draw(ENVIRONMENT, "node", Choice(count=count), seed)
    assert used == seed
    assert len(set(targets)) == count
    assert draw(ENVIRONMENT, "node", Choice(count=count), seed)[0] == targets


@given(seed=st.integers(1, 2**31 - 1), other=st.integers(1, 2**31 - 1))
def test_a_choice_with_a_seed_of_its_own_keeps_it(seed: int, other: int):
    choice = Choice(count=2, seed=seed)
    assert draw(ENVIRONMENT, "node", choice, other) == draw(ENVIRONMENT, "node", Choice(count=2), seed)


def test_a_service_knows_its_node():
    (target,) = candidates(ENVIRONMENT, "service", Choice(service="nats"))
    assert (target.node, target.service, str(target)) == ("core-1", "nats", "service core-1/nats")
