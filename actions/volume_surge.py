"""Volume surge: an environment is offered a multiple of what it has to take at its busiest."""

import math
from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import FaultError, Refused
from frangible.fault import Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import LoadState, Platform

__all__ = ["surge_volume"]

REGULATION = 2.0
"""Times the highest of the previous six months: Delegated Regulation (EU) 2017/589 (RTS 6), Article 10."""
EXACT = 1e-6
"""Relative difference below which two rates are the same: what a platform prints may be rounded."""


@dataclass(frozen=True)
class VolumeSurge:
    """Raise the offered load and, to revert, offer again what was offered before."""

    factor: float = 0.0
    """Times what is offered now; 0: twice the highest of the previous six months, from the inventory."""

    kind: ClassVar[str] = "volume-surge"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "load"
    needs: ClassVar[frozenset[str]] = frozenset({"load"})
    exclusive: ClassVar[frozenset[str]] = frozenset({"cpu"})
    least_proven: ClassVar[float] = 0.95

    def __post_init__(self) -> None:
        """Refuse what is no surge."""
        if self.factor != 0 and not 1 < self.factor < math.inf:
            raise FaultError(f"expected a factor above 1, or 0 for twice the highest of six months, found {self.factor:g}")

    def times(self, platform: Platform) -> float:
        """Return how many times the present load would be offered; the guard is asked about that."""
        load = platform.load()
        return self._wanted(load) / load.rate if load.rate > 0 else math.inf

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record what is offered; refuse where it is as much already."""
        load = platform.load()
        wanted = self._wanted(load)
        if wanted <= load.rate * (1 + EXACT):
            raise Refused(f"{target} is offered {load.rate:g} a second already, so {wanted:g} would be no surge; lower its load, or choose a `factor`")
        return {"rate": load.rate, "wanted": wanted}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Offer more."""
        platform.set_load(_number(prior, "wanted"))

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while the platform itself says that this much is offered."""
        rate, wanted = platform.load().rate, _number(prior, "wanted")
        said = f"{rate:g} a second are offered, before it were {_number(prior, 'rate'):g}"
        if not _same(rate, wanted):
            return Observation(real=False, detail=f"{said}, asked for {wanted:g}: somebody else has set it", measured=rate)
        return Observation(real=True, detail=said, measured=rate)

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Offer what was offered before, unless somebody else has set the load since: then it is theirs."""
        if _same(platform.load().rate, _number(prior, "wanted")):
            platform.set_load(_number(prior, "rate"))

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when the surge is no longer offered."""
        rate, before = platform.load().rate, _number(prior, "rate")
        if _same(rate, _number(prior, "wanted")):
            return Observation(real=False, detail=f"{rate:g} a second are still offered", measured=rate)
        whose = "as before" if _same(rate, before) else f"as somebody else has set it; before it were {before:g}"
        return Observation(real=True, detail=f"{rate:g} a second are offered, {whose}", measured=rate)

    def _wanted(self, load: LoadState) -> float:
        if self.factor:
            return self.factor * load.rate
        if load.highest is None:
            raise Refused("the inventory does not say what the highest volume of the previous six months was: declare `volume`, or give a `factor`")
        return REGULATION * load.highest


def _number(prior: Prior, key: str) -> float:
    return float(str(prior[key]))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=EXACT)


def surge_volume(factor: float = 0.0, hold: float = 20.0) -> dict[str, object]:
    """Offer `factor` times the present load (0: twice the highest of the previous six months) for `hold` seconds, then what was offered before."""
    return perform(VolumeSurge(factor), Choice(), hold)
