"""How nodes and services of an environment are reached: primitives that faults compose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from frangible.process import ProcessIdentity

if TYPE_CHECKING:
    from frangible.inventory import Environment
    from frangible.locks import LockStore

__all__ = ["NodeState", "Platform", "open_platform"]


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the platform knows of one node right now."""

    name: str
    powered: bool
    instance: str
    """Changes at each power-on; empty while the node is off."""
    ready: bool
    """Whether everything that starts with the node has started."""
    processes: tuple[ProcessIdentity, ...]
    """The node's live processes, where the platform can see them."""


class Platform(Protocol):
    """Primitives of one environment. Every call has a deadline and raises `PlatformError`.

    `primitives` names those that this platform really has, for validation before anything starts.
    """

    kind: str
    primitives: frozenset[str]

    def node(self, name: str) -> NodeState:
        """Look at one node."""

    def power_off(self, name: str) -> None:
        """Take a node away with everything that runs on it; it stays away. Idempotent. Primitive `power`."""

    def power_on(self, name: str) -> None:
        """Bring a node back. Idempotent. Primitive `power`."""

    def processes_gone(self, processes: tuple[ProcessIdentity, ...]) -> bool:
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
    from frangible.errors import PlatformError

    raise PlatformError(f"environment {environment.name}: platform {environment.platform.kind!r} is not available in this version; use 'hosts'")
