"""Rollouts of a cluster's workloads: begun by an annotation of the pods' template, as `kubectl rollout restart` does it, and followed by the pods."""

from dataclasses import dataclass
from typing import Any

from frangible.platforms import RolloutState
from frangible.platforms.kubernetes.objects import Workload
from frangible.platforms.kubernetes.survey import KINDS, Looker

__all__ = ["RESTARTED_FOR", "Rollouts"]

RESTARTED_FOR = "frangible.io/restarted-for"
"""Annotation of a workload's pods: the lease for which they were replaced last. The same again begins nothing."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The rollouts of one environment, on behalf of one lease. Raises `PlatformError`."""

    looker: Looker
    lease: str

    def state(self, service: str) -> RolloutState:
        """Look at what runs a service, and at its pods."""
        workload = self.looker.workload(service)
        item = self._asked("read", workload)
        pods = [pod for pod in self.looker.pods_of(workload) if pod.staying]
        ready = sum(pod.ready for pod in pods)
        return RolloutState(
            workload=workload.reference,
            pods=tuple(sorted(pod.uid for pod in pods)),
            ready=ready,
            wanted=workload.wanted,
            complete=_settled(workload, item) and ready == len(pods) == workload.wanted,
        )

    def begin(self, service: str) -> None:
        """Have all pods replaced."""
        body = {"spec": {"template": {"metadata": {"annotations": {RESTARTED_FOR: self.lease}}}}}
        self._asked("patch", self.looker.workload(service), body)

    def _asked(self, verb: str, workload: Workload, *body: dict[str, Any]) -> dict[str, Any]:
        cluster = self.looker.cluster
        method = getattr(cluster.apps, f"{verb}_namespaced_{KINDS[workload.kind]}")
        return cluster.ask(method, workload.name, workload.namespace, *body).data


def _settled(workload: Workload, item: dict[str, Any]) -> bool:
    """Whether the controller has seen the newest template, and every pod is of it.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/#DeploymentStatus, likewise of the other two.
    """
    status = item.get("status") or {}
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return False
    updated = status.get("updatedNumberScheduled" if workload.kind == "daemonset" else "updatedReplicas", 0)
    if workload.kind == "statefulset" and status.get("updateRevision") == status.get("currentRevision"):
        return True  # a StatefulSet that was never rolled out counts no updated pods
    return bool(updated >= workload.wanted)
