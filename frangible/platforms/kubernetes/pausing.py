"""Services of a cluster that are paused or killed: a pod on the node signals every process of their containers, and tells which it has stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from frangible.errors import PlatformError
from frangible.platforms import ServiceState
from frangible.platforms.kubernetes.labels import value
from frangible.platforms.kubernetes.pods import STALE, HelperPods, Job, Seen
from frangible.process import ContainerIdentity

__all__ = ["Pauses"]

KIND = "pause"
KILLED = 20.0
"""Seconds that a kill may take."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Pauses and kills the services of one environment."""

    pods: HelperPods

    def pause(self, node: str, name: str, seconds: float) -> None:
        """Stop every process of the containers that the service has on a node now, for at most `seconds`."""
        self.pods.start(Job(KIND, node, of=name, seconds=seconds, arguments=("--containers", ",".join(self._containers(node, name)))))

    def kill(self, node: str, name: str) -> None:
        """Kill every process of these containers at once."""
        self.pods.run(Job("kill", node, of=name, seconds=KILLED, arguments=("--containers", ",".join(self._containers(node, name)))))

    def resume(self, node: str, name: str) -> None:
        """Let go on what this lease has stopped; where the pod that did it has not said so, another sees to it."""
        if not self.pods.end(node, KIND, value(name)):
            self.pods.undo(node)

    def laid_over(self, state: ServiceState) -> ServiceState:
        """Return a service's state with what the pods tell of its containers: stopped is one whose every process is."""
        told = [self._told(seen) for seen in self.pods.all(state.node, KIND) if seen.of == value(state.name) and seen.alive]
        counts = {name: count for one in told for name, count in one.get("containers", {}).items()}
        stopped = tuple(one for one in state.processes if isinstance(one, ContainerIdentity) and _all(counts.get(_bare(one.container))))
        return replace(state, stopped=stopped, paused=bool(stopped) and len(stopped) == len(state.processes))

    def _containers(self, node: str, name: str) -> list[str]:
        """Return the ids of the containers that the service has on a node now."""
        looker = self.pods.looker
        here = [pod for pod in looker.pods_of(looker.workload(name)) if pod.node == node and pod.staying]
        ids = sorted(_bare(one.container) for pod in here for one in pod.identities())
        if not ids:
            raise PlatformError(f"environment {looker.environment.name}, service {name} on {node}: no container of it runs there")
        return ids

    def _told(self, seen: Seen) -> Mapping[str, Any]:
        """Return what a pod tells; raise where it has told nothing new for a while: its processes may be stopped, or not."""
        if (silent := self.pods.silent(seen)) > STALE:
            raise PlatformError(
                f"environment {self.pods.looker.environment.name}, node {seen.node}: pod {seen.name} has told nothing for {silent:.0f} s, "
                "so what is stopped is not known; is the node well?"
            )
        return seen.told


def _bare(container: str) -> str:
    """Return a container's id without the runtime's name before it."""
    return container.rpartition("/")[2]


def _all(count: object) -> bool:
    """Whether a count of processes and stopped ones says all."""
    return isinstance(count, list) and len(count) == 2 and count[0] == count[1] > 0
