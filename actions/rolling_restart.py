"""Rolling restart: the controller of a service replaces all of its pods, a few at a time, as it does for a new version."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import Refused
from frangible.fault import Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import Platform, RolloutState

__all__ = ["roll"]


@dataclass(frozen=True)
class RollingRestart:
    """Begin a rollout of what runs already. It ends by itself, and nothing of it can be undone: a revert waits for its end."""

    kind: ClassVar[str] = "rolling-restart"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "service"
    needs: ClassVar[frozenset[str]] = frozenset({"rollout"})
    least_proven: ClassVar[float] = 0.9

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record which pods run; refuse a service that is being rolled out, or is not whole."""
        seen = platform.rollout(target.service)
        if not seen.complete:
            raise Refused(f"{seen.workload} has {seen.ready} of {seen.wanted} pods ready or is being rolled out: let that end first (`kubectl rollout status`)")
        return {"pods": list(seen.pods)}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Have all pods replaced; the workload's own strategy says how many at once."""
        platform.roll(target.service)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real from when pods are replaced."""
        seen = platform.rollout(target.service)
        new, old = _new_and_old(seen, prior)
        return Observation(real=new > 0, detail=f"{seen.workload}: {new} new pods, {old} of before, {seen.ready} of {seen.wanted} ready")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """There is nothing to undo: what was begun ends by itself."""

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when no rollout goes on and every pod is ready."""
        seen = platform.rollout(target.service)
        return Observation(
            real=seen.complete, detail=f"{seen.workload}: {seen.ready} of {seen.wanted} pods ready" + ("" if seen.complete else ", the rollout goes on")
        )


def _new_and_old(seen: RolloutState, prior: Prior) -> tuple[int, int]:
    recorded = prior["pods"]
    before = {str(uid) for uid in recorded} if isinstance(recorded, list) else set()
    return len(set(seen.pods) - before), len(set(seen.pods) & before)


def roll(service: str, role: str = "", name: str = "", hold: float = 30.0, seed: int = 0) -> dict[str, object]:
    """Replace all pods of `service`, as its strategy does it, and watch for `hold` seconds from the first new one; `role` and `name` say on which node one is.

    Guards are asked about one node: how many pods are away at once is up to the workload's strategy.
    """
    return perform(RollingRestart(), Choice(service=service, role=role, name=name, seed=seed), hold)
