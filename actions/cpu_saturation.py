"""CPU saturation: a node's CPUs are held at a requested utilisation, whatever else runs on them."""

import secrets
import time
from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import FaultError, Refused
from frangible.fault import Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import BurnerState, Platform

__all__ = ["saturate_cpus"]

TOLERANCE = 0.02
"""How far the achieved share of the CPUs may be from the requested one."""
LEAST_DUTY = 0.01
"""Below this the burner adds nothing: others hold the CPUs there."""
RAMP = 10.0
"""Seconds that a burner has to reach what is requested, before the hold begins; then it counts as not proven."""
MARGIN = 60.0
"""Seconds after the hold at which a burner that nobody reverts ends by itself."""


@dataclass(frozen=True)
class CpuSaturation:
    """Hold the node's CPUs at a utilisation by a burner that carries its own deadline and, to revert, end it."""

    utilisation: float = 80.0
    """Percent of the node's CPUs, above 0, at most 100."""
    deadline: float = 80.0
    """Seconds after which the burner ends by itself, whoever is left to revert."""

    kind: ClassVar[str] = "cpu-saturation"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "node"
    needs: ClassVar[frozenset[str]] = frozenset({"cpu"})
    exclusive: ClassVar[frozenset[str]] = frozenset({"cpu"})
    least_proven: ClassVar[float] = 0.8

    def __post_init__(self) -> None:
        """Refuse what cannot be held."""
        if not 0 < self.utilisation <= 100:
            raise FaultError(f"expected a utilisation above 0 and at most 100 percent, found {self.utilisation:g}")

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Name the burner; refuse a node that has one."""
        running = platform.burners(target.name)
        if running:
            raise Refused(f"{target} is saturated already by {', '.join(running)}: let it end (it carries its own deadline), or run `frangible recover`")
        return {"burner": f"cpu-{secrets.token_hex(6)}"}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Start the burner, and let it come up to what is requested."""
        platform.start_burner(target.name, _name(prior), self.utilisation / 100, self.deadline)
        end = time.monotonic() + RAMP
        while time.monotonic() < end and not self._seen(platform.burner(target.name, _name(prior))).real:
            time.sleep(0.1)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while the utilisation measured over the newest seconds is what was requested, and the burner is why."""
        return self._seen(platform.burner(target.name, _name(prior)))

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """End the burner, also one that is only just being started."""
        platform.stop_burner(target.name, _name(prior))

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when no process of the burner is left; what it held on average is kept in the journal."""
        burner = platform.burner(target.name, _name(prior))
        if burner.alive:
            return Observation(real=False, detail=f"the burner still runs: {burner.processes}")
        held = f"; it held the CPUs at {burner.average:.1%} on average, asked for {self.utilisation:g} %" if burner.average is not None else ""
        return Observation(real=True, detail=f"no burner left{held}", measured=burner.average)

    def _seen(self, burner: BurnerState) -> Observation:
        if not burner.alive:
            return Observation(real=False, detail="the burner is gone")
        if burner.achieved is None:
            return Observation(real=False, detail="the burner has measured nothing in the newest seconds")
        said = f"CPUs at {burner.achieved:.0%}, asked for {self.utilisation:g} %"
        if abs(burner.achieved - self.utilisation / 100) > TOLERANCE:
            return Observation(real=False, detail=said, measured=burner.achieved)
        if (burner.duty or 0.0) < LEAST_DUTY:
            return Observation(real=False, detail=f"{said}, and by others: the burner adds nothing", measured=burner.achieved)
        return Observation(real=True, detail=said, measured=burner.achieved)


def _name(prior: Prior) -> str:
    return str(prior["burner"])


def saturate_cpus(
    utilisation: float = 80.0, role: str = "", name: str = "", count: int = 1, share: float = 0.0, hold: float = 20.0, seed: int = 0
) -> dict[str, object]:
    """Hold the CPUs of `count` nodes (or a `share` of them) of `role`, or of the node `name`, at `utilisation` percent for `hold` seconds."""
    return perform(CpuSaturation(utilisation, deadline=hold + MARGIN), Choice(role=role, name=name, count=count, share=share, seed=seed), hold)
