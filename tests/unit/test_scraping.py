"""Which pods of the cluster Prometheus is told to scrape, and how their series are labelled."""

from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from frangible.lab.services.scraping import targets


def pod(name: str, address: str | None = "10.0.0.1", phase: str = "Running", **container: Any) -> dict[str, Any]:
    containers = [{"name": "gateway", "ports": [{"name": "metrics", "containerPort": 8000}], **container}]
    labels = {"app.kubernetes.io/instance": "k8s-robust"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": "worker-1", "containers": containers},
        "status": {"phase": phase} | ({"podIP": address} if address else {}),
    }


def test_a_pod_carries_the_labels_that_the_same_service_carries_in_the_lab() -> None:
    """Environment, node, service and job: hypotheses and alerts know nothing else."""
    assert targets([pod("gateway-1")]) == [
        {"targets": ["10.0.0.1:8000"], "labels": {"environment": "k8s-robust", "node": "worker-1", "service": "gateway", "job": "gateway"}}
    ]


def test_what_is_told_that_it_is_outside_is_labelled_so() -> None:
    """The variable that the service itself reads decides."""
    [target] = targets([pod("generator-1", env=[{"name": "FRANGIBLE_NODE", "value": "outside"}])])
    assert target["labels"]["node"] == "outside"


def test_a_node_that_kubernetes_fills_in_is_the_node_of_the_pod() -> None:
    """A variable without a value of its own comes from the pod's own place."""
    [target] = targets([pod("gateway-1", env=[{"name": "FRANGIBLE_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}])])
    assert target["labels"]["node"] == "worker-1"


@pytest.mark.parametrize(
    "found",
    [pod("new", address=None, phase="Pending"), pod("done", phase="Succeeded"), pod("failed", phase="Failed"), pod("plain", ports=[])],
    ids=["no address yet", "ended", "failed", "no metrics"],
)
def test_what_cannot_be_scraped_is_no_target(found: dict[str, Any]) -> None:
    """A pod that nobody can reach is not down; it is not there."""
    assert targets([found]) == []


def test_the_order_of_pods_does_not_matter() -> None:
    """What the API lists first changes; the file must not."""
    one, other = pod("a", address="10.0.0.2"), pod("b", address="10.0.0.1")
    assert targets([one, other]) == targets([other, one])
