"""Node drain: a node is cordoned and its pods are evicted in good order, as for maintenance, and it stays away for a while."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import Refused
from frangible.fault import Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import DrainState, Platform

__all__ = ["drain_nodes"]


@dataclass(frozen=True)
class NodeDrain:
    """Cordon a node, evict its pods and, to revert, uncordon it. The pods come back where the scheduler puts them."""

    deadline: float = 60.0
    """Seconds in which all pods must be gone: budgets that allow none until then fail the fault."""

    kind: ClassVar[str] = "node-drain"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "node"
    needs: ClassVar[frozenset[str]] = frozenset({"drain"})
    least_proven: ClassVar[float] = 0.95

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record whether somebody has cordoned it, and its pods; refuse where nothing would be shown, or what could not be undone."""
        node = platform.drained(target.name)
        if node.by:
            raise Refused(f"{target} is drained already, for lease {node.by}: let that run end, or run `frangible recover`")
        if not node.pods:
            raise Refused(f"{target} has no pods that a drain would evict, so it would show nothing; choose another")
        if node.alone:
            raise Refused(f"{target} has pods that nothing would start again: {', '.join(node.alone)}; delete them, or give them a controller")
        return {"cordoned": node.cordoned, "pods": list(node.pods)}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Cordon it and evict, until all pods are gone."""
        platform.drain(target.name, self.deadline)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while nothing is scheduled there and none of the pods is left."""
        node = platform.drained(target.name)
        if not node.cordoned:
            return Observation(real=False, detail="the node is schedulable: somebody has uncordoned it")
        if not (node.by or prior["cordoned"]):
            return Observation(real=False, detail="the node is cordoned, but not by this fault")
        left = _left(node, prior)
        if left:
            return Observation(real=False, detail=f"{left} of its pods are still there")
        whose = "cordoned before by somebody else" if prior["cordoned"] else "cordoned"
        return Observation(real=True, detail=f"{whose}; all {_count(prior)} pods are gone")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Uncordon it, if it was cordoned by this fault."""
        platform.undrain(target.name)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when nothing of ours cordons it; where its pods go now is what recovery measures."""
        node = platform.drained(target.name)
        if node.by:
            return Observation(real=False, detail=f"the node is still cordoned, for lease {node.by}")
        return Observation(real=True, detail="cordoned as before, by somebody else" if node.cordoned else "schedulable again")


def _left(node: DrainState, prior: Prior) -> int:
    before = prior["pods"]
    return len(set(node.pods) & {str(uid) for uid in before}) if isinstance(before, list) else 0


def _count(prior: Prior) -> int:
    return len(prior["pods"]) if isinstance(prior["pods"], list) else 0


def drain_nodes(
    role: str = "", name: str = "", count: int = 1, share: float = 0.0, deadline: float = 60.0, hold: float = 20.0, seed: int = 0
) -> dict[str, object]:
    """Drain `count` nodes (or a `share` of them, 1 for all) of `role`, or the node `name`, within `deadline` seconds; uncordon them `hold` seconds later."""
    return perform(NodeDrain(deadline), Choice(role=role, name=name, count=count, share=share, seed=seed), hold)
