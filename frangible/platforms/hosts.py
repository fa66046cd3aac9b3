"""Environments on hosts: nodes behind a power driver, lease copies and lock files through a transport."""

import difflib
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from frangible.errors import PlatformError
from frangible.platforms import BurnerState, CutState, DrainState, LoadState, NodeState, RolloutState, ServiceState
from frangible.platforms.asking import THIS_HOST, Host
from frangible.platforms.burning import BurnerDriver, HostBurners, RackBurners
from frangible.platforms.loading import CommandLoad, LoadDriver, RackLoad
from frangible.platforms.power import CommandDriver, PowerDriver, RackDriver
from frangible.platforms.services import CommandServices, RackServices, ServiceDriver
from frangible.platforms.transports import LocalTransport, Transport
from frangible.process import Identity, ProcessIdentity, host_processes

if TYPE_CHECKING:
    from frangible.inventory import Environment
    from frangible.locks import LockStore

__all__ = ["HostsPlatform"]

LEASES = "leases"
BURNERS = "burners"
SUFFIX = ".json"


class HostsPlatform:
    """The primitives of one environment whose nodes are hosts (in the lab: supervised process trees)."""

    kind = "hosts"

    def __init__(self, environment: "Environment") -> None:
        """Choose transport and power driver as the inventory says; nothing is reached yet."""
        self.environment = environment
        self.transport: Transport = LocalTransport()
        self.host: Host = THIS_HOST
        if environment.platform.ssh is not None:
            from frangible.platforms.ssh import SshTransport

            self.transport = self.host = SshTransport(environment.platform.ssh)
        self.power = self._power()
        self.burning = self._burning()
        self.services = self._switching()
        self.loading = self._loading()
        offered = {
            "power": self.power is not None,
            "cpu": self.burning is not None,
            "load": self.loading is not None,
            "services": self.services is not None,
            "pause": self.services is not None and self.services.can_pause,
        }
        self.primitives = frozenset(name for name, there in offered.items() if there)

    def survey(self) -> "Environment":
        """Return the environment as it is declared: hosts stay where they are."""
        return self.environment

    def observers(self) -> Mapping[str, str]:
        """Return this host, which the run is on, and where the inventory says that Prometheus is."""
        prometheus = self.environment.prometheus
        found = {"runner": socket.gethostname()}
        return found if prometheus is None or not prometheus.runs_on else found | {"prometheus": prometheus.runs_on}

    def forbidden(self, primitives: Iterable[str]) -> tuple[str, ...]:  # noqa: ARG002 - no operating system is asked beforehand
        """Return nothing: files and commands say no when they are used, and `frangible doctor` uses them."""
        return ()

    def node(self, name: str) -> NodeState:
        """Look at one node through its power driver."""
        return self._driver(name).state(name)

    def power_off(self, name: str) -> None:
        """Take a node away; it stays away."""
        self._driver(name).off(name)

    def power_on(self, name: str) -> None:
        """Bring a node back."""
        self._driver(name).on(name)

    def start_burner(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Hold the node's CPUs at a utilisation."""
        self._burners(node).start(node, name, utilisation, seconds)

    def burner(self, node: str, name: str) -> BurnerState:
        """Look at one burner."""
        return self._burners(node).look(node, name)

    def stop_burner(self, node: str, name: str) -> None:
        """End one burner."""
        self._burners(node).stop(node, name)

    def burners(self, node: str) -> tuple[str, ...]:
        """Names of the node's burners that live."""
        return self._burners(node).running(node)

    def service(self, node: str, name: str) -> ServiceState:
        """Look at one service through its driver."""
        return self._services(node, name).state(node, name)

    def stop_service(self, node: str, name: str, grace: float) -> None:
        """End a service, within `grace` seconds by itself or at once; it stays stopped."""
        self._services(node, name).stop(node, name, grace)

    def start_service(self, node: str, name: str) -> None:
        """Start a service."""
        self._services(node, name).start(node, name)

    def pause_service(self, node: str, name: str, seconds: float) -> None:  # noqa: ARG002 - a stopped process stays so until somebody lets it go on
        """Stop every process of a service by a signal."""
        self._services(node, name).pause(node, name)

    def resume_service(self, node: str, name: str, processes: tuple[Identity, ...], leave: tuple[Identity, ...]) -> None:
        """Let a service go on."""
        self._services(node, name).resume(node, name, self._of_hosts(processes), self._of_hosts(leave))

    def load(self) -> LoadState:
        """Look at the load that is offered."""
        highest = self.environment.volume.highest_per_second if self.environment.volume else None
        return LoadState(self._load().rate(), highest)

    def set_load(self, rate: float) -> None:
        """Offer so many a second."""
        self._load().set(rate)

    def kill_service(self, node: str, name: str) -> None:
        """Hosts have no containers that would be started again: a hard restart kills."""
        raise self._never(f"the containers of {name} killed", node)

    def rollout(self, service: str) -> RolloutState:
        """Hosts have no controllers."""
        raise self._never("rolled out", service)

    def roll(self, service: str) -> None:
        """Hosts have no controllers."""
        raise self._never("rolled out", service)

    def drained(self, node: str) -> DrainState:
        """Hosts have no scheduler."""
        raise self._never("drained", node)

    def drain(self, node: str, seconds: float) -> None:
        """Hosts have no scheduler."""
        raise self._never(f"drained within {seconds:g} s", node)

    def undrain(self, node: str) -> None:
        """Hosts have no scheduler."""
        raise self._never("drained", node)

    def cut_state(self, node: str) -> CutState:
        """Hosts have no cluster that would hear of them."""
        raise self._never("cut off", node)

    def cut(self, node: str, what: str, seconds: float) -> None:
        """Hosts have no cluster that would hear of them."""
        raise self._never(f"cut off by its {what} for {seconds:g} s", node)

    def mend(self, node: str) -> None:
        """Hosts have no cluster that would hear of them."""
        raise self._never("cut off", node)

    def for_lease(self, lease_id: str) -> Self:  # noqa: ARG002 - what is in force on a host is known by its own name
        """Return this platform: it makes nothing that could name a lease."""
        return self

    def processes_gone(self, processes: tuple[Identity, ...]) -> bool:
        """Whether none of these processes is alive; one that ran on another host than the transport's cannot be seen."""
        return self.host.processes_gone(self._of_hosts(processes), f"environment {self.environment.name}")

    def put_lease_copy(self, target: str, lease_id: str, text: str) -> None:
        """Store a copy under `<platform.root>/<target>/leases/`, durable when this returns."""
        self.transport.write(self._copy(target, lease_id), text)

    def delete_lease_copy(self, target: str, lease_id: str) -> None:
        """Remove a copy; missing is fine."""
        self.transport.delete(self._copy(target, lease_id))

    def lease_copies(self) -> Mapping[str, str]:
        """Return every copy under `platform.root`, also of targets that the inventory has forgotten since.

        Environments that were given the same root see each other's copies; a lease says whose it is.
        """
        copies = {}
        for target in self.transport.entries(self._root):
            folder = self._root / target / LEASES
            for name in self.transport.entries(folder):
                text = self.transport.read(folder / name) if name.endswith(SUFFIX) else None
                if text is not None:  # None: reverted and deleted since the folder was listed
                    copies[name.removesuffix(SUFFIX)] = text
        return copies

    def locks(self) -> "LockStore":
        """Return the lock files of every environment on this host."""
        from frangible.locks import FileLockStore, FolderOfKeys, SwappedLockStore

        settings = self.environment.platform
        if settings.ssh is None:
            return FileLockStore(settings.locks)
        from frangible.platforms.ssh import LOCK_DEADLINE, SshTransport

        return SwappedLockStore(FolderOfKeys(settings.locks, SshTransport(settings.ssh, LOCK_DEADLINE)))

    def variables(self) -> Mapping[str, str]:
        """Return none: hosts are reached in as many ways as there are programs."""
        return {}

    def facts(self) -> Mapping[str, str]:
        """Return what the transport sees of the host, and the middleware that the inventory declares."""
        declared = {f"middleware.{package.name}.version": package.version for package in self.environment.middleware if package.version}
        return dict(sorted({**self.transport.facts(), **declared}.items()))

    @property
    def _root(self) -> Path:
        return self.environment.platform.root

    def _copy(self, target: str, lease_id: str) -> Path:
        for part in (target, lease_id):
            if not part or part.startswith(".") or "/" in part or "\0" in part:
                raise PlatformError(f"environment {self.environment.name}: {part!r} cannot name a lease copy: expected a plain file name")
        return self._root / target / LEASES / f"{lease_id}{SUFFIX}"

    def _of_hosts(self, identities: tuple[Identity, ...]) -> tuple[ProcessIdentity, ...]:
        """Return them as processes; a lease that was written while the environment was on Kubernetes names containers."""
        found = host_processes(identities)
        if len(found) != len(identities):
            raise PlatformError(
                f"environment {self.environment.name} is on hosts, and was asked about containers; use the inventory that the fault was injected with"
            )
        return found

    def _load(self) -> LoadDriver:
        if self.loading is None:
            raise PlatformError(f"environment {self.environment.name}: its load cannot be set: declare `platform.load` in the inventory")
        return self.loading

    def _loading(self) -> LoadDriver | None:
        settings = self.environment.platform.load
        if settings is None:
            return None
        if settings.driver == "rack":
            return RackLoad(self.environment.name, settings.socket, self.host)
        return CommandLoad(self.environment.name, settings.read, settings.set)

    def _burning(self) -> BurnerDriver | None:
        settings = self.environment.platform.cpu
        if settings is None:
            return None
        if settings.driver == "rack":
            return RackBurners(self.environment.name, settings.socket, self.host)
        return HostBurners(lambda node: self._root / node / BURNERS)

    def _burners(self, node: str) -> BurnerDriver:
        if self.burning is None or node not in {known.name for known in self.environment.nodes}:
            raise PlatformError(
                f"environment {self.environment.name}: the CPUs of node {node!r} cannot be held: declare the node, and `platform.cpu`, in the inventory"
            )
        return self.burning

    def _never(self, done: str, node: str) -> PlatformError:
        return PlatformError(f"environment {self.environment.name}: node {node!r} cannot be {done}: only Kubernetes can do that")

    def _known(self, name: str) -> None:
        names = [node.name for node in self.environment.nodes]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(names)) or 'no nodes'}"
            raise PlatformError(f"environment {self.environment.name} has no node {name!r}: {hint}")

    def _services(self, node: str, name: str) -> ServiceDriver:
        self._known(node)
        if self.services is None:
            raise PlatformError(f"environment {self.environment.name}: service {name!r} cannot be switched: declare `platform.services` in the inventory")
        return self.services

    def _driver(self, name: str) -> PowerDriver:
        self._known(name)
        if self.power is None:
            raise PlatformError(f"environment {self.environment.name}: node {name!r} cannot be switched: declare `platform.power` in the inventory")
        return self.power

    def _power(self) -> PowerDriver | None:
        settings = self.environment.platform.power
        if settings is None:
            return None
        if settings.driver == "rack":
            return RackDriver(self.environment.name, settings.socket, host=self.host)
        return CommandDriver(self.environment.name, tuple(settings.on), tuple(settings.off), tuple(settings.state))

    def _switching(self) -> ServiceDriver | None:
        settings = self.environment.platform.services
        if settings is None:
            return None
        if settings.driver == "rack":
            return RackServices(self.environment.name, settings.socket, host=self.host)
        return CommandServices(self.environment.name, settings.start, settings.stop, settings.kill, settings.state, settings.pause, settings.resume)
