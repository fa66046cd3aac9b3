"""Can `held` be reached at all with these windows, and if not, with which? Asked before anything starts."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from frangible.judge.blocks import block_length, dropped
from frangible.judge.bounds import gauge_text, number, ratio_limits
from frangible.judge.evidence import WindowName
from frangible.judge.indicators import KEPT_LEVEL, LEAST_BLOCKS
from frangible.judge.limits import ShareLimits, block_limits, drop_limits, share_limits

if TYPE_CHECKING:
    from frangible.hypothesis import GaugeIndicator, Hypothesis, RatioIndicator

    type AnyIndicator = RatioIndicator | GaugeIndicator

__all__ = ["reachability"]

FEWEST = 2
"""Blocks without which nothing is decided: one block alone cannot show whether events are clustered."""
LONGEST = 7 * 24 * 3600.0
"""Windows longer than a week are not suggested."""


def reachability(
    hypothesis: "Hypothesis", *, scrape_interval: float, baseline: float, effect: float, recovery: float, load: float | None, proof_interval: float = 0.0
) -> tuple[str, ...]:
    """Say what can not be relied on to be `held`, even when every event is good, with windows of these seconds; empty when all can.

    `load` is the expected number of valid events a second; None counts with the least load that the hypothesis needs, if it states one.
    An effect lasts from proof to proof, so `proof_interval` is what it may be shorter by than its hold; and the samples at its ends
    may lie up to a scrape interval inside of it. Both are taken off.
    """
    rate = load if load is not None else hypothesis.requires.at_least if hypothesis.requires is not None else None
    problems = list(_load_problems(hypothesis, load))
    for indicator in hypothesis.indicators:
        problems += _baseline_problems(indicator, scrape_interval, baseline)
        if not indicator.waived_during_effect:
            problems += _effect_problems(indicator, scrape_interval, baseline, effect, rate, proof_interval + scrape_interval)
    needed = hypothesis.recovery.steady_for
    if recovery < needed:
        problems.append(f"{hypothesis.name}: a recovery of {recovery:g} s is shorter than the {needed:g} s that it must be steady for")
    return tuple(problems)


def _load_problems(hypothesis: "Hypothesis", load: float | None) -> Iterator[str]:
    if hypothesis.requires is not None and load is not None and load < hypothesis.requires.at_least:
        yield (
            f"{hypothesis.name}: it needs at least {number(hypothesis.requires.at_least)} events a second and {number(load)} are expected: "
            "every run would be `not exercised`"
        )


def _baseline_problems(indicator: "AnyIndicator", scrape_interval: float, baseline: float) -> Iterator[str]:
    relative = indicator.bound.drop_at_most is not None or (indicator.kind == "gauge" and indicator.bound.rise_at_most is not None)
    shortest = _length(indicator, scrape_interval, FEWEST if relative else 1)
    if baseline < shortest:
        yield f"{indicator.name}: a baseline of {baseline:g} s gives too few blocks; the shortest that can do is {_seconds(shortest)}"


def _effect_problems(indicator: "AnyIndicator", scrape_interval: float, baseline: float, effect: float, rate: float | None, uncertain: float) -> Iterator[str]:
    """Judge an effect that gives up to `uncertain` seconds less than it was planned for."""

    def enough(seconds: float) -> bool:
        if indicator.kind == "gauge":
            return _gauge_held(indicator, scrape_interval, seconds - uncertain)
        return _ratio_held(indicator, scrape_interval, baseline, seconds - uncertain, rate)

    if enough(effect):
        return
    shortest = _shortest(enough, effect)
    if shortest is None:
        yield f"{indicator.name}: its bound ({_bound(indicator)}) cannot be shown to be kept with any window; {_never(indicator)}"
    else:
        yield (
            f"{indicator.name}: an effect of {effect:g} s cannot show that its bound ({_bound(indicator)}) is kept; "
            f"the shortest that can is {_seconds(shortest)}"
        )


def _shortest(enough: Callable[[float], bool], short: float) -> float | None:
    """Find the shortest sufficient window to a tenth of a second; more never hurts here."""
    low, high = short, max(1.0, short)
    while not enough(high):
        low, high = high, high * 2
        if high > LONGEST:
            return None
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    rounded = math.floor(high * 10) / 10
    return rounded if enough(rounded) else rounded + 0.1


def _length(indicator: "AnyIndicator", scrape_interval: float, blocks: int) -> float:
    return dropped(indicator, scrape_interval) + blocks * block_length(indicator, scrape_interval)


def _blocks(indicator: "AnyIndicator", scrape_interval: float, seconds: float) -> int:
    return math.floor((seconds - dropped(indicator, scrape_interval)) / block_length(indicator, scrape_interval) + 1e-9)


def _gauge_held(indicator: "GaugeIndicator", scrape_interval: float, seconds: float) -> bool:
    blocks = _blocks(indicator, scrape_interval, seconds)
    return blocks >= LEAST_BLOCKS or (blocks >= 1 and block_limits(0, blocks, KEPT_LEVEL, KEPT_LEVEL)[1] <= indicator.tolerated_share)


def _ratio_held(indicator: "RatioIndicator", scrape_interval: float, baseline: float, seconds: float, rate: float | None) -> bool:
    """Say whether flawless events would keep the bound; without a known rate only the blocks are counted."""
    if _blocks(indicator, scrape_interval, seconds) < FEWEST:
        return False
    limits = ratio_limits(indicator, WindowName.EFFECT)
    flawless = _flawless(rate, seconds - dropped(indicator, scrape_interval))
    if limits.at_least is not None and flawless[0] < limits.at_least:
        return False
    before = _flawless(rate, baseline - dropped(indicator, scrape_interval))
    return limits.drop_at_most is None or _fall(before, flawless) <= limits.drop_at_most


def _flawless(rate: float | None, seconds: float) -> tuple[float, float]:
    """Return the limits of a share when so many seconds bring only good events."""
    if rate is None:
        return 1.0 - 1e-9, 1.0
    events = max(0.0, rate * seconds) / FEWEST
    share = share_limits([events] * FEWEST, [0.0] * FEWEST, KEPT_LEVEL, KEPT_LEVEL)
    return share.low, share.high


def _fall(before: tuple[float, float], after: tuple[float, float]) -> float:
    return drop_limits(ShareLimits(1.0, before[0], before[1], 1.0), ShareLimits(1.0, after[0], after[1], 1.0))[1]


def _bound(indicator: "AnyIndicator") -> str:
    return gauge_text(indicator, WindowName.EFFECT) if indicator.kind == "gauge" else str(ratio_limits(indicator, WindowName.EFFECT))


def _never(indicator: "AnyIndicator") -> str:
    return "no number of good events shows that none is ever bad: ask for a little less" if indicator.kind == "ratio" else "make its blocks shorter"


def _seconds(seconds: float) -> str:
    return f"{round(seconds, 1):g} s"
