"""How nodes and services of an environment are reached: primitives that faults compose."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from frangible.process import Identity

if TYPE_CHECKING:
    from frangible.inventory import Environment
    from frangible.locks import LockStore

__all__ = ["BurnerState", "CutState", "DrainState", "LoadState", "NodeState", "Platform", "RolloutState", "ServiceState", "open_platform"]


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


@dataclass(frozen=True, slots=True)
class DrainState:
    """Whether a node is drained right now."""

    node: str
    cordoned: bool
    """Whether nothing new is scheduled there, whoever wanted that."""
    by: str
    """The lease that it was cordoned for; empty when that was nobody of ours."""
    pods: tuple[str, ...]
    """Uids of the pods on it that a drain ends: not those of DaemonSets, of the kubelet itself, of ours, or ended ones."""
    alone: tuple[str, ...]
    """Names of those that nothing would start again elsewhere."""


@dataclass(frozen=True, slots=True)
class CutState:
    """Whether a node is cut off right now."""

    node: str
    heard: bool
    """Whether the platform hears of it: on Kubernetes, whether it is Ready."""
    by: str
    """The lease for which something of ours cuts it off; empty where nothing does."""
    cut: bool
    """Whether that has told that it does; it may be unable to tell while it does."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """What a service's controller is at right now."""

    workload: str
    """As an inventory names it."""
    pods: tuple[str, ...]
    """Uids of those that are not ending, sorted."""
    ready: int
    wanted: int
    complete: bool
    """Whether every pod is of the newest version and ready, as many as are wanted."""


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

    def forbidden(self, primitives: Iterable[str]) -> tuple[str, ...]:
        """Return what this user may not do that a run which injects by these primitives needs, and what would grant it; empty when all is allowed."""

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

    def pause_service(self, node: str, name: str, seconds: float) -> None:
        """Stop every process of a service by a signal (SIGSTOP), for at most `seconds` where the platform can see to that. Idempotent. Primitive `pause`."""

    def resume_service(self, node: str, name: str, processes: tuple[Identity, ...], leave: tuple[Identity, ...]) -> None:
        """Let a service and whatever lives of `processes` go on (SIGCONT), but nothing of `leave`. Idempotent. Primitive `pause`."""

    def load(self) -> LoadState:
        """Look at the load that is offered. Primitive `load`."""

    def set_load(self, rate: float) -> None:
        """Offer so many a second from now on. Idempotent. Primitive `load`."""

    def kill_service(self, node: str, name: str) -> None:
        """Kill every process of a service on a node at once (SIGKILL), as a crash does; what starts it again is the platform's affair. Primitive `kill`."""

    def rollout(self, service: str) -> RolloutState:
        """Look at the controller of a service. Primitive `rollout`."""

    def roll(self, service: str) -> None:
        """Have the controller of a service replace all of its pods, as for a new version. Once a lease. Primitive `rollout`."""

    def drained(self, node: str) -> DrainState:
        """Look whether a node is drained. Primitive `drain`."""

    def drain(self, node: str, seconds: float) -> None:
        """Cordon a node and evict its pods as their budgets allow; raise when some are left after `seconds`. Idempotent. Primitive `drain`."""

    def undrain(self, node: str) -> None:
        """Uncordon a node that this lease has cordoned, and no other. Idempotent. Primitive `drain`."""

    def cut_state(self, node: str) -> CutState:
        """Look whether a node is cut off. Primitive `cut`."""

    def cut(self, node: str, what: str, seconds: float) -> None:
        """Stop a node's `kubelet`, or drop its `network` traffic, for at most `seconds`, whoever is left to end it. Idempotent. Primitive `cut`."""

    def mend(self, node: str) -> None:
        """End what this lease has cut, and nothing else. Idempotent. Primitive `cut`."""

    def for_lease(self, lease_id: str) -> "Platform":
        """Return this platform as one whose marks and objects in the target name a lease; the same one where it makes none."""

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

    def variables(self) -> Mapping[str, str]:
        """Environment variables by which a program or a Chaos Toolkit extension reaches this environment and no other."""

    def facts(self) -> Mapping[str, str]:
        """What the environment is made of, for the fingerprint: kernel, OS, versions; dotted names, sorted."""


def open_platform(environment: "Environment") -> Platform:
    """Return the platform of an environment; imports only the one that its inventory entry names."""
    if environment.platform.kind == "hosts":
        from frangible.platforms.hosts import HostsPlatform

        return HostsPlatform(environment)
    from frangible.platforms.kubernetes.platform import KubernetesPlatform

    return KubernetesPlatform(environment)
