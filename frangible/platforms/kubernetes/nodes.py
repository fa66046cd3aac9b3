"""Nodes of a cluster: what the power driver and the API say of one, and taking it away and bringing it back."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from frangible.errors import PlatformError
from frangible.platforms import NodeState
from frangible.platforms.kubernetes.survey import Looker
from frangible.platforms.power import CommandDriver, ContainerDriver, PowerDriver
from frangible.process import ContainerIdentity, Identity

if TYPE_CHECKING:
    from frangible.environment import PowerSettings

__all__ = ["Nodes", "power_driver"]


def power_driver(environment: str, settings: "PowerSettings | None") -> PowerDriver | None:
    """Return what switches the nodes: the user's commands, or the runtime of nodes that are containers."""
    if settings is None:
        return None
    if settings.runtime is not None:
        return ContainerDriver(environment, settings.runtime)
    return CommandDriver(environment, settings.on, settings.off, settings.state)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of one environment."""

    looker: Looker
    power: PowerDriver | None

    def state(self, name: str) -> NodeState:
        """Look at one node. Whether it has power is the driver's word, and stays so while the API server is away: a fault's proof and revert need no more."""
        if self.power is None:
            return self._seen(name, NodeState(name, powered=True, instance="", ready=False, processes=()))
        switched = self.power.state(name)
        if not switched.powered:
            return switched
        with contextlib.suppress(PlatformError):
            return self._seen(name, switched)
        return replace(switched, ready=False)

    def off(self, name: str) -> None:
        """Take it away."""
        self._driver(name).off(name)

    def on(self, name: str) -> None:
        """Bring it back."""
        self._driver(name).on(name)

    def gone(self, identities: tuple[Identity, ...]) -> bool:
        """Whether none of these containers lives: its node has no power, or a kubelet that is there says that it ended.

        Raises `PlatformError` where neither is known: what a silent kubelet said last proves nothing.
        """
        containers = [identity for identity in identities if isinstance(identity, ContainerIdentity)]
        if len(containers) != len(identities):
            raise PlatformError(f"environment {self._name} is on Kubernetes, and was asked about processes of hosts; use the inventory of that time")
        nodes = {container.node for container in containers}
        dark = {node for node in nodes if self.power is not None and not self.power.state(node).powered}
        left = [container for container in containers if container.node not in dark]
        if not left:
            return True
        for node in nodes - dark:
            if not self.looker.node(node).ready:
                raise PlatformError(f"environment {self._name}, node {node}: its kubelet is silent, so whether its containers still run is not known")
        return not {container.container for container in left} & self._running(container.pod.partition("/")[0] for container in left)

    @property
    def _name(self) -> str:
        return self.looker.environment.name

    def _running(self, namespaces: Iterable[str]) -> set[str]:
        """Ids of every container that runs in these namespaces."""
        pods = (pod for namespace in set(namespaces) for pod in self.looker.pods(namespace))
        return {one.container for pod in pods for one in pod.identities()}

    def _seen(self, name: str, switched: NodeState) -> NodeState:
        """Add what the API says: readiness, the boot, and the environment's containers there."""
        node = self.looker.node(name)
        here = [pod for namespace in self.looker.namespaces() for pod in self.looker.pods(namespace, fields=f"spec.nodeName={name}")]
        containers = tuple(identity for pod in here for identity in pod.identities())
        return replace(switched, instance=switched.instance or node.boot, ready=node.ready, processes=containers)

    def _driver(self, name: str) -> PowerDriver:
        if self.power is None:
            raise PlatformError(f"environment {self._name}: node {name!r} cannot be switched: declare `platform.power` in the inventory")
        return self.power
