"""Which nodes, roles and places an environment has right now, as the cluster tells: looking, and laying what was seen over the inventory (pure)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from frangible.errors import PlatformError
from frangible.platforms.kubernetes.client import Cluster, NotFound
from frangible.platforms.kubernetes.objects import ClusterNode, Pod, Workload

if TYPE_CHECKING:
    from frangible.environment import Environment, Middleware, Node, Service
    from frangible.platforms.kubernetes.client import Method

__all__ = ["NAME_LABEL", "Found", "Looker", "place", "workload_of"]

NAME_LABEL = "app.kubernetes.io/name"
"""What says which service a workload is (https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/)."""
KINDS = {"deployment": "deployment", "statefulset": "stateful_set", "daemonset": "daemon_set"}
"""How the library spells each kind in its methods."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen of a cluster, one list after the other."""

    nodes: tuple[ClusterNode, ...]
    pods: tuple[Pod, ...]
    workloads: tuple[Workload, ...]


@dataclass(frozen=True, slots=True)
class Looker:
    """Looks at the objects of one environment."""

    environment: "Environment"
    cluster: Cluster

    def everything(self) -> Found:
        """List nodes, pods and workloads."""
        namespaces = self.namespaces()
        workloads = tuple(workload for namespace in namespaces for kind in KINDS for workload in self._workloads(namespace, kind))
        pods = tuple(pod for namespace in namespaces for pod in self.pods(namespace))
        return Found(self.nodes(), pods, workloads)

    def namespaces(self) -> tuple[str, ...]:
        """Return the environment's namespaces: those that are named, or those that have the labels."""
        settings = self.environment.platform
        if settings.namespaces:
            return settings.namespaces
        listed = self.cluster.ask(self.cluster.core.list_namespace, label_selector=settings.namespace_selector)
        found = tuple(sorted(item["metadata"]["name"] for item in listed.items))
        if not found:
            raise PlatformError(f"environment {self.environment.name}: no namespace has the labels {settings.namespace_selector!r} of `namespace-selector`")
        return found

    def nodes(self) -> tuple[ClusterNode, ...]:
        """Return every node of the cluster, or those with the labels of `node-selector`, and those that are declared."""
        selector = self.environment.platform.node_selector
        found = [ClusterNode.of(item) for item in self.cluster.pages(self.cluster.core.list_node, label_selector=selector)]
        seen = {node.name for node in found}
        return (*found, *(self.node(declared.name) for declared in self.environment.nodes if declared.name not in seen))

    def node(self, name: str) -> ClusterNode:
        """Return one node; raise `NotFound` with what to do where there is none."""
        try:
            return ClusterNode.of(self.cluster.ask(self.cluster.core.read_node, name).data)
        except NotFound as error:
            raise NotFound(f"{error}; name a node that `kubectl get nodes` lists") from error

    def pods(self, namespace: str, labels: str = "", fields: str = "") -> tuple[Pod, ...]:
        """Return pods of one namespace: those that a label selector and a field selector mean; empty ones mean all."""
        listing = self.cluster.core.list_namespaced_pod
        return tuple(map(Pod.of, self.cluster.pages(listing, namespace, label_selector=labels, field_selector=fields)))

    def pods_of(self, workload: Workload) -> tuple[Pod, ...]:
        """Return the pods of one workload, also those that are on their way out."""
        return self.pods(workload.namespace, labels=str(workload.selector))

    def workload(self, service: str) -> Workload:
        """Return what runs a service of the inventory."""
        declared = _declared(self.environment, service)
        namespaces = self.namespaces()
        if declared.workload is None:
            candidates = [found for namespace in namespaces for kind in KINDS for found in self._workloads(namespace, kind, f"{NAME_LABEL}={service}")]
            return workload_of(self.environment, declared, candidates)
        return self.named(declared.workload, namespaces, f"environment {self.environment.name}, service {service}")

    def named(self, reference: str, namespaces: Iterable[str], who: str) -> Workload:
        """Return the workload `[NAMESPACE/]KIND/NAME`."""
        *before, kind, name = reference.split("/")
        read = getattr(self.cluster.apps, f"read_namespaced_{KINDS[kind]}")
        searched = tuple(before or namespaces)
        found: list[Workload] = []
        for namespace in searched:
            try:
                found.append(Workload.of(kind, self.cluster.ask(read, name, namespace).data))
            except NotFound:
                continue
        return _only(who, reference, found, searched)

    def _workloads(self, namespace: str, kind: str, labels: str = "") -> tuple[Workload, ...]:
        listing: Method = getattr(self.cluster.apps, f"list_namespaced_{KINDS[kind]}")
        return tuple(map(partial(Workload.of, kind), self.cluster.pages(listing, namespace, label_selector=labels)))


def place(environment: "Environment", found: Found) -> "Environment":
    """Return the environment with the nodes that it uses, the roles that its pods give them, and where each service runs. Pure.

    Nodes: those that are declared; else those of `node-selector`; else those that its pods are on. Control planes only where they are declared.
    Raises `PlatformError` for a service that no workload runs.
    """
    running = {part.name: workload_of(environment, part, found.workloads) for part in _parts(environment)}
    places = {name: _nodes_of(workload, found.pods) for name, workload in running.items()}
    nodes = tuple(_node(environment, node, places) for node in _own(environment, found, places))
    used = {node.name for node in nodes}
    placed: Callable[[str], tuple[str, ...]] = lambda name: tuple(node for node in places[name] if node in used)  # noqa: E731
    services = tuple(part.model_copy(update={"nodes": placed(part.name)}) for part in environment.services)
    middleware = tuple(part.model_copy(update={"nodes": placed(part.name)}) for part in environment.middleware)
    return environment.model_copy(update={"nodes": nodes, "services": services, "middleware": middleware})


def workload_of(environment: "Environment", part: "Service | Middleware", workloads: Iterable[Workload]) -> Workload:
    """Return what runs a service, among these; raise `PlatformError` when that is none or several."""
    if part.workload is None:
        wanted = f"the label {NAME_LABEL}={part.name}"
        found = [workload for workload in workloads if workload.labels.get(NAME_LABEL) == part.name]
    else:
        wanted = part.workload
        found = [workload for workload in workloads if workload.reference == wanted or workload.reference.endswith(f"/{wanted}")]
    settings = environment.platform
    where = settings.namespaces or (settings.namespace_selector,)
    return _only(f"environment {environment.name}, service {part.name}", wanted, found, where)


def _only(who: str, wanted: str, found: list[Workload], where: Iterable[str]) -> Workload:
    if not found:
        raise PlatformError(
            f"{who}: no Deployment, StatefulSet or DaemonSet {wanted} in {', '.join(where)}; `workload: deployment/NAME` in the inventory says what runs it"
        )
    if len(found) > 1:
        several = ", ".join(workload.reference for workload in found)
        raise PlatformError(f"{who}: {wanted} means several ({several}); name one of them with `workload` in the inventory")
    return found[0]


def _parts(environment: "Environment") -> "tuple[Service | Middleware, ...]":
    return (*environment.services, *environment.middleware)


def _declared(environment: "Environment", service: str) -> "Service | Middleware":
    parts = {part.name: part for part in _parts(environment)}
    if service not in parts:
        raise PlatformError(f"environment {environment.name} has no service or middleware {service!r}; it has {', '.join(sorted(parts)) or 'none'}")
    return parts[service]


def _nodes_of(workload: Workload, pods: Iterable[Pod]) -> tuple[str, ...]:
    return tuple(sorted({pod.node for pod in pods if pod.node and pod.staying and workload.has(pod)}))


def _own(environment: "Environment", found: Found, places: Mapping[str, tuple[str, ...]]) -> list[ClusterNode]:
    declared = {node.name for node in environment.nodes}
    if declared:
        return [node for node in found.nodes if node.name in declared]
    workers = [node for node in found.nodes if not node.control_plane]
    if environment.platform.node_selector:
        return workers
    used = {name for names in places.values() for name in names}
    return [node for node in workers if node.name in used]


def _node(environment: "Environment", node: ClusterNode, places: Mapping[str, tuple[str, ...]]) -> "Node":
    from frangible.environment import Node

    declared = next((one for one in environment.nodes if one.name == node.name), None)
    roles = (*(declared.roles if declared else ()), *(name for name, nodes in places.items() if node.name in nodes))
    cpus = declared.cpus if declared and declared.cpus else node.cpus or None
    return Node(name=node.name, roles=tuple(dict.fromkeys(roles)), cpus=cpus)
