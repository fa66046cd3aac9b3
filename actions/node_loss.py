"""Node loss: a node goes away with everything that runs on it, and stays away."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import Refused
from frangible.fault import Observation, Prior, Target, recorded_processes
from frangible.injection import Choice, perform
from frangible.platforms import Platform
from frangible.process import counted

__all__ = ["lose_nodes"]


@dataclass(frozen=True)
class NodeLoss:
    """Power a node off and, to revert, on again."""

    kind: ClassVar[str] = "node-loss"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "node"
    needs: ClassVar[frozenset[str]] = frozenset({"power"})
    least_proven: ClassVar[float] = 0.95

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record the node's instance and processes; refuse a node that is already off."""
        node = platform.node(target.name)
        if not node.powered:
            raise Refused(f"{target} is already off, so losing it would show nothing; power it on, or choose another")
        return {"instance": node.instance, "processes": [dict(process.to_json()) for process in node.processes]}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Power it off."""
        platform.power_off(target.name)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while the node has no power and none of the processes it had is alive."""
        if platform.node(target.name).powered:
            return Observation(real=False, detail="the node has power: it was not lost, or something brought it back")
        processes = recorded_processes(prior)
        if not platform.processes_gone(processes):
            return Observation(real=False, detail="the node has no power, but processes of it are still alive")
        gone = f"its {counted(processes)} are gone" if processes else "which processes it had is not known"
        return Observation(real=True, detail=f"no power; {gone}")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Power it on: it had power before, or `capture` would have refused."""
        platform.power_on(target.name)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when the node has power again; how its services come back is what recovery measures."""
        powered = platform.node(target.name).powered
        return Observation(real=powered, detail="powered again" if powered else "the node has no power")


def lose_nodes(role: str = "", name: str = "", count: int = 1, share: float = 0.0, hold: float = 20.0, seed: int = 0) -> dict[str, object]:
    """Lose `count` nodes (or a `share` of them, 1 for all) of `role`, or the node `name`, for `hold` seconds, then bring them back."""
    return perform(NodeLoss(), Choice(role=role, name=name, count=count, share=share, seed=seed), hold)
