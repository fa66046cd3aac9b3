"""Rollouts of a cluster's workloads: begun by an annotation of the pods' template, as `kubectl rollout restart` does it, and followed by the pods."""

from dataclasses import dataclass

from frangible.platforms import RolloutState
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
        pods = [pod for pod in self.looker.pods_of(workload) if pod.staying]
        ready = sum(pod.ready for pod in pods)
        return RolloutState(
            workload=workload.reference,
            pods=tuple(sorted(pod.uid for pod in pods)),
            ready=ready,
            wanted=workload.wanted,
            complete=workload.settled and ready == len(pods) == workload.wanted,
        )

    def begin(self, service: str) -> None:
        """Have all pods replaced."""
        workload, cluster = self.looker.workload(service), self.looker.cluster
        body = {"spec": {"template": {"metadata": {"annotations": {RESTARTED_FOR: self.lease}}}}}
        cluster.ask(getattr(cluster.apps, f"patch_namespaced_{KINDS[workload.kind]}"), workload.name, workload.namespace, body)
