"""Pods of frangible on a node of the environment, for what the API alone cannot do: stop processes by a signal, hold CPUs, cut the node off."""

from dataclasses import dataclass

from frangible.errors import PlatformError
from frangible.platforms import BurnerState
from frangible.platforms.kubernetes.survey import Looker
from frangible.process import Identity

__all__ = ["NodePods"]


@dataclass(frozen=True, slots=True)
class NodePods:
    """What pods of frangible do on the nodes of one environment."""

    looker: Looker

    @property
    def primitives(self) -> frozenset[str]:
        """Names of the primitives that they give, as the inventory says: none without `helper-image`."""
        return frozenset()

    def start_burner(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Hold the node's CPUs at a utilisation."""
        raise self._lacks(f"the CPUs of {node} cannot be held at {utilisation:.0%} for {seconds:g} s by {name}")

    def burner(self, node: str, name: str) -> BurnerState:
        """Look at one burner."""
        raise self._lacks(f"no burner {name} can be on {node}")

    def stop_burner(self, node: str, name: str) -> None:
        """End one burner."""
        raise self._lacks(f"no burner {name} can be on {node}")

    def burners(self, node: str) -> tuple[str, ...]:
        """Names of the node's burners that live."""
        raise self._lacks(f"no burner can be on {node}")

    def pause_service(self, node: str, name: str) -> None:
        """Stop every process of a service by a signal."""
        raise self._lacks(f"{name} on {node} cannot be paused")

    def resume_service(self, node: str, name: str, processes: tuple[Identity, ...], leave: tuple[Identity, ...]) -> None:
        """Let a service go on."""
        raise self._lacks(f"{name} on {node} cannot be paused, {len(processes)} of it, {len(leave)} left")

    def _lacks(self, what: str) -> PlatformError:
        return PlatformError(f"environment {self.looker.environment.name}: {what} on Kubernetes in this version")
