"""How nodes and services of an environment are reached: primitives that faults compose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from frangible.process import Identity

if TYPE_CHECKING:
    from frangible.inventory import Environment
    from frangible.locks import LockStore

__all__ = ["BurnerState", "LoadState", "NodeState", "Platform", "ServiceState", "open_platform"]


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the platform knows of one node right now."""

    name: str
    powered: bool
    instance: str
    """Changes at each power-on; empty while the node is off."""
    ready: bool
    """Whether everything that starts with the node has started."""
    processes: tuple[Identity, ...]
    """The node's live processes, where the platform can see them; on Kubernetes the environment's containers on it."""


@dataclass(frozen=True, slots=True)
class BurnerState:
    """What a burner on a node does right now."""

    name: str
    alive: bool
    """Whether any process of it lives."""
    achieved: float | None = None
    """Utilisation of the node's CPUs, 0 to 1, over the newest seconds; None before there are any, and when it has told nothing since."""
    average: float | None = None
    """The same over its whole life, without the seconds in which it came up."""
    duty: float | None = None
    """Share of the time in which it burns itself, 0 to 1."""
    processes: tuple[int, ...] = ()
    """Process ids, where the burner runs."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What the platform knows of one service (or middleware package) on one node right now."""

    node: str
    name: str
    running: bool
    ready: bool
    """Whether it answers."""
    instance: str
    """Changes at each start; empty while it does not run, or where the platform cannot tell."""
    processes: tuple[Identity, ...] = ()
    """Its live processes, where the platform can see them; on Kubernetes its containers."""
    paused: bool = False
    """Whether it runs and all of it is stopped by a signal."""
    stopped: tuple[Identity, ...] = ()
    """Those of `processes` that are stopped by a signal."""
    ready_after: float | None = None
    """Seconds from its last stop until it was ready again, where the platform measured that."""


@dataclass(frozen=True, slots=True)
class LoadState:
    """What an environment is offered right now."""

    rate: float
    """Orders (or whatever the environment takes) a second, as its load is set."""
    highest: float | None
    """The highest a second of the previous six months, where the inventory declares it."""


class Platform(Protocol):
    """Primitives of one environment. Every call has a deadline and raises `PlatformError`.

    `primitives` names those that this platform really has, for validation before anything starts.
    """

    kind: str
    primitives: frozenset[str]

    def survey(self) -> "Environment":
        """Return the environment with its nodes, roles and placement as they are right now: what targets are drawn from and guards judge by."""

    def observers(self) -> Mapping[str, str]:
        """Return where `runner`, `prometheus` and others that watch are right now: a node, a host, or `outside`; what is not known is left out."""

    def node(self, name: str) -> NodeState:
        """Look at one node."""

    def power_off(self, name: str) -> None:
        """Take a node away with everything that runs on it; it stays away. Idempotent. Primitive `power`."""

    def power_on(self, name: str) -> None:
        """Bring a node back. Idempotent. Primitive `power`."""

    def start_burner(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Hold the node's CPUs at a utilisation (0 to 1) for at most `seconds`. A name is started once and never again after its stop. Primitive `cpu`."""

    def burner(self, node: str, name: str) -> BurnerState:
        """Look at one burner. Primitive `cpu`."""

    def stop_burner(self, node: str, name: str) -> None:
        """End one burner with all its processes, also one that is just being started. Idempotent. Primitive `cpu`."""

    def burners(self, node: str) -> tuple[str, ...]:
        """Names of the node's burners that live. Primitive `cpu`."""

    def service(self, node: str, name: str) -> ServiceState:
        """Look at one service. Primitive `services`."""

    def stop_service(self, node: str, name: str, grace: float) -> None:
        """Have a service end by itself within `grace` seconds, else kill it; 0 kills at once. Idempotent. Primitive `services`.

        It stays stopped, unless a controller of the platform starts it again.
        """

    def start_service(self, node: str, name: str) -> None:
        """Start a service; it may not be ready yet when this returns. Idempotent. Primitive `services`."""

    def pause_service(self, node: str, name: str) -> None:
        """Stop every process of a service by a signal (SIGSTOP). Idempotent. Primitive `pause`."""

    def resume_service(self, node: str, name: str, processes: tuple[Identity, ...], leave: tuple[Identity, ...]) -> None:
        """Let a service and whatever lives of `processes` go on (SIGCONT), but nothing of `leave`. Idempotent. Primitive `pause`."""

    def load(self) -> LoadState:
        """Look at the load that is offered. Primitive `load`."""

    def set_load(self, rate: float) -> None:
        """Offer so many a second from now on. Idempotent. Primitive `load`."""

    def processes_gone(self, processes: tuple[Identity, ...]) -> bool:
        """Whether none of these processes of the environment is alive any more."""

    def put_lease_copy(self, target: str, lease_id: str, text: str) -> None:
        """Store a lease's copy durably where the target lives, outside what a fault takes down."""

    def delete_lease_copy(self, target: str, lease_id: str) -> None:
        """Remove a lease's copy; missing is fine."""

    def lease_copies(self) -> Mapping[str, str]:
        """Every lease copy of the environment: lease id to text."""

    def locks(self) -> "LockStore":
        """Where resource keys of this environment are held."""

    def facts(self) -> Mapping[str, str]:
        """What the environment is made of, for the fingerprint: kernel, OS, versions; dotted names, sorted."""


def open_platform(environment: "Environment") -> Platform:
    """Return the platform of an environment; imports only the one that its inventory entry names."""
    if environment.platform.kind == "hosts":
        from frangible.platforms.hosts import HostsPlatform

        return HostsPlatform(environment)
    from frangible.platforms.kubernetes.platform import KubernetesPlatform

    return KubernetesPlatform(environment)
