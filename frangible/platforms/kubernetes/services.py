"""Services of a cluster: the pods of one workload on one node. Stopping is a deletion; starting is the workload's controller's own affair."""

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from frangible.errors import PlatformError
from frangible.platforms import ServiceState
from frangible.platforms.kubernetes.client import Conflict, NotFound
from frangible.platforms.kubernetes.objects import Pod, Workload
from frangible.platforms.kubernetes.survey import Looker

__all__ = ["Services"]

MARGIN = 30.0
"""Seconds that the cluster has, beyond the pods' own grace, until it says that they are gone."""
HARD = 1
"""Seconds of grace for a kill, the fewest with which the kubelet still says when the containers have ended."""
LONGEST = 600.0
"""Seconds for which the time until it is ready again is measured."""


@dataclass(slots=True)
class Stopped:
    """One stop, and how long the workload then needed."""

    at: float
    """On the monotonic clock."""
    old: frozenset[str]
    """Uids of the pods that were stopped."""
    ready_before: int
    ready_after: float | None = None
    """Seconds until as many of the workload's pods were ready as before, without the old ones."""


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one environment."""

    looker: Looker
    _stopped: dict[tuple[str, str], Stopped] = field(default_factory=dict)

    def state(self, node: str, name: str) -> ServiceState:
        """Look at the service's pods on a node. Where none is left there it runs if the workload has all its pods elsewhere."""
        workload = self.looker.workload(name)
        pods = self.looker.pods_of(workload)
        here = [pod for pod in pods if pod.node == node and pod.staying]
        counted = here or [pod for pod in pods if pod.staying]
        running = [pod for pod in counted if pod.running]
        containers = tuple(identity for pod in here for identity in pod.identities())
        stopped = self._stopped.get((node, name))
        return ServiceState(
            node,
            name,
            running=bool(running) if here else bool(running) and len(running) >= workload.wanted,
            ready=bool(counted) and all(pod.ready for pod in counted) and (bool(here) or len(counted) >= workload.wanted),
            instance=",".join(sorted(f"{one.uid}/{one.container.rpartition('/')[2][:12]}" for one in containers)),
            processes=containers,
            ready_after=stopped.ready_after if stopped is not None else None,
        )

    def stop(self, node: str, name: str, grace: float) -> None:
        """Delete the pods, wait until the kubelet says that their containers have ended."""
        workload = self.looker.workload(name)
        pods = self.looker.pods_of(workload)
        old = [pod for pod in pods if pod.node == node and pod.staying]
        if not old:
            return
        uids = frozenset(pod.uid for pod in old)
        stopped = Stopped(time.monotonic(), uids, sum(pod.ready and pod.staying for pod in pods))
        seconds = math.ceil(grace) if grace > 0 else HARD
        for pod in old:
            self._delete(pod, seconds)
        self._stopped[node, name] = stopped
        threading.Thread(target=self._measure, args=(workload, stopped), name=f"ready-{name}", daemon=True).start()
        self._wait_gone(node, name, workload, uids, seconds + MARGIN)

    def start(self, node: str, name: str) -> None:
        """Leave it to the workload's controller; raise `PlatformError` where that is told to run none."""
        workload = self.looker.workload(name)
        if workload.wanted < 1:
            raise PlatformError(
                f"environment {self.looker.environment.name}, service {name} on {node}: {workload.reference} wants no pod; scale it to 1 or more"
            )

    def _delete(self, pod: Pod, seconds: int) -> None:
        """Delete this very pod: the uid keeps a successor of its name from being meant."""
        cluster = self.looker.cluster
        options = {"gracePeriodSeconds": seconds, "preconditions": {"uid": pod.uid}}
        try:
            cluster.ask(cluster.core.delete_namespaced_pod, pod.name, pod.namespace, body=options)
        except (NotFound, Conflict):
            return  # gone meanwhile, and perhaps replaced

    def _wait_gone(self, node: str, name: str, workload: Workload, uids: frozenset[str], seconds: float) -> None:
        for pods in self._following(workload, seconds):
            left = [pod.name for pod in pods if pod.uid in uids]
            if not left:
                return
        raise PlatformError(
            f"environment {self.looker.environment.name}, service {name} on {node}: {', '.join(left)} still there {seconds:g} s after the deletion; "
            f"is the kubelet of {node} well? `kubectl -n {workload.namespace} describe pod` tells"
        )

    def _measure(self, workload: Workload, stopped: Stopped) -> None:
        """Note when the workload is as ready as before; what cannot be seen is not measured."""
        try:
            for pods in self._following(workload, LONGEST):
                ready = [pod for pod in pods if pod.ready and pod.staying and pod.uid not in stopped.old]
                if len(ready) >= max(1, stopped.ready_before):
                    stopped.ready_after = round(time.monotonic() - stopped.at, 3)
                    return
        except PlatformError:
            return

    def _following(self, workload: Workload, seconds: float) -> Iterable[tuple[Pod, ...]]:
        cluster = self.looker.cluster
        following = cluster.follow(cluster.core.list_namespaced_pod, workload.namespace, label_selector=str(workload.selector), seconds=seconds)
        return (tuple(map(Pod.of, items)) for items in following)
