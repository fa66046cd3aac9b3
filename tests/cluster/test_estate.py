"""The estate in the real cluster: orders flow, a worker's loss is noticed and mended, and the robust environment is the one that stands it."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from .conftest import ROOT, Cluster, eventually

ENVIRONMENTS = {"k8s-robust", "k8s-fragile"}
WORKER = "frangible-worker"
ORDERS = 'sum by (environment) (rate(order_outcomes_total{outcome="in_time"}[5s]))'
ALL_UP = 'min by (environment) (up{environment!=""})'


def steady(cluster: Cluster) -> bool:
    """Whether every target answers and nearly all of 25 orders a second are in time, in both environments."""
    flowing, up = cluster.query(ORDERS), cluster.query(ALL_UP)
    return all(flowing.get(name, 0) > 24 and up.get(name) == 1 for name in ENVIRONMENTS)


@pytest.fixture
def steady_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with orders flowing; whatever a test does to a worker, it runs again afterwards."""
    eventually(lambda: steady(cluster), 120, "orders flow in both environments")
    yield cluster
    cluster.runtime("start", WORKER)
    eventually(lambda: cluster.ready(WORKER) == "True", 60, f"{WORKER} is Ready again")
    eventually(lambda: steady(cluster), 120, "orders flow in both environments again")


def test_orders_flow_and_are_stored_once_in_both_environments(steady_cluster: Cluster) -> None:
    """Generator, gateway, NATS, risk check, JetStream, execution, PostgreSQL and auditor work together, as in the lab."""
    exact = 'sum by (environment) (increase(orders_audited_total{result="exact"}[5s]))'
    wrong = 'sum by (environment) (orders_audited_total{result!="exact"})'
    eventually(lambda: all(steady_cluster.query(exact).get(name, 0) > 100 for name in ENVIRONMENTS), 30, "orders are audited")
    assert steady_cluster.query(wrong) == dict.fromkeys(ENVIRONMENTS, 0.0)


def test_the_robust_environment_has_one_of_each_on_each_worker_and_the_fragile_one_all_on_one(steady_cluster: Cluster) -> None:
    """Where the pods are is what makes the difference."""

    def places(namespace: str) -> dict[str, list[str]]:
        pods = steady_cluster.objects("pods", "-n", namespace)
        found: dict[str, list[str]] = {}
        for pod in pods:
            found.setdefault(pod["metadata"]["labels"]["app.kubernetes.io/name"], []).append(pod["spec"]["nodeName"])
        return {name: sorted(nodes) for name, nodes in found.items()}

    core, outside = {"nats": ["frangible-worker3"], "postgres": ["frangible-worker3"]}, {"generator": ["frangible-control-plane"]}
    services = ("gateway", "risk", "execution")
    assert places("robust") == {key: ["frangible-worker", "frangible-worker2"] for key in services} | core | outside
    assert places("fragile") == {key: ["frangible-worker"] for key in services} | core | outside


def test_a_killed_worker_is_noticed_and_only_the_fragile_environment_stops(steady_cluster: Cluster) -> None:
    """The runtime kills the node's container: NotReady within Kubernetes' grace, orders go on where the other worker has one of each; Ready when it is back."""
    began = time.time()
    steady_cluster.runtime("kill", WORKER)
    eventually(lambda: steady_cluster.ready(WORKER) == "Unknown", 60, f"{WORKER} is NotReady")
    eventually(lambda: steady_cluster.query(ORDERS).get("k8s-fragile", 0) == 0, 30, "no order is in time any more in the fragile environment")
    since = round(time.time() - began)
    in_time, all_of_them = (f"sum by (environment) (increase(order_outcomes_total{{{outcome}}}[{since}s]))" for outcome in ('outcome="in_time"', ""))
    share = {name: steady_cluster.query(in_time).get(name, 0) / offered for name, offered in steady_cluster.query(all_of_them).items()}
    assert share["k8s-robust"] > 0.97
    assert share["k8s-fragile"] < 0.5
    assert {"NodeDown", "OrdersLate"} <= firing(steady_cluster, "k8s-fragile")
    steady_cluster.runtime("start", WORKER)
    eventually(lambda: steady_cluster.ready(WORKER) == "True", 60, f"{WORKER} is Ready again")
    eventually(lambda: steady(steady_cluster), 120, "orders flow in both environments again")
    eventually(lambda: not firing(steady_cluster, "k8s-fragile"), 30, "no alert fires any more")


def firing(cluster: Cluster, environment: str) -> set[str]:
    """Return the names of the alerts that fire."""
    return {name for name in ("NodeDown", "OrdersLate") if environment in cluster.query(f'ALERTS{{alertname="{name}",alertstate="firing"}}')}


def offer(cluster: Cluster, namespace: str, rate: str) -> None:
    """Say in the ConfigMap how many orders a second are to be offered."""
    cluster.kubectl("-n", namespace, "patch", "configmap", "load", "--type", "merge", "-p", json.dumps({"data": {"rate": rate}}))


def late(cluster: Cluster) -> dict[str, float]:
    """Return how many orders have been late since the generators started."""
    return cluster.query('sum by (environment) (order_outcomes_total{outcome="late"})')


def test_the_generator_is_told_at_once_what_the_configmap_says(steady_cluster: Cluster) -> None:
    """A watch, not a mounted file: frangible sets the load and expects it to be offered."""
    try:
        offer(steady_cluster, "robust", "40")
        eventually(lambda: steady_cluster.query("generator_rate")["k8s-robust"] == 40, 10, "the generator offers 40 orders a second")
    finally:
        offer(steady_cluster, "robust", "25")
    eventually(lambda: steady_cluster.query("generator_rate")["k8s-robust"] == 25, 10, "the generator offers what it did before")


def test_twice_the_orders_are_too_many_for_the_fragile_environment_only(steady_cluster: Cluster) -> None:
    """Its risk check's container has a CPU limit that the kernel enforces."""
    before = late(steady_cluster)
    try:
        for namespace in ("robust", "fragile"):
            offer(steady_cluster, namespace, "50")
        eventually(lambda: late(steady_cluster)["k8s-fragile"] > before["k8s-fragile"] + 100, 60, "orders are late in the fragile environment")
        assert late(steady_cluster)["k8s-robust"] < before["k8s-robust"] + 25
    finally:
        for namespace in ("robust", "fragile"):
            offer(steady_cluster, namespace, "25")


def test_a_restart_of_nats_is_felt_for_a_moment_only_where_it_hands_over(steady_cluster: Cluster) -> None:
    """Where nobody reconnects, orders stop until the watchdogs have ended the services; there the containers are started again."""
    before = late(steady_cluster)
    for namespace in ("robust", "fragile"):
        steady_cluster.kubectl("-n", namespace, "delete", "pod", "-l", "app.kubernetes.io/name=nats", "--wait=false")
    eventually(lambda: late(steady_cluster)["k8s-fragile"] > before["k8s-fragile"] + 200, 60, "orders are late in the fragile environment")
    assert late(steady_cluster)["k8s-robust"] < before["k8s-robust"] + 75


def test_a_second_start_builds_and_creates_nothing(cluster: Cluster) -> None:
    """What runs is left alone."""
    before = cluster.runtime("ps", "--format", "{{.ID}}")
    done = subprocess.run([ROOT / "ci" / "cluster" / "cluster", "up"], capture_output=True, text=True, timeout=200)
    assert (done.returncode, "runs already" in done.stderr, "building" in done.stderr) == (0, True, False), done.stderr
    assert cluster.runtime("ps", "--format", "{{.ID}}") == before
