"""Placebo: a fault that does nothing. Runs with it count how often a verdict is a false alarm (an A/A test)."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.fault import Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import Platform

__all__ = ["hold_without_fault"]


@dataclass(frozen=True)
class Placebo:
    """Go through lease, proof, hold and revert, and touch nothing."""

    kind: ClassVar[str] = "placebo"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "node"
    needs: ClassVar[frozenset[str]] = frozenset()
    least_proven: ClassVar[float] = 1.0

    def capture(self, platform: Platform, target: Target) -> Prior:
        """There is nothing to remember."""
        return {}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Do nothing."""

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Nothing was promised, so it is always real."""
        return Observation(real=True, detail="placebo: nothing is done")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """There is nothing to undo."""

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Nothing is left of nothing."""
        return Observation(real=True, detail="placebo: nothing was done")


def hold_without_fault(role: str = "", name: str = "", count: int = 1, share: float = 0.0, hold: float = 20.0, seed: int = 0) -> dict[str, object]:
    """Measure for `hold` seconds without any fault, on targets chosen as for a real one."""
    return perform(Placebo(), Choice(role=role, name=name, count=count, share=share, seed=seed), hold)
