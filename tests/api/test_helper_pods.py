"""Helper pods with a real API server: what plays here is the kubelets, and the programs in the pods as far as the API sees them."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from frangible.actions.cpu_saturation import CpuSaturation
from frangible.actions.node_cut import NodeCut
from frangible.actions.process_pause import ProcessPause
from frangible.errors import PlatformError, Refused
from frangible.fault import Target
from frangible.platforms import Platform, open_platform

from ..apiserver import Objects
from .conftest import Declare

LEASE = "20261126-1800-07-3fa9-abc123"
MERGE = {"_content_type": "application/merge-patch+json"}

type Tell = Callable[[str, list[str]], dict[str, Any]]


class Node:
    """Plays one node for helper pods: starts each, has it tell what `tell` says, and ends it, saying that all is undone, when it is deleted."""

    def __init__(self, objects: Objects, node: str, tell: Tell, space: str = "frangible", exit_code: int = 0) -> None:
        self.objects, self.node, self.tell, self.space, self.exit_code = objects, node, tell, space, exit_code
        self.ran: list[str] = []
        """Kinds of jobs that were started."""
        self.commands: list[list[str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> "Node":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for pod in self._pods():
            self.objects.core.delete_namespaced_pod(pod.metadata.name, self.space, grace_period_seconds=0)

    def kill(self) -> None:
        """Lose every pod without a word, as a deletion by force does."""
        for pod in self._pods():
            self.objects.core.delete_namespaced_pod(pod.metadata.name, self.space, grace_period_seconds=0)

    def _pods(self) -> list[Any]:
        return list(self.objects.core.list_namespaced_pod(self.space, field_selector=f"spec.nodeName={self.node}").items)

    def _play(self) -> None:
        beat = 0
        while not self._stop.wait(0.1):
            beat += 1
            for pod in self._pods():
                kind = pod.metadata.labels["frangible.io/job"]
                if pod.metadata.uid not in self.ran:
                    self.ran.append(pod.metadata.uid)
                    self.commands.append(pod.spec.containers[0].command)
                self._play_one(pod, kind, beat)

    def _play_one(self, pod: Any, kind: str, beat: int) -> None:
        from kubernetes.client import ApiException

        name, ended = pod.metadata.name, pod.status.phase in {"Succeeded", "Failed"}
        try:
            if pod.metadata.deletion_timestamp is not None:
                if not ended:
                    self._status(name, kind, "Succeeded", {"terminated": {"exitCode": self.exit_code}})
                self.objects.core.delete_namespaced_pod(name, self.space, grace_period_seconds=0)
            elif kind == "undo" and not ended:
                self._status(name, kind, "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})
            elif not ended:
                self._status(name, kind, "Running", {"running": {}})
                told = json.dumps({"beat": beat, **self.tell(kind, pod.spec.containers[0].command)})
                self.objects.core.patch_namespaced_pod(name, self.space, {"metadata": {"annotations": {"frangible.io/told": told}}}, **MERGE)
        except ApiException as error:
            if error.status not in {404, 409}:
                raise

    def _status(self, name: str, kind: str, phase: str, state: dict[str, Any]) -> None:
        container = {"name": kind, "ready": True, "restartCount": 0, "image": "x", "imageID": "x", "state": state}
        self.objects.core.patch_namespaced_pod_status(name, self.space, {"status": {"phase": phase, "containerStatuses": [container]}}, **MERGE)

    @property
    def kinds(self) -> list[str]:
        """Jobs in the order in which they were started."""
        return [command[2].rpartition(".")[2] for command in self.commands]


def stops_all(kind: str, command: list[str]) -> dict[str, Any]:
    """What a pause tells: one process of each container, and stopped."""
    if kind != "pause":
        return {}
    return {"containers": {one: [1, 1] for one in command[command.index("--containers") + 1].split(",")}}


@pytest.fixture
def node(objects: Objects, name: str) -> str:
    objects.node(f"{name}-a")
    objects.workload("deployment", name, "risk", 2)
    for number in range(2):
        objects.pod(name, f"risk-{number}", f"{name}-a", app="risk")
    return f"{name}-a"


@pytest.fixture
def platform(declare: Declare) -> Platform:
    return open_platform(declare({"helper-image": "helper:1"}, services=[{"name": "risk"}])).for_lease(LEASE)


def test_helper_image_is_what_gives_the_primitives(declare: Declare) -> None:
    """Without it nothing can be done on a node, and validation says so beforehand."""
    needed = {"pause", "cpu", "cut"}
    assert not needed & open_platform(declare()).primitives
    assert needed <= open_platform(declare({"helper-image": "helper:1"})).primitives


def test_a_pause_is_what_its_pod_tells_of_the_services_containers(objects: Objects, platform: Platform, node: str) -> None:
    """Proven by every container of the service, gone with the pod, and nothing is done twice."""
    fault, target = ProcessPause(deadline=60.0), Target("service", f"{node}/risk")
    with Node(objects, node, stops_all) as played:
        prior = fault.capture(platform, target)
        fault.inject(platform, target, prior)
        fault.inject(platform, target, prior)
        seen = fault.observe(platform, target, prior)
        assert (seen.real, seen.detail) == (True, "its 2 containers are stopped")
        with pytest.raises(Refused, match="paused already"):
            fault.capture(platform, target)
        fault.revert(platform, target, prior)
        assert fault.observe_reverted(platform, target, prior).real
        assert played.kinds == ["pause"]


def test_a_pause_is_not_proven_while_a_process_of_it_goes_on(objects: Objects, platform: Platform, node: str) -> None:
    """One container of two, or one process of a container, is not all."""

    def stops_one(kind: str, command: list[str]) -> dict[str, Any]:
        told = stops_all(kind, command)
        told["containers"][min(told["containers"])] = [2, 1]
        return told

    fault, target = ProcessPause(deadline=60.0), Target("service", f"{node}/risk")
    with Node(objects, node, stops_one):
        prior = fault.capture(platform, target)
        fault.inject(platform, target, prior)
        seen = fault.observe(platform, target, prior)
        assert (seen.real, seen.detail) == (False, "1 of its 2 containers are not stopped")
        fault.revert(platform, target, prior)


def test_a_pod_that_has_fallen_silent_proves_neither_a_pause_nor_its_end(
    objects: Objects, platform: Platform, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it told last may be long over: its node may be dead, or cut off."""
    fault, target = ProcessPause(deadline=60.0), Target("service", f"{node}/risk")
    with Node(objects, node, lambda kind, command: {**stops_all(kind, command), "beat": 1}):
        prior = fault.capture(platform, target)
        fault.inject(platform, target, prior)
        assert fault.observe(platform, target, prior).real
        monkeypatch.setattr("frangible.platforms.kubernetes.pausing.STALE", 0.0)
        for look in (fault.observe, fault.observe_reverted):
            with pytest.raises(PlatformError, match="has told nothing for"):
                look(platform, target, prior)
        fault.revert(platform, target, prior)
        assert fault.observe_reverted(platform, target, prior).real


@pytest.mark.parametrize("exit_code", [None, 2, 137], ids=["killed", "could-not", "out-of-memory"])
def test_what_did_not_say_that_it_is_undone_is_undone_by_another(objects: Objects, platform: Platform, node: str, exit_code: int | None) -> None:
    """A pod that was killed, or failed at it, leaves its note on the node; a revert has it read."""
    fault, target = ProcessPause(deadline=60.0), Target("service", f"{node}/risk")
    with Node(objects, node, stops_all, exit_code=exit_code or 0) as played:
        prior = fault.capture(platform, target)
        fault.inject(platform, target, prior)
        if exit_code is None:
            played.kill()
        for _ in range(2):
            fault.revert(platform, target, prior)
        assert played.kinds == ["pause", "undo", "undo"]
        assert fault.observe_reverted(platform, target, prior).real


def test_an_image_that_is_not_there_is_told_at_once(objects: Objects, platform: Platform, node: str) -> None:
    """Nobody waits until the end for what will never start."""

    def play() -> None:
        while not stop.wait(0.1):
            for pod in objects.core.list_namespaced_pod("frangible", field_selector=f"spec.nodeName={node}").items:
                waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
                container = {"name": "pause", "ready": False, "restartCount": 0, "image": "x", "imageID": "", "state": waiting}
                objects.core.patch_namespaced_pod_status(pod.metadata.name, "frangible", {"status": {"containerStatuses": [container]}}, **MERGE)

    stop = threading.Event()
    thread = threading.Thread(target=play)
    thread.start()
    try:
        with pytest.raises(PlatformError, match=r"\(helper:1\) does not do its job: ErrImagePull: no such image"):
            platform.pause_service(node, "risk", 60.0)
    finally:
        stop.set()
        thread.join()
        for pod in objects.core.list_namespaced_pod("frangible", field_selector=f"spec.nodeName={node}").items:
            objects.core.delete_namespaced_pod(pod.metadata.name, "frangible", grace_period_seconds=0)


def test_a_cut_is_real_when_the_cluster_hears_nothing_and_gone_when_it_does(objects: Objects, platform: Platform, node: str) -> None:
    """The node's own addresses are cut; what the pod tells is no proof, what the cluster hears is."""
    objects.core.patch_node_status(
        node, {"status": {"addresses": [{"type": "InternalIP", "address": "10.9.8.7"}, {"type": "Hostname", "address": "a"}]}}, **MERGE
    )

    def hear(status: str) -> None:
        objects.core.patch_node_status(node, {"status": {"conditions": [{"type": "Ready", "status": status}]}}, **MERGE)

    def cuts(_kind: str, _command: list[str]) -> dict[str, Any]:
        hear("Unknown")
        return {"cut": True}

    fault, target = NodeCut("network", deadline=60.0), Target("node", node)
    with Node(objects, node, cuts) as played:
        prior = fault.capture(platform, target)
        fault.inject(platform, target, prior)
        assert fault.observe(platform, target, prior).real
        with pytest.raises(Refused, match=f"cut off already, for lease {LEASE}"):
            fault.capture(platform, target)
        assert played.commands[0][-5:-2] == ["network", "--addresses", "10.9.8.7"]
        fault.revert(platform, target, prior)
        assert not fault.observe_reverted(platform, target, prior).real
        hear("True")
        assert fault.observe_reverted(platform, target, prior).real
        assert not fault.observe(platform, target, prior).real
        assert played.kinds == ["cut"]


def test_cpus_are_held_as_the_burner_tells_and_it_ends_with_its_pod(objects: Objects, platform: Platform, node: str) -> None:
    """Within two points of what was asked for; a burner that is gone holds nothing."""
    fault, target = CpuSaturation(80.0, deadline=60.0), Target("node", node)
    achieved = [0.79]
    with Node(objects, node, lambda _kind, _command: {"achieved": achieved[0], "average": 0.8, "duty": 0.5}) as played:
        prior = fault.capture(platform, target)
        fault.inject(platform, target, prior)
        assert fault.observe(platform, target, prior).real
        with pytest.raises(Refused, match="saturated already"):
            fault.capture(platform, target)
        command = played.commands[0]
        assert command[command.index("--utilisation") :][:4] == ["--utilisation", "0.8", "--cpus", "4"]
        achieved[0] = 0.7
        for _ in range(200):
            if not fault.observe(platform, target, prior).real:
                break
        assert not fault.observe(platform, target, prior).real
        fault.revert(platform, target, prior)
        gone = fault.observe_reverted(platform, target, prior)
        assert (gone.real, gone.detail) == (True, "no burner left; it held the CPUs at 80.0% on average, asked for 80 %")  # no kubelet here tells
