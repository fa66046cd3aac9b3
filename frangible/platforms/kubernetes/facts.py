"""What an environment on Kubernetes is made of, for the fingerprint. Pure, but for the server's version."""

from collections.abc import Callable, Iterable, Mapping

from frangible.platforms.kubernetes.objects import ClusterNode, Pod
from frangible.platforms.kubernetes.survey import Found, Looker, place, workload_of

__all__ = ["facts"]

INFO = {
    "kernel.release": "kernelVersion",
    "os.name": "osImage",
    "host.machine": "architecture",
    "kubernetes.kubelet": "kubeletVersion",
    "kubernetes.runtime": "containerRuntimeVersion",
}
"""Our name of a fact, and that of `nodeInfo`. Nodes come and go, so a fact is about all of them and names each value once."""


def facts(looker: Looker, found: Found) -> Mapping[str, str]:
    """Return versions of the server and of the environment's nodes, and what each of its services runs: image digests, replicas."""
    environment = looker.environment
    cluster = looker.cluster
    names = {node.name for node in place(environment, found).nodes}
    nodes = [node for node in found.nodes if node.name in names]
    told = {"kubernetes.version": str(cluster.ask(cluster.version.get_code).data.get("gitVersion", "unknown")), "kubernetes.nodes": str(len(nodes))}
    told |= {fact: _each(nodes, lambda node, key=key: node.info.get(key, "")) for fact, key in INFO.items()}  # type: ignore[misc]
    told["cpu.count"] = _each(nodes, lambda node: f"{node.cpus:g}")
    for kind, parts in (("service", environment.services), ("middleware", environment.middleware)):
        for part in parts:
            workload = workload_of(environment, part, found.workloads)
            told[f"{kind}.{part.name}.replicas"] = str(workload.wanted)
            told[f"{kind}.{part.name}.image"] = _images(pod for pod in found.pods if pod.staying and workload.has(pod))
    told |= {f"middleware.{package.name}.version": package.version for package in environment.middleware}
    return dict(sorted((name, value) for name, value in told.items() if value))


def _each(nodes: Iterable[ClusterNode], value: Callable[[ClusterNode], str]) -> str:
    return ", ".join(sorted({value(node) for node in nodes} - {""}))


def _images(pods: Iterable[Pod]) -> str:
    """Name and digest of each image once; a locally built image may have no digest."""
    images = {_named(container.image, container.image_id) for pod in pods for container in pod.containers}
    return ", ".join(sorted(images - {""}))


def _named(image: str, image_id: str) -> str:
    digest = image_id.rpartition("@")[2] if "sha256:" in image_id else ""
    return f"{image.partition('@')[0]}@{digest}" if digest and image else image
