"""The platform of one environment on Kubernetes: each primitive, handed to the part that knows it."""

import copy
import os
import socket
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Self

from frangible.errors import PlatformError
from frangible.platforms import BurnerState, CutState, DrainState, LoadState, NodeState, RolloutState, ServiceState
from frangible.platforms.kubernetes.burning import Burners, Watch
from frangible.platforms.kubernetes.client import SERVICE_ACCOUNT, Cluster, NotFound
from frangible.platforms.kubernetes.copies import LeaseCopies
from frangible.platforms.kubernetes.cutting import Cuts
from frangible.platforms.kubernetes.drain import Drains
from frangible.platforms.kubernetes.load import load_driver
from frangible.platforms.kubernetes.nodes import Nodes, power_driver
from frangible.platforms.kubernetes.pausing import Pauses
from frangible.platforms.kubernetes.permissions import HELPERS
from frangible.platforms.kubernetes.pods import HelperPods
from frangible.platforms.kubernetes.rolling import Rollouts
from frangible.platforms.kubernetes.services import Services
from frangible.platforms.kubernetes.survey import Looker, place
from frangible.platforms.loading import LoadDriver
from frangible.process import Identity

if TYPE_CHECKING:
    from frangible.environment import Environment
    from frangible.locks import LockStore

__all__ = ["KubernetesPlatform"]

NO_LEASE = "by-hand"
"""What is named as the lease of what is made without one."""
NODE_VARIABLE, POD_VARIABLE = "FRANGIBLE_RUNNER_NODE", "FRANGIBLE_RUNNER_POD"
"""What deploy/runner gives a runner inside the cluster by the downward API: its node and its pod; without them the API server is asked."""


class KubernetesPlatform:
    """The primitives of one environment whose services are workloads of a cluster."""

    kind = "kubernetes"

    def __init__(self, environment: "Environment") -> None:
        """Choose drivers as the inventory says; nothing is reached yet, and the client is not even imported."""
        settings = environment.platform
        self.environment = environment
        self.cluster = Cluster(environment)
        self.looker = Looker(environment, self.cluster)
        self.nodes = Nodes(self.looker, power_driver(environment.name, settings.power))
        self.services = Services(self.looker)
        self._watches: dict[tuple[str, str], Watch] = {}
        self._heard: dict[str, tuple[object, float]] = {}
        self._act_for(NO_LEASE)
        self.loading = load_driver(self.looker)
        self.copies = LeaseCopies(self.cluster, settings.namespace)
        offered = {
            "power": self.nodes.power is not None,
            "services": True,
            "drain": True,
            "rollout": True,
            **dict.fromkeys(HELPERS, bool(settings.helper_image)),
            "load": self.loading is not None,
        }
        self.primitives = frozenset(name for name, there in offered.items() if there)

    def survey(self) -> "Environment":
        """Look at the cluster: nodes, roles and placement as they are now."""
        return place(self.environment, self.looker.everything())

    def observers(self) -> Mapping[str, str]:
        """Return this host, or where this pod is; and where Prometheus is, pod by pod where a workload runs it."""
        return {"runner": self._runner, **self._prometheus()}

    def forbidden(self, primitives: Iterable[str]) -> tuple[str, ...]:
        """Ask the cluster what its user may do."""
        from frangible.platforms.kubernetes.access import Access

        return Access(self.looker).forbidden(primitives)

    def node(self, name: str) -> NodeState:
        """Look at one node."""
        return self.nodes.state(name)

    def power_off(self, name: str) -> None:
        """Take a node away; it stays away."""
        self.nodes.off(name)

    def power_on(self, name: str) -> None:
        """Bring a node back."""
        self.nodes.on(name)

    def start_burner(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Hold the node's CPUs at a utilisation."""
        self.burning.start(node, name, utilisation, seconds)

    def burner(self, node: str, name: str) -> BurnerState:
        """Look at one burner."""
        return self.burning.look(node, name)

    def stop_burner(self, node: str, name: str) -> None:
        """End one burner."""
        self.burning.stop(node, name)

    def burners(self, node: str) -> tuple[str, ...]:
        """Names of the node's burners that live."""
        return self.burning.running(node)

    def service(self, node: str, name: str) -> ServiceState:
        """Look at a service's pods on a node."""
        state = self.services.state(node, name)
        return self.pausing.laid_over(state) if "pause" in self.primitives else state

    def stop_service(self, node: str, name: str, grace: float) -> None:
        """Delete a service's pods on a node; its controller starts others, perhaps elsewhere."""
        self.services.stop(node, name, grace)

    def start_service(self, node: str, name: str) -> None:
        """Leave it to the controller."""
        self.services.start(node, name)

    def pause_service(self, node: str, name: str, seconds: float) -> None:
        """Stop every process of a service by a signal, by a pod on the node."""
        self.pausing.pause(node, name, seconds)

    def resume_service(self, node: str, name: str, processes: tuple[Identity, ...], leave: tuple[Identity, ...]) -> None:  # noqa: ARG002 - noted on the node
        """Let go on what was stopped, and nothing that was stopped before."""
        self.pausing.resume(node, name)

    def kill_service(self, node: str, name: str) -> None:
        """Kill every process of a service, by a pod on the node; its kubelet starts the containers again."""
        self.pausing.kill(node, name)

    def rollout(self, service: str) -> RolloutState:
        """Look at what runs a service."""
        return self.rolling.state(service)

    def roll(self, service: str) -> None:
        """Have all pods of a service replaced."""
        self.rolling.begin(service)

    def drained(self, node: str) -> DrainState:
        """Look whether a node is drained."""
        return self.drains.state(node)

    def drain(self, node: str, seconds: float) -> None:
        """Cordon a node and evict its pods."""
        self.drains.drain(node, seconds)

    def undrain(self, node: str) -> None:
        """Uncordon a node that was cordoned for this lease."""
        self.drains.uncordon(node)

    def cut_state(self, node: str) -> CutState:
        """Look whether a node is cut off."""
        return self.cuts.state(node)

    def cut(self, node: str, what: str, seconds: float) -> None:
        """Cut a node off from inside."""
        self.cuts.cut(node, what, seconds)

    def mend(self, node: str) -> None:
        """Let a node back that was cut off for this lease."""
        self.cuts.mend(node)

    def for_lease(self, lease_id: str) -> Self:
        """Return this platform, with a lease that its marks and objects name."""
        other = copy.copy(self)
        other._act_for(lease_id)
        return other

    def load(self) -> LoadState:
        """Look at the load that is set."""
        highest = self.environment.volume.highest_per_second if self.environment.volume else None
        return LoadState(self._load.rate(), highest)

    def set_load(self, rate: float) -> None:
        """Offer so many a second."""
        self._load.set(rate)

    def processes_gone(self, processes: tuple[Identity, ...]) -> bool:
        """Whether none of these containers lives."""
        return self.nodes.gone(processes)

    def put_lease_copy(self, target: str, lease_id: str, text: str) -> None:
        """Store a copy as a ConfigMap in frangible's namespace."""
        self.copies.put(target, lease_id, text)

    def delete_lease_copy(self, target: str, lease_id: str) -> None:  # noqa: ARG002 - an id is enough
        """Remove a copy; missing is fine."""
        self.copies.delete(lease_id)

    def lease_copies(self) -> Mapping[str, str]:
        """Return every copy of the namespace, also of other environments; a lease says whose it is."""
        return self.copies.all()

    def locks(self) -> "LockStore":
        """Return the Leases of frangible's namespace."""
        from frangible.locks import SwappedLockStore
        from frangible.platforms.kubernetes.locks import LeaseObjects

        return SwappedLockStore(LeaseObjects(self.cluster, self.environment.platform.namespace))

    def variables(self) -> Mapping[str, str]:
        """Return kubeconfig and context, or that this is a pod: as kubectl and chaostoolkit-kubernetes take them."""
        return self.cluster.variables()

    def facts(self) -> Mapping[str, str]:
        """Return versions of the cluster and its nodes, and the images that run."""
        from frangible.platforms.kubernetes.facts import facts

        return facts(self.looker, self.looker.everything())

    def _act_for(self, lease: str) -> None:
        """Have what is made in the cluster name a lease; what is only remembered of it is shared with all others."""
        pods = HelperPods(self.looker, lease, self._heard)
        self.drains, self.pausing, self.cuts = Drains(self.cluster, lease), Pauses(pods), Cuts(pods)
        self.rolling = Rollouts(self.looker, lease)
        self.burning = Burners(pods, self._watches)

    @cached_property
    def _runner(self) -> str:
        """The node that this pod is on, or this host where it is none of the cluster's pods."""
        if (node := os.environ.get(NODE_VARIABLE, "")) and SERVICE_ACCOUNT.is_file():
            return node
        host, told = os.environ.get(POD_VARIABLE) or socket.gethostname(), SERVICE_ACCOUNT.with_name("namespace")
        if not told.is_file():
            return host
        try:
            pod = self.cluster.ask(self.cluster.core.read_namespaced_pod, host, told.read_text().strip()).data
        except NotFound:
            return host
        return str(pod["spec"].get("nodeName") or host)

    def _prometheus(self) -> Mapping[str, str]:
        prometheus = self.environment.prometheus
        if prometheus is None or not prometheus.runs_on:
            return {}
        if "/" not in prometheus.runs_on:
            return {"prometheus": prometheus.runs_on}
        who = f"environment {self.environment.name}, `prometheus.runs-on`"
        workload = self.looker.named(prometheus.runs_on, self.looker.namespaces(), who)
        pods = sorted((pod for pod in self.looker.pods_of(workload) if pod.node and pod.staying), key=lambda pod: pod.name)
        if not pods:
            raise PlatformError(f"{who}: no pod of {workload.reference} is on a node, so where Prometheus runs is not known; start it")
        return {"prometheus": pods[0].node} | {f"prometheus ({pod.name})": pod.node for pod in pods[1:]}

    @property
    def _load(self) -> LoadDriver:
        if self.loading is None:
            raise PlatformError(f"environment {self.environment.name}: its load cannot be set: declare `platform.load` in the inventory")
        return self.loading
