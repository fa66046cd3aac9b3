"""Draining a node with a real API server, which judges evictions by their budgets; what plays here is the kubelets and the disruption controller."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from frangible.actions.node_drain import NodeDrain
from frangible.errors import PlatformError, Refused
from frangible.fault import Target
from frangible.platforms import Platform, open_platform
from frangible.platforms.kubernetes.drain import CORDONED_BY

from ..apiserver import Kubelet, Objects
from .conftest import Declare

LEASE = "20261126-1800-07-3fa9-abc123"


def owned(objects: Objects, namespace: str, name: str, node: str, owner: str = "ReplicaSet", app: str = "web", **metadata: Any) -> None:
    """Make a running pod that a controller has made."""
    owners = [{"apiVersion": "apps/v1", "kind": owner, "name": app, "uid": f"uid-of-{app}", "controller": True}] if owner else []
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "web:1"}], "terminationGracePeriodSeconds": 1}
    body = {"metadata": {"name": name, "labels": {"app": app, **metadata.pop("labels", {})}, "ownerReferences": owners, **metadata}, "spec": spec}
    made = objects.core.create_namespaced_pod(namespace, body)
    objects.run(namespace, name, made.metadata.uid)


def budget(objects: Objects, namespace: str, name: str, allowed: int, app: str = "web") -> None:
    """Make a PodDisruptionBudget and say, as its controller would, how many may go now."""
    from kubernetes.client import PolicyV1Api

    policy = PolicyV1Api(objects.api)
    policy.create_namespaced_pod_disruption_budget(
        namespace, {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}}}
    )
    allow(objects, namespace, name, allowed)


def allow(objects: Objects, namespace: str, name: str, allowed: int) -> None:
    from kubernetes.client import PolicyV1Api

    status = {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2}
    PolicyV1Api(objects.api).patch_namespaced_pod_disruption_budget_status(name, namespace, {"status": status}, _content_type="application/merge-patch+json")


@pytest.fixture
def node(objects: Objects, name: str) -> str:
    objects.node(f"{name}-a")
    return f"{name}-a"


@pytest.fixture
def platform(declare: Declare) -> Platform:
    return open_platform(declare()).for_lease(LEASE)


def pods_on(objects: Objects, node: str) -> set[str]:
    return {pod.metadata.name for pod in objects.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items}


def marks(objects: Objects, node: str) -> tuple[bool, str]:
    """Whether a node is unschedulable, and the lease that says so."""
    found = objects.core.read_node(node)
    return bool(found.spec.unschedulable), (found.metadata.annotations or {}).get(CORDONED_BY, "")


def test_a_drain_ends_what_would_start_elsewhere_and_nothing_else(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """DaemonSets, the kubelet's own, ended pods and ours stay; the fault is proven by what is gone, and reverted by what it cordoned."""
    for number in range(20):
        owned(objects, name, f"web-{number}", node)
    owned(objects, name, "agent", node, owner="DaemonSet")
    owned(objects, name, "static", node, owner="", annotations={"kubernetes.io/config.mirror": "x"})
    owned(objects, name, "burner", node, owner="", labels={"app.kubernetes.io/managed-by": "frangible"})
    owned(objects, name, "done", node, owner="Job")
    objects.core.patch_namespaced_pod_status("done", name, {"status": {"phase": "Succeeded"}})
    fault, target = NodeDrain(deadline=60.0), Target("node", node)
    prior = fault.capture(platform, target)
    assert not fault.observe(platform, target, prior).real
    with Kubelet(objects, name, place=lambda _node: ""):
        fault.inject(platform, target, prior)
        seen = fault.observe(platform, target, prior)
    assert (seen.real, seen.detail) == (True, "cordoned; all 20 pods are gone")
    assert pods_on(objects, node) == {"agent", "static", "burner", "done"}
    assert marks(objects, node) == (True, LEASE)
    for _ in range(2):
        fault.revert(platform, target, prior)
        assert marks(objects, node) == (False, "")
        assert fault.observe_reverted(platform, target, prior).real


def test_a_budget_that_allows_none_fails_the_drain_at_its_deadline_and_is_named(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """What is not covered by it is evicted all the same; the node stays marked, so that the revert knows what to undo."""
    owned(objects, name, "web-1", node)
    owned(objects, name, "free-1", node, app="free")
    budget(objects, name, "strict", allowed=0)
    with Kubelet(objects, name, place=lambda _node: ""), pytest.raises(PlatformError, match=r"1 of its pods are still there.*web-1 .*disruption budget strict"):
        platform.drain(node, 3.0)
    assert pods_on(objects, node) == {"web-1"}
    assert marks(objects, node) == (True, LEASE)
    platform.undrain(node)
    assert marks(objects, node) == (False, "")


def test_a_budget_is_asked_again_until_it_allows(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """One at a time, each when the one before it is ready elsewhere: a drain waits, and gets through."""
    for number in range(3):
        owned(objects, name, f"web-{number}", node)
    budget(objects, name, "one-by-one", allowed=0)
    stop = threading.Event()

    def controller() -> None:
        while not stop.wait(0.3):
            allow(objects, name, "one-by-one", 1)

    playing = threading.Thread(target=controller)
    playing.start()
    try:
        with Kubelet(objects, name, place=lambda _node: ""):
            platform.drain(node, 60.0)
    finally:
        stop.set()
        playing.join()
    assert not pods_on(objects, node)


def test_what_a_person_has_cordoned_stays_cordoned(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """It was so before, so a revert leaves it so, and no mark of ours is ever on it."""
    owned(objects, name, "web-1", node)
    objects.core.patch_node(node, {"spec": {"unschedulable": True}}, _content_type="application/merge-patch+json")
    fault, target = NodeDrain(), Target("node", node)
    prior = fault.capture(platform, target)
    with Kubelet(objects, name, place=lambda _node: ""):
        fault.inject(platform, target, prior)
    assert fault.observe(platform, target, prior).real
    assert marks(objects, node) == (True, "")
    fault.revert(platform, target, prior)
    assert marks(objects, node) == (True, "")
    assert fault.observe_reverted(platform, target, prior).detail == "cordoned as before, by somebody else"


def test_a_node_that_another_lease_cordoned_is_neither_drained_nor_freed(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """Only who cordoned it may uncordon it."""
    owned(objects, name, "web-1", node)
    with Kubelet(objects, name, place=lambda _node: ""):
        platform.for_lease("another").drain(node, 30.0)
    with pytest.raises(Refused, match="drained already, for lease another"):
        NodeDrain().capture(platform, Target("node", node))
    platform.undrain(node)
    assert marks(objects, node) == (True, "another")


def test_somebody_uncordons_the_node_and_the_fault_is_no_longer_proven(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """The proof is looked for throughout the hold."""
    owned(objects, name, "web-1", node)
    fault, target = NodeDrain(), Target("node", node)
    prior = fault.capture(platform, target)
    with Kubelet(objects, name, place=lambda _node: ""):
        fault.inject(platform, target, prior)
    objects.core.patch_node(node, {"spec": {"unschedulable": None}}, _content_type="application/merge-patch+json")
    seen = fault.observe(platform, target, prior)
    assert (seen.real, "uncordoned" in seen.detail) == (False, True)
    fault.revert(platform, target, prior)
    assert marks(objects, node) == (False, "")


@pytest.mark.parametrize(("owner", "said"), [("DaemonSet", "no pods that a drain would evict"), ("", "nothing would start again: .*/web-1")])
def test_where_nothing_would_be_shown_or_something_lost_for_good_it_is_refused(
    objects: Objects, platform: Platform, name: str, node: str, owner: str, said: str
) -> None:
    """Before anything is done."""
    owned(objects, name, "web-1", node, owner=owner)
    with pytest.raises(Refused, match=said):
        NodeDrain().capture(platform, Target("node", node))
    assert marks(objects, node) == (False, "")


@contextmanager
def heartbeats(objects: Objects, node: str) -> Iterator[None]:
    """Write the node all the time, as its kubelet does, many times as often."""
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            objects.core.patch_node(node, {"metadata": {"labels": {"beat": str(number)}}}, _content_type="application/merge-patch+json")
            time.sleep(0.01)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_mark_and_flag_are_written_together_whoever_else_writes_the_node(objects: Objects, platform: Platform, name: str, node: str) -> None:
    """A write in between is a conflict, and then both are read and written anew."""
    owned(objects, name, "web-1", node)
    with heartbeats(objects, node), Kubelet(objects, name, place=lambda _node: ""):
        platform.drain(node, 60.0)
        assert marks(objects, node) == (True, LEASE)
        platform.undrain(node)
    assert marks(objects, node) == (False, "")


def test_a_user_who_may_not_evict_hears_so_at_once(objects: Objects, declare: Declare, name: str, node: str) -> None:
    """Asking again until the deadline would not help."""
    from kubernetes.client import RbacAuthorizationV1Api

    owned(objects, name, "web-1", node)
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    ]
    rbac = RbacAuthorizationV1Api(objects.api)
    rbac.create_cluster_role({"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "User", "name": "observer", "apiGroup": "rbac.authorization.k8s.io"}
    rbac.create_cluster_role_binding(
        {"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [subject]}
    )
    with pytest.raises(PlatformError, match=r"permission is missing.*pods/eviction"):
        open_platform(declare(user="observer")).for_lease(LEASE).drain(node, 300.0)
