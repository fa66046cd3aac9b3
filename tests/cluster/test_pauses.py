"""A service that is stopped, killed or rolled out, beside everything else in the cluster: real, gone afterwards, whoever dies in between."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from frangible.actions.process_pause import ProcessPause
from frangible.fault import Target
from frangible.platforms import open_platform

from ..lab.runs import Event
from .conftest import ROOT, eventually
from .ground import REPLICAS, Ground, experiment, prepared, processes_of, recovered, run, running

PAUSING = ROOT / "benchmarks" / "pausing"
"""Lets a process of frangible stop at a step."""
NODES = ("frangible-worker3", "frangible-control-plane")
"""What no other test takes away."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """On nodes that no other test takes away."""
    with prepared(tmp_path_factory.mktemp("ground"), *NODES) as made:
        yield made


def test_a_paused_service_stands_still_and_goes_on_afterwards(settled: Ground, tmp_path: Path) -> None:
    """Every process of it on the node is stopped, as the node's own process table says."""
    seen: list[int] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            seen.append(settled.stopped())

    running = len(settled.pods())
    ended = run(settled, tmp_path, experiment(tmp_path, "process_pause", "pause", service="web", name=settled.node, hold=4.0), look)
    assert seen == [running], ended.why
    assert [(one.injected, one.reverted, one.proven_share >= 0.95) for one in ended.record.proofs] == [(True, True, True)], ended.why


def test_a_liveness_probe_ends_a_pause_and_the_fault_is_no_longer_proven(settled: Ground, tmp_path: Path) -> None:
    """The kubelet kills what does not answer; what runs then was never paused."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
    http = {**probe, "httpGet": {"path": "/", "port": 8080}}
    del http["tcpSocket"]
    settled.apply(settled.service(livenessProbe=http))
    settled.kubectl("rollout", "status", "deployment/web", "-n", settled.namespace, "--timeout=120s")
    ended = run(settled, tmp_path, experiment(tmp_path, "process_pause", "pause", service="web", name=settled.node, hold=12.0))
    proof = ended.record.proofs[0]
    assert (proof.injected, proof.reverted, proof.proven_share < 0.95) == (True, True, True), proof
    settled.kubectl("rollout", "status", "deployment/web", "-n", settled.namespace, "--timeout=120s")


def test_a_pause_whose_pod_was_killed_is_undone_from_the_note_on_the_node(settled: Ground) -> None:
    """Deleted by force, its container is killed and cannot undo anything; the revert starts a pod that can."""
    fault, target = ProcessPause(deadline=120.0), Target("service", f"{settled.node}/web")
    platform = open_platform(settled.environment).for_lease(f"20261126-1800-07-3fa9-{secrets.token_hex(3)}")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    try:
        assert settled.stopped() == len(settled.pods())
        pods = settled.on_node("ps", "-eo", "pid,args")
        for line in pods.splitlines():
            if "frangible.helper.pause" in line:
                settled.on_node("kill", "-KILL", line.split()[0])
        settled.kubectl("delete", "pods", "-n", settled.environment.platform.namespace, "-l", f"frangible.io/environment={settled.namespace}", "--force")
        assert settled.stopped() == len(settled.pods())
    finally:
        fault.revert(platform, target, prior)
    assert fault.observe_reverted(platform, target, prior).real
    assert settled.stopped() == 0


KILLED_AT = {
    "admission": "supervisor:Journal.start:after",
    "copied, not injected": "runner:Ledger.begin_injecting:before",
    "injected, not recorded": "runner:Ledger.mark_injected:before",
    "effect": "",
    "reverting": "runner:KubernetesPlatform.resume_service:before",
    "reverted, not recorded": "runner:Ledger.mark_reverted:before",
}
"""Where one of a run's processes stops by itself, to be killed with all others; all are killed in the middle of the hold where none does."""


@pytest.mark.parametrize("step", KILLED_AT)
def test_a_run_that_is_killed_at_a_step_is_recovered_with_the_kubeconfig_alone(settled: Ground, tmp_path: Path, step: str) -> None:
    """Before anything was done, between doing and recording, and within the revert: another home leaves nothing of it."""
    effect = step == "effect"
    path = experiment(tmp_path, "process_pause", "pause", service="web", name=settled.node, hold=300.0 if effect else 2.0)
    lost = tmp_path / "lost"

    def there() -> bool:
        return settled.stopped() > 0 if effect else any(process.status() == psutil.STATUS_STOPPED for process in processes_of(lost))

    with running(settled, lost, path, FRANGIBLE_PAUSE_AT=KILLED_AT[step], PYTHONPATH=str(PAUSING)):
        eventually(there, 90, f"the run is at the step {step}")
    assert (settled.stopped() > 0) == (step in {"injected, not recorded", "effect", "reverting"})
    eventually(lambda: recovered(settled, tmp_path / "other"), 120, "recover has nothing left to do")


def uids(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def restarts(pods: list[dict[str, Any]]) -> int:
    """How often containers of these pods were started again."""
    return sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])


def test_a_rolling_restart_replaces_every_pod_and_is_over_when_all_are_ready(settled: Ground, tmp_path: Path) -> None:
    """Proven by new pods; what is there afterwards is whole, and none of it was there before."""
    everywhere = ["pods", "-n", settled.namespace]
    before = uids(settled.objects(*everywhere))
    ended = run(settled, tmp_path, experiment(tmp_path, "rolling_restart", "roll", service="web", hold=10.0))
    assert [(one.injected, one.reverted, one.proven_share >= 0.9) for one in ended.record.proofs] == [(True, True, True)], ended.why
    left = [pod for pod in settled.objects(*everywhere) if "deletionTimestamp" not in pod["metadata"]]
    assert (len(left), uids(left) & before) == (REPLICAS, set())


def test_a_kill_inside_the_containers_leaves_the_pods_where_they_are(settled: Ground, tmp_path: Path) -> None:
    """The kubelet has started the containers of that node again, and no other."""
    here = settled.pods()
    path = experiment(tmp_path, "container_kill", "kill_containers", service="web", name=settled.node, hold=6.0)
    ended = run(settled, tmp_path, path)
    assert [(one.injected, one.reverted, one.proven_share >= 0.95) for one in ended.record.proofs] == [(True, True, True)], ended.why
    after = settled.pods()
    assert uids(after) == uids(here)
    assert restarts(after) == restarts(here) + len(here)
