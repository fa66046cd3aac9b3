"""How far evidence reaches: one-sided limits of a share, with clustering taken into account. See docs/judge.md for the sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    type Floats = NDArray[Any]

__all__ = ["ShareLimits", "block_limits", "drop_limits", "mean_limits", "share_limits"]

NONE = 1e-12
"""A share of bad events so small is rounding."""
WATER_LEVELS = 32
"""Levels at which the worst blocks are cut off, besides the blocks' own shares."""


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """A share of good events, and what its evidence still allows."""

    observed: float
    low: float
    high: float
    design_effect: float
    """How many times the evidence is worth less than as many independent events."""


def share_limits(valid: Sequence[float], bad: Sequence[float], low_level: float, high_level: float, *, monotone: bool = True) -> ShareLimits:
    """Return the share of good events with its lower limit at `low_level` and its upper limit at `high_level`.

    Jeffreys' posterior on the effective number of events: the design effect is Pearson's chi-square over blocks - 1, at least 1, and
    the degrees of freedom that it was estimated with count as in Korn and Graubard (1998).

    With `monotone`, no further bad event raises either limit. A burst widens the interval, so each limit is the least over smaller sets
    of bad events that are contained in the real one: the upper one over the set with its worst blocks cut off at some level, the lower
    one over the worst blocks alone. A baseline, which others are compared with, goes without.
    """
    import numpy as np

    events, bads = np.asarray(valid, dtype=float), np.asarray(bad, dtype=float)
    counted = events > 0
    events, bads = events[counted], np.minimum(bads[counted], events[counted])
    total = float(events.sum())
    if total <= 0:
        return ShareLimits(0.0, 0.0, 1.0, 1.0)
    observed = 1 - float(bads.sum()) / total
    if len(events) < 2:
        return ShareLimits(observed, 0.0, 1.0, 1.0)
    cut_off, worst_alone = _contained(events, bads) if monotone else (bads[None, :], bads[None, :])
    high, _ = _limit(events, cut_off, high_level, upper=True)
    low, effects = _limit(events, worst_alone, low_level, upper=False)
    return ShareLimits(observed, float(low.min()), float(high.min()), float(effects[-1]))


def _contained(events: "Floats", bads: "Floats") -> "tuple[Floats, Floats]":
    """Return smaller sets of bad events, a row each: cut off at water levels, and the worst blocks alone. The last row is all of them."""
    import numpy as np

    shares = bads / events
    levels = np.unique(np.concatenate([shares, np.geomspace(1 / events.sum(), 1.0, WATER_LEVELS)]))
    cut_off = np.minimum(shares, levels[:, None]) * events
    worst_first = np.argsort(-shares, kind="stable")
    ranks = np.empty(len(shares), dtype=int)
    ranks[worst_first] = np.arange(len(shares))
    worst_alone = np.where(ranks < np.arange(1, len(shares) + 1)[:, None], bads, 0.0)
    return cut_off, worst_alone


def _limit(events: "Floats", bads: "Floats", level: float, *, upper: bool) -> "tuple[Floats, Floats]":
    """Return a one-sided limit of the good share for each row of bad events, and its design effect."""
    import numpy as np
    from scipy.special import betaincinv, ndtri, stdtrit

    total, freedom = events.sum(), len(events) - 1
    share = np.clip(bads.sum(axis=1) / total, 0.0, 1.0)
    clustered = (share > NONE) & (share < 1 - NONE)
    spread = ((bads - events * share[:, None]) ** 2 / events).sum(axis=1)
    effect = np.ones_like(share)
    np.divide(spread, share * (1 - share) * freedom, out=effect, where=clustered)
    effect = np.maximum(effect, 1.0)
    known = (ndtri(1 - level) / stdtrit(freedom, 1 - level)) ** 2
    # Events of one block can at most all go the same way: Kish's effective number of blocks is the least that the evidence is worth.
    sizes = events / events.max()
    blocks = sizes.sum() ** 2 / (sizes**2).sum()
    worth = np.where(clustered, np.maximum(total * known / effect, blocks), total)
    return betaincinv(worth * (1 - share) + 0.5, worth * share + 0.5, 1 - level if upper else level), effect


def drop_limits(before: ShareLimits, after: ShareLimits) -> tuple[float, float]:
    """Return the least and the greatest fall from `before` to `after` that the evidence allows (MOVER: Zou and Donner 2008).

    `before.low` and `after.high` must have the level of the first, `before.high` and `after.low` that of the second.
    """
    fall = before.observed - after.observed
    least = fall - hypot(before.observed - before.low, after.high - after.observed)
    greatest = fall + hypot(before.high - before.observed, after.observed - after.low)
    return least, greatest


def block_limits(broken: int, blocks: int, low_level: float, high_level: float) -> tuple[float, float]:
    """Return limits of the share of broken blocks (Jeffreys): the lower at `low_level`, the upper at `high_level`."""
    from scipy.special import betaincinv

    if blocks <= 0:
        return 0.0, 1.0
    a, b = broken + 0.5, blocks - broken + 0.5
    return float(betaincinv(a, b, low_level)), float(betaincinv(a, b, 1 - high_level))


def mean_limits(values: Sequence[float], level: float) -> tuple[float, float] | None:
    """Return one-sided limits (Student's t) of the mean of blocks, or None with fewer than two."""
    from statistics import fmean, stdev

    from scipy.special import stdtrit

    if len(values) < 2:
        return None
    mean = fmean(values)
    margin = float(stdtrit(len(values) - 1, 1 - level)) * stdev(values) / len(values) ** 0.5
    return mean - margin, mean + margin
