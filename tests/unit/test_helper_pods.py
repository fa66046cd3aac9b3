"""What a cluster is asked to run for a fault, and what is read from its answers."""

import pytest

from frangible.platforms.kubernetes.burning import Sample, samples_in, utilisation
from frangible.platforms.kubernetes.drain import evictable
from frangible.platforms.kubernetes.pods import Job, Seen, manifest

LEASE = "20261126-1800-07-3fa9-abc123"


def test_a_helper_pod_is_pinned_bounded_and_labelled() -> None:
    """It goes to its node past every taint and scheduler, ends by itself, and is found by its labels."""
    pod = manifest(Job("pause", "node-1", of="risk", seconds=60.0, arguments=("--containers", "abc")), LEASE, "nyc", "image:1")
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    assert (spec["nodeName"], spec["restartPolicy"], spec["activeDeadlineSeconds"], spec["hostPID"]) == ("node-1", "Never", 90, True)
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert labels["app.kubernetes.io/managed-by"] == "frangible"
    assert (labels["frangible.io/run"], labels["frangible.io/lease"]) == (LEASE.rpartition("-")[0], LEASE)
    assert (labels["frangible.io/environment"], labels["frangible.io/node"], labels["frangible.io/of"]) == ("nyc", "node-1", "risk")
    command = spec["containers"][0]["command"]
    assert command == ["python3", "-m", "frangible.helper.pause", "--lease", LEASE, "--seconds", "60", "--containers", "abc"]


def test_a_burner_has_no_power_over_its_node() -> None:
    """It only reads the node's counters; its CPU limit is the ceiling of what it can burn."""
    pod = manifest(Job("burn", "node-1", of="cpu-1", seconds=60.0, node_access=False, node_cgroups=True, cpus=1.63), LEASE, "nyc", "image:1")
    container = pod["spec"]["containers"][0]
    assert not pod["spec"]["hostPID"]
    assert "privileged" not in container["securityContext"]
    assert container["resources"]["limits"]["cpu"] == "1630m"
    assert container["volumeMounts"] == [{"name": "cgroups", "mountPath": "/node/cgroups", "readOnly": True}]


@pytest.mark.parametrize(
    ("status", "alive", "hopeless"),
    [
        ({"phase": "Pending"}, True, False),
        ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, True, False),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}}}]}, True, True),
        ({"phase": "Failed", "reason": "OutOfcpu"}, False, True),
        ({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]}, False, False),
    ],
    ids=["new", "runs", "no-image", "no-room", "ended"],
)
def test_what_becomes_of_a_helper_pod_is_read_from_its_status(status: dict[str, object], alive: bool, hopeless: bool) -> None:
    """One that will never start is not waited for."""
    seen = Seen.of_item({"metadata": {"name": "p", "labels": {}}, "spec": {"nodeName": "node-1"}, "status": status})
    assert (seen.alive, seen.hopeless) == (alive, hopeless)


def pod(name: str, owner: str = "", phase: str = "Running", labels: dict[str, str] | None = None, mirror: bool = False) -> dict[str, object]:
    """A pod as the API lists it."""
    meta = {
        "namespace": "estate",
        "name": name,
        "uid": name,
        "labels": labels or {},
        "annotations": {"kubernetes.io/config.mirror": "1"} if mirror else {},
        "ownerReferences": [{"kind": owner, "controller": True}] if owner else [],
    }
    return {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": {"phase": phase}}


def test_a_drain_ends_what_would_come_back_elsewhere_and_names_what_would_not() -> None:
    """DaemonSets, the kubelet's own, ended ones and ours stay; a pod without a controller is told."""
    found = evictable(
        [
            pod("web", "ReplicaSet"),
            pod("db", "StatefulSet"),
            pod("agent", "DaemonSet"),
            pod("etcd", mirror=True),
            pod("done", "Job", phase="Succeeded"),
            pod("burner", labels={"app.kubernetes.io/managed-by": "frangible"}),
            pod("alone"),
        ]
    )
    assert [(str(one), one.controller) for one in found] == [("estate/web", "ReplicaSet"), ("estate/db", "StatefulSet"), ("estate/alone", "")]


def test_the_kubelets_counter_tells_the_utilisation() -> None:
    """Two samples are needed, and each has the node's own time."""
    text = "# HELP node_cpu_usage_seconds_total x\nnode_cpu_usage_seconds_total 36.5 1795716382714\nnode_memory_working_set_bytes 1 2\n"
    assert list(samples_in(text)) == [Sample(1795716382.714, 36.5)]
    assert utilisation([Sample(100.0, 10.0)], 2.0) is None
    assert utilisation([Sample(100.0, 10.0), Sample(110.0, 26.0)], 2.0) == 0.8
