"""What we need of the API's objects, as frozen values; parsed once, where an answer comes in. Pure.

The shapes are those of https://kubernetes.io/docs/reference/kubernetes-api/ (core/v1 and apps/v1).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from frangible.errors import PlatformError
from frangible.process import ContainerIdentity

__all__ = ["CONTROL_PLANE", "ClusterNode", "Container", "Pod", "Selector", "Workload", "quantity"]

CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
"""Labels of the nodes that run the cluster itself."""
SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str) -> float:
    """Return a resource quantity, such as `1930m` or `2Gi`, as a number; raises `PlatformError` on anything else."""
    number = text.rstrip("numkMGKi")
    try:
        return float(number) * SUFFIXES[text[len(number) :]]
    except (KeyError, ValueError) as error:
        raise PlatformError(f"the cluster's answer has {text!r} where a quantity such as `1930m` is expected") from error


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod as the kubelet last told of it."""

    name: str
    id: str
    """The runtime's, such as `containerd://5f1c...`; empty before its first start."""
    running: bool
    ready: bool
    image: str
    image_id: str
    """Name and digest."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod."""

    namespace: str
    name: str
    uid: str
    node: str
    """Empty while it is not scheduled."""
    labels: Mapping[str, str]
    ended: bool
    """Whether all of it has ended for good: `Succeeded` or `Failed`."""
    deleting: bool
    ready: bool
    containers: tuple[Container, ...]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "Pod":
        """Parse one item."""
        meta, status = item["metadata"], item.get("status") or {}
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            node=(item.get("spec") or {}).get("nodeName") or "",
            labels=meta.get("labels") or {},
            ended=status.get("phase") in {"Succeeded", "Failed"},
            deleting=bool(meta.get("deletionTimestamp")),
            ready=_condition(item, "Ready") == "True",
            containers=tuple(_container(one) for one in status.get("containerStatuses") or ()),
        )

    @property
    def staying(self) -> bool:
        """Whether it counts as one of its workload's: neither ended nor on its way out."""
        return not self.ended and not self.deleting

    @property
    def running(self) -> bool:
        """Whether a container of it runs, as far as the kubelet has told."""
        return not self.ended and any(container.running for container in self.containers)

    def identities(self) -> Iterator[ContainerIdentity]:
        """Yield its running containers."""
        for container in self.containers:
            if container.running:
                yield ContainerIdentity(self.node, f"{self.namespace}/{self.name}", self.uid, container.id)


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One node."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    cordoned: bool
    boot: str
    """Id of the boot of its kernel; nodes that are containers have that of their host."""
    cpus: float
    """Allocatable."""
    info: Mapping[str, str]
    """`nodeInfo`: versions of kernel, operating system, kubelet, runtime."""

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "ClusterNode":
        """Parse one item."""
        status = item.get("status") or {}
        info = status.get("nodeInfo") or {}
        return cls(
            name=item["metadata"]["name"],
            labels=item["metadata"].get("labels") or {},
            ready=_condition(item, "Ready") == "True",
            cordoned=bool((item.get("spec") or {}).get("unschedulable")),
            boot=info.get("bootID", ""),
            cpus=quantity((status.get("allocatable") or {}).get("cpu", "0")),
            info={key: str(value) for key, value in info.items()},
        )

    @property
    def control_plane(self) -> bool:
        """Whether it runs the cluster itself."""
        return any(label in self.labels for label in CONTROL_PLANE)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which pods a workload means (LabelSelector)."""

    labels: Mapping[str, str]
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """Key, operator, values."""

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Selector":
        """Parse `spec.selector`."""
        expressions = ((str(one["key"]), str(one["operator"]), tuple(map(str, one.get("values") or ()))) for one in spec.get("matchExpressions") or ())
        return cls(spec.get("matchLabels") or {}, tuple(expressions))

    def __str__(self) -> str:
        """Render as the API's `labelSelector` takes it."""
        words = {"In": "{key} in ({values})", "NotIn": "{key} notin ({values})", "Exists": "{key}", "DoesNotExist": "!{key}"}
        told = (words[operator].format(key=key, values=",".join(values)) for key, operator, values in self.expressions)
        return ",".join([*(f"{key}={value}" for key, value in self.labels.items()), *told])

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return all(labels.get(key) == value for key, value in self.labels.items()) and all(_holds(labels, *expression) for expression in self.expressions)


@dataclass(frozen=True, slots=True)
class Workload:
    """One Deployment, StatefulSet or DaemonSet."""

    namespace: str
    kind: str
    """In lower case, as an inventory says it."""
    name: str
    labels: Mapping[str, str]
    selector: Selector
    wanted: int
    """How many pods it should have."""
    settled: bool = True
    """Whether its controller has seen the newest template, and every pod is of it."""

    @classmethod
    def of(cls, kind: str, item: Mapping[str, Any]) -> "Workload":
        """Parse one item of a list, whose items do not name their kind."""
        meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
        wanted = status.get("desiredNumberScheduled", 0) if kind == "daemonset" else spec.get("replicas", 1)
        return cls(
            meta["namespace"], kind, meta["name"], meta.get("labels") or {}, Selector.of(spec["selector"]), int(wanted), _settled(kind, int(wanted), item)
        )

    @property
    def reference(self) -> str:
        """As an inventory names it, with its namespace."""
        return f"{self.namespace}/{self.kind}/{self.name}"

    def has(self, pod: Pod) -> bool:
        """Whether a pod is one of its."""
        return pod.namespace == self.namespace and self.selector.matches(pod.labels)


def _settled(kind: str, wanted: int, item: Mapping[str, Any]) -> bool:
    """Whether the controller has seen the newest template, and every pod is of it.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/#DeploymentStatus, likewise of the other two.
    """
    status = item.get("status") or {}
    if status.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return False
    updated = status.get("updatedNumberScheduled" if kind == "daemonset" else "updatedReplicas", 0)
    if kind == "statefulset" and status.get("updateRevision") == status.get("currentRevision"):
        return True  # a StatefulSet that was never rolled out counts no updated pods
    return bool(updated >= wanted)


def _condition(item: Mapping[str, Any], kind: str) -> str:
    conditions = (item.get("status") or {}).get("conditions") or ()
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "Unknown")


def _container(status: Mapping[str, Any]) -> Container:
    return Container(
        name=status["name"],
        id=status.get("containerID") or "",
        running="running" in (status.get("state") or {}),
        ready=bool(status.get("ready")),
        image=status.get("image") or "",
        image_id=status.get("imageID") or "",
    )


def _holds(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels
