"""Nodes of a cluster that are cut off from inside: a pod on the node stops the kubelet, or drops the node's traffic, and ends that by itself.

How a cut is ended early: the pod is deleted through the API, which it asks about itself all the time. With a stopped kubelet nobody else on the node
would hear of that; with a cut network its own connection is the one that is let through. When it can hear nothing either, its deadline ends the cut.
"""

from dataclasses import dataclass

from frangible.errors import PlatformError
from frangible.platforms import CutState
from frangible.platforms.kubernetes.pods import HelperPods, Job, only

__all__ = ["Cuts"]

KIND = "cut"


@dataclass(frozen=True, slots=True)
class Cuts:
    """Cuts off the nodes of one environment."""

    pods: HelperPods

    def state(self, node: str) -> CutState:
        """Look at one node: what the cluster hears of it, and what our pod there tells."""
        seen = only(self.pods.all(node, KIND))
        alive = seen is not None and seen.alive
        return CutState(
            node=node,
            heard=self.pods.looker.node(node).ready,
            by=seen.lease if seen is not None and alive else "",
            cut=bool(seen.told.get("cut")) if seen is not None and alive else False,
        )

    def cut(self, node: str, what: str, seconds: float) -> None:
        """Cut it off, for at most `seconds`; how soon the cluster notices is its own affair."""
        item = self.pods.looker.cluster.ask(self.pods.looker.cluster.core.read_node, node).data
        addresses = [str(one["address"]) for one in item["status"].get("addresses") or () if one["type"] == "InternalIP"]
        if not addresses:
            raise PlatformError(f"environment {self.pods.looker.environment.name}, node {node}: it has no internal address, so its links are not known")
        arguments = ("--what", what, "--addresses", ",".join(addresses), "--api", ",".join(self._servers()))
        self.pods.start(Job(KIND, node, of=what, seconds=seconds, arguments=arguments, node_network=True))

    def mend(self, node: str) -> None:
        """End the cut; a pod that is out of reach ends it at its deadline."""
        if not self.pods.end(node, KIND):
            self.pods.undo(node)

    def _servers(self) -> list[str]:
        """Return the API server's own addresses, as the cluster's service `kubernetes` has them."""
        cluster = self.pods.looker.cluster
        found = cluster.ask(cluster.discovery.list_namespaced_endpoint_slice, "default", label_selector="kubernetes.io/service-name=kubernetes")
        return sorted(
            f"{address}:{port['port']}" if ":" not in address else f"[{address}]:{port['port']}"
            for item in found.items
            for port in item.get("ports") or ()
            for endpoint in item.get("endpoints") or ()
            for address in endpoint["addresses"]
        )
