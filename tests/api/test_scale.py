"""A cluster of 500 nodes: real API server, controllers and scheduler; kwok (kwok.sigs.k8s.io) plays the kubelets.

Calls and pages are counted, time is printed.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from frangible.environment import Limits
from frangible.guard import Facts, decide
from frangible.inventory import Environment, load_inventory
from frangible.platforms.kubernetes.client import Cluster
from frangible.platforms.kubernetes.platform import KubernetesPlatform
from frangible.targets import Choice, draw

from ..apiserver import ApiServer, Objects, listening

NODES, PODS = 500, 600
POOL = 20
"""Nodes that the gateway runs on."""
SPARE = 3
"""Pods of it that its budget lets go at once."""
QUICK = ("--kube-api-qps=1000", "--kube-api-burst=2000", "--leader-elect=false", "--secure-port=0")


@dataclass
class Estate:
    """500 nodes; a gateway of 600 pods on 20 of them, with a budget; a service of one pod."""

    api: ApiServer
    objects: Objects

    def fill(self) -> None:
        """Make it, and wait until the controllers have seen to it."""
        self.objects.namespace("frangible")
        self.objects.namespace("big")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._node, range(NODES)))
        budget = {"selector": {"matchLabels": {"app": "gateway"}}, "maxUnavailable": SPARE}
        from kubernetes.client import PolicyV1Api

        PolicyV1Api(self.objects.api).create_namespaced_pod_disruption_budget("big", {"metadata": {"name": "gateway"}, "spec": budget})
        for name, replicas in (("gateway", PODS), ("matching", 1)):
            self.objects.workload("deployment", "big", name, 0)
            starting = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]  # nobody takes that taint away again
            template = {"spec": {"nodeSelector": {"pool": "services"}, "tolerations": starting, "terminationGracePeriodSeconds": 0}}
            self.objects.apps.patch_namespaced_deployment(name, "big", {"spec": {"template": template, "replicas": replicas}})
        deadline = time.monotonic() + 200
        while self.ready() < PODS:
            assert time.monotonic() < deadline, f"{self.ready()} of {PODS} pods are ready"
            time.sleep(0.5)

    def ready(self) -> int:
        return int(self.objects.apps.read_namespaced_deployment_status("gateway", "big").status.ready_replicas or 0)

    def _node(self, number: int) -> None:
        name, labels = f"node-{number:03}", {"pool": "services" if number < POOL else "spare"}
        self.objects.core.create_node({"metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}}})
        capacity = {"cpu": "64", "memory": "256Gi", "pods": "250"}
        self.objects.core.patch_node_status(name, {"status": {"capacity": capacity, "allocatable": capacity}})


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """A server of its own: on the shared one controllers would play along in every test."""
    from kubernetes.config import new_client_from_config

    for api in listening(tmp_path_factory.mktemp("big") / "server"):
        config = str(api.kubeconfig())
        api.run("kube-controller-manager", f"--kubeconfig={config}", "--controllers=disruption-controller,replicaset-controller,deployment-controller", *QUICK)
        api.run("kube-scheduler", f"--kubeconfig={config}", *QUICK)
        api.run("kwok", f"--kubeconfig={config}", "--manage-all-nodes=true", "--node-lease-duration-seconds=0")
        made, began = Estate(api, Objects(new_client_from_config(config))), time.monotonic()
        made.fill()
        print(f"\n{NODES} nodes, {PODS} pods: made in {time.monotonic() - began:.1f} s")  # noqa: T201
        yield made


@dataclass
class Counted:
    """A platform, and what it asked."""

    platform: KubernetesPlatform
    calls: Counter[str] = field(default_factory=Counter)


@pytest.fixture
def opened(estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The environment of the estate; its requests are counted where they are made."""
    platform = {"kind": "kubernetes", "kubeconfig": str(estate.api.kubeconfig()), "namespaces": ["big"], "node-selector": "pool"}
    entry: dict[str, Any] = {"name": "big", "region": "london", "tier": "staging", "owner": {"team": "t"}, "platform": platform}
    entry |= {"services": [{"name": "gateway"}, {"name": "matching"}]}
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump({"environments": [entry]}))
    environment: Environment = load_inventory(path).get("big")
    counted, once = Counted(KubernetesPlatform(environment)), Cluster._once

    def counting(self: Cluster, method: Any, *more: Any) -> Any:
        counted.calls[method.__name__] += 1
        return once(self, method, *more)

    monkeypatch.setattr(Cluster, "_once", counting)
    return counted


def test_a_survey_takes_a_call_a_page(opened: Counted) -> None:
    """Nodes and pods come 500 a page, and nothing is asked node by node or pod by pod."""
    began = time.monotonic()
    found = opened.platform.survey()
    print(f"\nsurvey of {NODES} nodes and {PODS} pods: {time.monotonic() - began:.2f} s, {dict(opened.calls)}")  # noqa: T201
    assert len(found.nodes) == NODES
    assert sum("gateway" in node.roles for node in found.nodes) == POOL
    assert opened.calls == {
        "list_node": 1,
        "list_namespaced_pod": 2,
        "list_namespaced_deployment": 1,
        "list_namespaced_stateful_set": 1,
        "list_namespaced_daemon_set": 1,
    }


def test_targets_are_drawn_from_all_and_the_blast_radius_counts_all(opened: Counted) -> None:
    """The same seed draws the same nodes; what the limits allow of 500 nodes goes through, one more does not."""
    found = opened.platform.survey()
    choice = Choice(role="gateway", share=0.5, seed=7)
    targets, _ = draw(found, "node", choice, 1)
    again, _ = draw(opened.platform.survey(), "node", choice, 1)
    assert targets == again
    assert len(set(targets)) == POOL // 2
    roles = {node.name: node.roles for node in found.nodes}
    facts = {"environment": "big", "tier": "staging", "halt": None, "stop_for_run": None, "open_leases": (), "nodes_in_force": ()}
    limits = Limits(nodes_at_once=POOL, share_of_role=0.5)
    hit = tuple(target.name for target in targets)
    allowed = Facts(**facts, targets=hit, roles=roles, limits=limits, observers={"runner": "elsewhere"})  # type: ignore[arg-type]
    assert decide(allowed).allowed
    more = next(node.name for node in found.nodes if "gateway" in node.roles and node.name not in hit)
    refused = Facts(**facts, targets=(*hit, more), roles=roles, limits=limits, observers={"runner": "elsewhere"})  # type: ignore[arg-type]
    assert any(f"11 of {POOL} nodes of role gateway in big would be hit" in reason for reason in decide(refused).reasons)


def test_nodes_are_drained_side_by_side_within_the_budget(opened: Counted, estate: Estate) -> None:
    """The budget holds at every moment that a watch has seen; what is drained is what was there, and only what was cordoned is uncordoned."""
    drained = ("node-003", "node-011")
    before = {name: len(opened.platform.for_lease("scale-00").drained(name).pods) for name in drained}
    assert all(before.values())
    lowest: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            lowest.append(estate.ready())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: opened.platform.for_lease("scale-00").drain(name, 90.0), drained))
    took = time.monotonic() - began
    done.set()
    thread.join()
    print(f"\n{sum(before.values())} pods of 2 nodes of {NODES}, {SPARE} at once: {took:.1f} s, least ready {min(lowest)}, {dict(opened.calls)}")  # noqa: T201
    assert min(lowest) >= PODS - SPARE
    for name in drained:
        state = opened.platform.drained(name)
        assert (state.cordoned, state.by, state.pods) == (True, "scale-00", ())
        opened.platform.for_lease("scale-00").undrain(name)
        assert not opened.platform.drained(name).cordoned
