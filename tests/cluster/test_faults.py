"""Faults that take a node away: each is real, each is gone afterwards, whoever dies in between, and nothing of it is left in cluster or node."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..lab.runs import Event
from .conftest import eventually
from .ground import REPLICAS, Ground, experiment, prepared, recovered, run, running

pytestmark = pytest.mark.nodes


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """On two workers."""
    with prepared(tmp_path_factory.mktemp("ground"), "frangible-worker", "frangible-worker2") as made:
        yield made


def test_a_budget_that_allows_nothing_fails_the_drain_and_frees_the_node(settled: Ground, tmp_path: Path) -> None:
    """A person is told which budget it was; nobody has to uncordon anything."""
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "strict", "namespace": settled.namespace},
        "spec": {"minAvailable": REPLICAS, "selector": {"matchLabels": {"app": "web"}}},
    }
    settled.apply(budget)
    status = ["get", "poddisruptionbudget", "strict", "-n", settled.namespace, "-o", "jsonpath={.status.expectedPods}"]
    eventually(lambda: settled.kubectl(*status) == str(REPLICAS), 30, "the budget counts the pods")
    before = {pod["metadata"]["uid"] for pod in settled.pods()}
    try:
        ended = run(settled, tmp_path, experiment(tmp_path, "node_drain", "drain_nodes", name=settled.node, deadline=5.0, hold=4.0))
    finally:
        settled.kubectl("delete", "poddisruptionbudget", "strict", "-n", settled.namespace)
    told = json.dumps(ended.events)
    assert "disruption budget strict" in told, ended.why
    assert not any(proof.injected for proof in ended.record.proofs)
    assert {pod["metadata"]["uid"] for pod in settled.pods()} == before


def test_a_node_whose_kubelet_is_stopped_is_not_ready_and_comes_back(settled: Ground, tmp_path: Path) -> None:
    """The hold begins when the cluster has noticed; the revert reaches the node all the same. Its network is cut by the shipped experiment."""
    seen: list[str] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            conditions = settled.node_object()["status"]["conditions"]
            seen.append(next(one["status"] for one in conditions if one["type"] == "Ready"))

    ended = run(settled, tmp_path, experiment(tmp_path, "node_cut", "cut_nodes", what="kubelet", name=settled.node, hold=3.0), look)
    assert seen == ["Unknown"], ended.why
    assert [(one.injected, one.reverted, one.proven_share >= 0.9) for one in ended.record.proofs] == [(True, True, True)], ended.why


def test_cpus_are_held_at_what_is_asked_for(settled: Ground, tmp_path: Path) -> None:
    """Half of one CPU is declared; the node, which is a container, is brought to 80 % of that, and the fault says so itself."""
    measured: list[str] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] in {"proven", "reverted"}:
            measured.append(event["detail"])

    ended = run(settled, tmp_path, experiment(tmp_path, "cpu_saturation", "saturate_cpus", utilisation=80.0, name=settled.node, hold=15.0), look)
    assert [(one.injected, one.reverted) for one in ended.record.proofs] == [(True, True)], ended.why
    assert any(said.startswith("CPUs at ") for said in measured), measured
    assert "on average, asked for 80 %" in measured[-1], measured


MIDDLE: dict[str, tuple[str, str, dict[str, object]]] = {
    "node-drain": ("node_drain", "drain_nodes", {"deadline": 120.0, "hold": 300.0}),
    "node-cut": ("node_cut", "cut_nodes", {"what": "network", "hold": 300.0}),
}


@pytest.mark.parametrize("kind", MIDDLE)
def test_what_a_lost_operator_leaves_behind_is_recovered_with_the_kubeconfig_alone(settled: Ground, tmp_path: Path, kind: str) -> None:
    """Every process of the run is killed in the middle of the hold; another home, with another ledger, finds the lease in the cluster and reverts it."""
    module, func, arguments = MIDDLE[kind]
    path = experiment(tmp_path, module, func, name=settled.node, **arguments)
    lost, other = tmp_path / "lost", tmp_path / "other"
    with running(settled, lost, path):
        eventually(lambda: bool(settled.leases()), 150, "a lease")
        in_force = {
            "node-drain": lambda: bool(settled.node_object()["spec"].get("unschedulable")) and not settled.pods(),
            "node-cut": lambda: "frangible" in settled.on_node("nft", "list", "tables"),
        }
        eventually(in_force[kind], 120, "the fault is in force")
    assert in_force[kind]()
    eventually(lambda: recovered(settled, other), 120, "recover has nothing left to do")
