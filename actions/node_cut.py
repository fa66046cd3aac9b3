"""Node cut: a node goes on working, and the cluster hears nothing of it any more, since its kubelet stands still or its network is gone."""

import time
from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import FaultError, Refused
from frangible.fault import Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import Platform

__all__ = ["cut_nodes"]

KINDS = ("kubelet", "network")
NOTICED = 90.0
"""Seconds that a cluster has to notice; it says so after its `node-monitor-grace-period`, 40 or 50 s unless it was set otherwise."""
MARGIN = 30.0
"""Seconds after the hold at which a cut that nobody reverts ends by itself."""


@dataclass(frozen=True)
class NodeCut:
    """Cut a node off from inside and, to revert, let it back. The cut carries its own deadline and needs nobody for that."""

    what: str = "network"
    """`kubelet`: what runs on the node goes on, and is reachable. `network`: nothing on it is reachable from outside it."""
    deadline: float = 140.0
    """Seconds after which the cut ends by itself, whoever is left to revert."""

    kind: ClassVar[str] = "node-cut"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "node"
    needs: ClassVar[frozenset[str]] = frozenset({"cut"})
    least_proven: ClassVar[float] = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if self.what not in KINDS:
            raise FaultError(f"expected `what` to be {' or '.join(KINDS)}, found {self.what!r}")

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Refuse a node that is cut off, or that the cluster hears nothing of already."""
        node = platform.cut_state(target.name)
        if node.by:
            raise Refused(f"{target} is cut off already, for lease {node.by}: let that run end, or run `frangible recover`")
        if not node.heard:
            raise Refused(f"{target} is not ready, so cutting it off would show nothing; mend it, or choose another")
        return {}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Cut it off, and wait until the cluster has noticed: the hold begins then."""
        platform.cut(target.name, self.what, self.deadline)
        end = time.monotonic() + NOTICED
        while time.monotonic() < end and platform.cut_state(target.name).heard:
            time.sleep(0.25)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while the cluster hears nothing of the node."""
        node = platform.cut_state(target.name)
        if node.heard:
            return Observation(real=False, detail="the cluster hears of the node: it is ready" + ("" if node.cut else ", and nothing is cut"))
        return Observation(real=True, detail=f"the cluster hears nothing of the node any more: not ready; {self.what} cut")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Let it back."""
        platform.mend(target.name)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when nothing of ours cuts it off and the cluster hears of it again."""
        node = platform.cut_state(target.name)
        if node.by:
            return Observation(real=False, detail=f"the node is still cut off, for lease {node.by}")
        return Observation(real=node.heard, detail="the cluster hears of the node again" if node.heard else "nothing is cut, and the node is not ready yet")


def cut_nodes(
    what: str = "network", role: str = "", name: str = "", count: int = 1, share: float = 0.0, hold: float = 20.0, seed: int = 0
) -> dict[str, object]:
    """Cut off the kubelet or the network of `count` nodes (or a `share` of them) of `role`, or of the node `name`; let them back `hold` seconds later.

    The hold begins when the cluster has noticed.
    """
    fault = NodeCut(what, deadline=NOTICED + hold + MARGIN)
    return perform(fault, Choice(role=role, name=name, count=count, share=share, seed=seed), hold)
