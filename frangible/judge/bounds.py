"""What an indicator's bound means in one window: absolute, relative to the run's own baseline, less what is tolerated."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frangible.judge.evidence import WindowName

if TYPE_CHECKING:
    from frangible.hypothesis import GaugeIndicator, RatioIndicator

__all__ = ["Corridor", "RatioLimits", "corridor", "gauge_text", "number", "percent", "ratio_limits"]


@dataclass(frozen=True, slots=True)
class RatioLimits:
    """The least good share and the greatest fall below the baseline that one window allows."""

    at_least: float | None
    drop_at_most: float | None

    def __str__(self) -> str:
        """Render `at least 0.99` and `at most 0.02 below the baseline`."""
        parts = [] if self.at_least is None else [f"at least {number(self.at_least)}"]
        parts += [] if self.drop_at_most is None else [f"at most {number(self.drop_at_most)} below the baseline"]
        return " and ".join(parts)

    @property
    def in_percent(self) -> str:
        """Render `at least 99 %` and `at most 2 points below the baseline`."""
        parts = [] if self.at_least is None else [f"at least {percent(self.at_least)}"]
        parts += [] if self.drop_at_most is None else [f"at most {number(100 * self.drop_at_most)} points below the baseline"]
        return " and ".join(parts)


def ratio_limits(indicator: "RatioIndicator", window: WindowName) -> RatioLimits:
    """Return what a ratio must keep in a window; only the effect has a tolerance, and the baseline is not compared with itself."""
    bound, tolerated = indicator.bound, indicator.tolerated_share if window is WindowName.EFFECT else 0.0
    at_least = None if bound.at_least is None else max(0.0, bound.at_least - tolerated)
    drop = None if bound.drop_at_most is None or window is WindowName.BASELINE else min(1.0, bound.drop_at_most + tolerated)
    return RatioLimits(at_least, drop)


@dataclass(frozen=True, slots=True)
class Corridor:
    """Between what values a gauge's block lies. A baseline is known within limits, so a block may be neither inside nor outside."""

    surely_inside: tuple[float, float]
    surely_outside: tuple[float, float]
    """Values below the first or above the second are outside."""

    def inside(self, value: float) -> bool:
        """Say whether a block surely keeps the bound."""
        return self.surely_inside[0] <= value <= self.surely_inside[1]

    def outside(self, value: float) -> bool:
        """Say whether a block surely breaks the bound."""
        return not self.surely_outside[0] <= value <= self.surely_outside[1]


def corridor(indicator: "GaugeIndicator", window: WindowName, level: tuple[float, float] | None) -> Corridor:
    """Return a gauge's corridor in a window; `level` holds limits of its mean in the baseline, None where that is not known.

    With a relative bound and no known baseline nothing is surely inside, and only the absolute bounds can be broken.
    """
    bound = indicator.bound
    floor, ceiling = _or(bound.at_least, -math.inf), _or(bound.at_most, math.inf)
    inside, outside = [floor, ceiling], [floor, ceiling]
    low, high = level if level is not None else (-math.inf, math.inf)
    if bound.drop_at_most is not None and window is not WindowName.BASELINE:
        inside[0], outside[0] = max(floor, high - bound.drop_at_most), max(floor, low - bound.drop_at_most)
    if bound.rise_at_most is not None and window is not WindowName.BASELINE:
        inside[1], outside[1] = min(ceiling, low + bound.rise_at_most), min(ceiling, high + bound.rise_at_most)
    return Corridor((inside[0], inside[1]), (outside[0], outside[1]))


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def gauge_text(indicator: "GaugeIndicator", window: WindowName) -> str:
    """Render a gauge's bound as a window sees it."""
    bound = indicator.bound
    parts = [] if bound.at_least is None else [f"at least {number(bound.at_least)}"]
    parts += [] if bound.at_most is None else [f"at most {number(bound.at_most)}"]
    if window is not WindowName.BASELINE:
        parts += [] if bound.rise_at_most is None else [f"at most {number(bound.rise_at_most)} above the baseline"]
        parts += [] if bound.drop_at_most is None else [f"at most {number(bound.drop_at_most)} below the baseline"]
    return " and ".join(parts)


def number(value: float) -> str:
    """Four significant digits, more where a share is close to one and the digits decide."""
    if 0.99 < value < 1:
        return f"{value:.6f}".rstrip("0")
    return f"{value:.4g}"


def percent(share: float) -> str:
    """Render a share with a decimal more than its distance from 0 or 100 % needs: `99.74 %`, `84 %`, `99.9971 %`."""
    distance = 100 * min(abs(share), abs(1 - share))
    decimals = 1 if distance <= 0 else min(6, max(1, math.ceil(-math.log10(distance)) + 1))
    text = f"{100 * share:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.')} %"
