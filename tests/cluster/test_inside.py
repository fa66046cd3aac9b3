"""A runner inside the cluster, as deploy/runner has it: it knows where it is, and what it leaves when its pod is taken away is found from the cluster alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Cluster, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.nodes]
NAMESPACE, ENVIRONMENT, DRAINED, ELSEWHERE = "frangible", "k8s-robust", "frangible-worker2", "frangible-worker3"
IMAGE = os.environ.get("FRANGIBLE_ESTATE_IMAGE", "localhost/frangible/estate:1")
BEGINS, ENDS = 200.0, 240.0
"""Seconds until a run in the cluster has injected, and until one has ended, on a busy machine."""
EXPIRES = 240.0
"""Seconds after which the lease of an injector that nobody can reach may be reverted: its hold, its deadline, and a margin of two minutes."""


def experiment(node: str, hold: float) -> dict[str, Any]:
    """Drain one node of the robust environment. What is judged is what a busy machine does not break: the verdict is not what is tested."""
    arguments = {"name": node, "count": 1, "deadline": 20.0, "hold": hold}
    drain = {"type": "python", "module": "frangible.actions.node_drain", "func": "drain_nodes", "arguments": arguments}
    steady = {"type": "python", "module": "frangible.probes.steady_state", "func": "steady_state", "arguments": {"hypothesis": "rejects"}}
    return {
        "title": "A node is drained by a runner inside the cluster",
        "description": "For a test.",
        "controls": [{"name": "frangible", "provider": {"type": "python", "module": "frangible.control"}}],
        "extensions": [{"name": "frangible", "baseline": "10s", "baseline-limit": "90s", "settle": "1s"}],
        "steady-state-hypothesis": {
            "title": "Orders are not rejected",
            "probes": [{"type": "probe", "name": "rejects", "tolerance": True, "provider": steady}],
        },
        "method": [{"type": "action", "name": "drain", "provider": drain}],
        "rollbacks": [],
        "runtime": {"rollbacks": {"strategy": "always"}},
    }


def inventory(**platform: object) -> dict[str, Any]:
    """The robust environment, under its own name, so that its locks keep others out."""
    settings = {"kind": "kubernetes", "namespaces": ["robust"], "node-selector": "frangible.io/robust=true", "helper-image": IMAGE, **platform}
    names = {"gateway": "deployment/gateway", "risk": "deployment/risk", "execution": "deployment/execution"}
    return {
        "environments": [
            {
                "name": ENVIRONMENT,
                "region": "london",
                "tier": "staging",
                "owner": {"team": "environments-london"},
                "platform": settings,
                "prometheus": {"url": "http://prometheus.observing.svc:9090", "runs-on": "observing/deployment/prometheus"},
                "shares": ["frangible-workers"],
                "labels": {"environment": ENVIRONMENT},
                "services": [{"name": name, "workload": workload} for name, workload in names.items()],
            }
        ]
    }


class Runner:
    """Starts Jobs of deploy/runner, and removes them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder

    def start(self, node: str, method: dict[str, Any]) -> None:
        """Run an experiment by a runner on a node."""
        files = {"experiment.yaml": yaml.safe_dump(method), "inventory.yaml": yaml.safe_dump(inventory())}
        given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "frangible-run", "namespace": NAMESPACE}, "data": files}
        job = yaml.safe_load(self._cluster.kubectl("kustomize", str(ROOT / "deploy" / "runner")))
        pod = job["spec"]["template"]["spec"]
        pod["nodeName"] = node
        (container,) = pod["containers"]
        container["image"] = IMAGE
        container["env"][0]["value"] = ENVIRONMENT
        path = self._folder / "job.yaml"
        path.write_text(yaml.safe_dump_all([given, job]))
        self._cluster.kubectl("create", "-f", str(path))

    def pods(self) -> list[dict[str, Any]]:
        return self._cluster.objects("-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=frangible-runner")

    def ended(self) -> bool:
        return any(pod["status"]["phase"] in {"Succeeded", "Failed"} for pod in self.pods())

    def said(self) -> str:
        return self._cluster.kubectl("-n", NAMESPACE, "logs", "job/frangible-run")

    def remove(self) -> None:
        self._cluster.kubectl("-n", NAMESPACE, "delete", "job,configmap", "frangible-run", "--ignore-not-found", "--cascade=foreground")


@pytest.fixture
def runner(cluster: Cluster, tmp_path: Path) -> Iterator[Runner]:
    """With the access that `make cluster-deploy` has given."""
    made = Runner(cluster, tmp_path)
    made.remove()
    yield made
    made.remove()


def cordoned(cluster: Cluster, node: str) -> bool:
    return cluster.kubectl("get", "node", node, "-o", "jsonpath={.spec.unschedulable}") == "true"


def copies(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.objects("-n", NAMESPACE, "configmaps", "-l", "frangible.io/lease")


def test_a_runner_does_not_take_down_the_node_that_it_is_on(cluster: Cluster, runner: Runner) -> None:
    """It is told by its own pod where that is; nothing was done when it ends."""
    runner.start(DRAINED, experiment(DRAINED, hold=20.0))
    eventually(runner.ended, ENDS, "the run ends")
    said = runner.said()
    assert f"not injecting: runner runs on {DRAINED}, which would be hit" in " ".join(said.split()), said
    assert not cordoned(cluster, DRAINED)
    assert not copies(cluster)


@pytest.mark.timeout(600)
def test_what_a_deleted_runner_left_is_reverted_from_the_cluster_alone(cluster: Cluster, runner: Runner, tmp_path: Path) -> None:
    """Its processes are killed without a word, then its pod is removed, and journal and ledger with it; the lease's copy is enough for another machine."""
    runner.start(ELSEWHERE, experiment(DRAINED, hold=20.0))
    eventually(lambda: cordoned(cluster, DRAINED) or runner.ended(), BEGINS, "the node is drained")
    assert cordoned(cluster, DRAINED), runner.said()
    # A pod that is deleted, also by force, is told to end and reverts; and while its first process lives, that reverts. With it all of them end at once.
    cluster.runtime("exec", ELSEWHERE, "sh", "-c", "kill -9 $(pgrep -o -f 'frangible.cli run /run-files')")
    runner.remove()
    assert cordoned(cluster, DRAINED)
    assert copies(cluster)
    own = tmp_path / "inventory.yaml"
    own.write_text(yaml.safe_dump(inventory(kubeconfig=str(cluster.cache / "kubeconfig"))))
    environment = {**os.environ, "FRANGIBLE_HOME": str(tmp_path / "home")}

    def recovered() -> bool:
        command = [sys.executable, "-m", "frangible.cli", "recover", "--inventory", str(own)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return done.returncode == 0 and not cordoned(cluster, DRAINED)

    eventually(recovered, EXPIRES, "the lease has expired and is reverted")
    assert not copies(cluster)
    eventually(lambda: len(cluster.objects("-n", "robust", "pods", f"--field-selector=spec.nodeName={DRAINED},status.phase=Running")) >= 3, 60, "pods are back")
