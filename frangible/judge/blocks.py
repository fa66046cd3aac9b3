"""Windows cut into blocks: what counters rose by and what gauges stood at in each. Plain arithmetic, also for the live readings."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from frangible.judge.evidence import Observed, Window
from frangible.metrics import Sample, Series

if TYPE_CHECKING:
    from frangible.hypothesis import GaugeIndicator, RatioIndicator

    type AnyIndicator = RatioIndicator | GaugeIndicator

__all__ = [
    "GaugeBlocks",
    "RatioBlocks",
    "block_length",
    "block_series",
    "dropped",
    "gauge_blocks",
    "grid",
    "increases",
    "rate",
    "ratio_blocks",
]

SURPLUS_EVENTS = 10.0
SURPLUS_SHARE = 0.1
"""So many more good events than valid ones are events in flight; more is a hypothesis whose counters do not belong together."""
MOST_EVENTS = 2.0**53
"""A counter beyond this no longer counts single events (IEEE 754 double precision)."""
FARTHEST = 1e100
"""A gauge beyond this is no measurement."""
MOST_BLOCKS = 100_000
"""More say nothing more; a window that would have them has longer blocks instead."""
TARGET = ("instance", "job")
"""Labels that name the scraped process (Prometheus: jobs and instances)."""


def dropped(indicator: "AnyIndicator", scrape_interval: float) -> float:
    """Seconds at the start of a window that may still show what was before it."""
    return scrape_interval + (indicator.lookback if indicator.kind == "gauge" else 0.0)


def block_length(indicator: "AnyIndicator", scrape_interval: float) -> float:
    """Seconds of one block: as declared, and never so short that a healthy series could be without a sample in it."""
    lookback = indicator.lookback if indicator.kind == "gauge" else 0.0
    return max(indicator.block, lookback, scrape_interval if indicator.kind == "gauge" else 2 * scrape_interval)


def grid(start: float, end: float, length: float) -> tuple[float, ...]:
    """Cut [start, end] into equal blocks no shorter than `length`; return their edges, or nothing when not even one fits."""
    if not (math.isfinite(start) and math.isfinite(end) and length > 0):
        return ()
    count = min(MOST_BLOCKS, math.floor((end - start) / length + 1e-9))
    return tuple(start + (end - start) * number / count for number in range(count + 1)) if count >= 1 else ()


@dataclass(frozen=True, slots=True)
class RatioBlocks:
    """Events of a ratio indicator, block by block."""

    edges: tuple[float, ...]
    valid: tuple[float, ...]
    bad: tuple[float, ...]
    absent: tuple[bool, ...]
    """Blocks in which no valid counter was there at all."""
    surplus: float
    """Good events in excess of valid ones, over the whole window."""
    silent: tuple[bool, ...] = ()
    """Blocks in which a counter was there and no number could be read from it: they say nothing."""

    @property
    def events(self) -> float:
        """Valid events of the whole window."""
        return sum(self.valid)

    @property
    def garbled(self) -> bool:
        """Whether more good events were counted than can be."""
        return self.surplus > max(SURPLUS_EVENTS, SURPLUS_SHARE * self.events)


@dataclass(frozen=True, slots=True)
class GaugeBlocks:
    """Mean finite value of a gauge in each block; None where there is none."""

    edges: tuple[float, ...]
    values: tuple[float | None, ...]
    absent: tuple[bool, ...]
    """Blocks without any sample; a block whose samples are all NaN is not absent, it says nothing."""
    garbled: bool = False
    """Whether the query gave several series where one is meant."""


def ratio_blocks(observed: Observed, edges: tuple[float, ...], scrape_interval: float, *, needs_good: bool = False) -> RatioBlocks:
    """Count a ratio's events in each block; with `needs_good`, blocks without any good counter are no evidence, instead of all bad."""
    everything = (*observed.good, *observed.valid)
    valid, good = increases(observed.valid, edges, everything), increases(observed.good, edges, everything)
    absent = _absent(observed.valid, edges, scrape_interval)
    silent = tuple(one or other for one, other in zip(_silent(observed.valid, edges), _silent(observed.good, edges), strict=True))
    valid = tuple(0.0 if unread else events for events, unread in zip(valid, silent, strict=True))
    good = tuple(0.0 if unread else events for events, unread in zip(good, silent, strict=True))
    if needs_good:
        blind = _absent(observed.good, edges, scrape_interval)
        valid = tuple(0.0 if unseen else events for events, unseen in zip(valid, blind, strict=True))
        good = tuple(0.0 if unseen else events for events, unseen in zip(good, blind, strict=True))
        absent = tuple(one or other for one, other in zip(absent, blind, strict=True))
    return RatioBlocks(edges, valid, _bad(valid, good), absent, max(0.0, sum(good) - sum(valid)), silent)


def increases(series: Sequence[Series], edges: Sequence[float], everything: Sequence[Series] = ()) -> tuple[float, ...]:
    """Return what counters rose by in each block (edge, next edge], all series together; nothing is extrapolated.

    A counter that falls has started again from zero. One that appears while its target was already being scraped starts from zero;
    one that appears together with its target is counted from its first sample on, since it may have run unseen.
    """
    first_seen = _first_seen((*series, *everything))
    found = [0.0] * max(0, len(edges) - 1)
    for one in series:
        samples = _counted(one)
        inside = [sample for sample in samples if edges and edges[0] < sample.at <= edges[-1]]
        before = [sample for sample in samples if edges and sample.at <= edges[0]]
        if not inside:
            continue
        born = first_seen[_target(one)] < inside[0].at
        start = before[-1] if before else Sample(inside[0].at, 0.0 if born else inside[0].value)
        for earlier, later in pairwise([start, *inside]):
            rise = later.value - earlier.value if later.value >= earlier.value else later.value
            found[bisect_left(edges, later.at) - 1] += rise
    return tuple(found)


def rate(series: Sequence[Series], start: float, end: float, gap: float) -> float | None:
    """Return events a second from the newest sample at `start` to the newest at `end`; None when there are no two to tell by.

    Counters that were not sampled for more than `gap` seconds at the end have stopped: time goes on without them.
    """
    times = sorted(sample.at for one in series for sample in _counted(one) if sample.at <= end)
    if not times:
        return None
    first, last = max((at for at in times if at <= start), default=times[0]), times[-1]
    covered = last - first if end - last <= gap else end - first
    return sum(increases(series, (first, last))) / covered if covered > 0 else None


def _counted(series: Series) -> tuple[Sample, ...]:
    """What a counter can be: not negative, and exact."""
    return tuple(sample for sample in series.samples if 0 <= sample.value <= MOST_EVENTS)


def _target(series: Series) -> tuple[str, ...]:
    labels = dict(series.labels)
    return tuple(labels.get(name, "") for name in TARGET)


def _first_seen(series: Sequence[Series]) -> dict[tuple[str, ...], float]:
    seen: dict[tuple[str, ...], float] = {}
    for one in series:
        samples = _counted(one)
        if samples:
            seen[_target(one)] = min(samples[0].at, seen.get(_target(one), math.inf))
    return seen


def _absent(series: Sequence[Series], edges: Sequence[float], slack: float) -> tuple[bool, ...]:
    """Blocks without any sample, nor one just before: a single missed scrape is no absence."""
    times = sorted(sample.at for one in series for sample in one.samples)
    return tuple(bisect_left(times, start - slack) == bisect_left(times, end + 1e-6) for start, end in pairwise(edges))


def _silent(series: Sequence[Series], edges: Sequence[float]) -> tuple[bool, ...]:
    """Blocks in which some series has samples, and none of them is a count."""
    found = [False] * max(0, len(edges) - 1)
    for one in series:
        counted = [sample.at for sample in _counted(one)]
        if len(counted) < len(one.samples):
            times = [sample.at for sample in one.samples]
            for number, (start, end) in enumerate(pairwise(edges)):
                found[number] |= bisect_right(times, start) < bisect_right(times, end) and bisect_right(counted, start) == bisect_right(counted, end)
    return tuple(found)


def _bad(valid: Sequence[float], good: Sequence[float]) -> tuple[float, ...]:
    """Return bad events in each block, none negative; their sum is what was valid and never became good.

    An event may count as valid in one block and as good in the next. Such a surplus makes up for blocks before it, so the running sum
    of bad events is held down to its later minima.
    """
    running, total = [], 0.0
    for ours, theirs in zip(valid, good, strict=True):
        total += ours - theirs
        running.append(total)
    least = math.inf
    for number in reversed(range(len(running))):
        least = running[number] = max(0.0, min(least, running[number]))
    return tuple(later - earlier for earlier, later in pairwise([0.0, *running]))


def gauge_blocks(observed: Observed, edges: tuple[float, ...]) -> GaugeBlocks:
    """Average a gauge's finite samples in each block."""
    garbled = len(observed.values) > 1
    samples = observed.values[0].samples if len(observed.values) == 1 else ()
    held: list[list[float]] = [[] for _ in edges[1:]]
    for sample in samples:
        if edges and edges[0] < sample.at <= edges[-1]:
            held[bisect_left(edges, sample.at) - 1].append(sample.value)
    finite = [[value for value in values if abs(value) <= FARTHEST] for values in held]
    means = tuple(math.fsum(value / len(values) for value in values) if values else None for values in finite)
    return GaugeBlocks(edges, means, tuple(not values for values in held), garbled)


def block_series(indicator: "AnyIndicator", observed: Observed, window: Window) -> tuple[tuple[float, float], ...]:
    """Return (end of the block in seconds since the epoch, share or value) of each block with data, for plots and the journal."""
    edges = grid(window.start, window.end, block_length(indicator, 0.0))
    if indicator.kind == "gauge":
        blocks = gauge_blocks(observed, edges)
        return tuple((end, value) for end, value in zip(edges[1:], blocks.values, strict=True) if value is not None)
    counted = ratio_blocks(observed, edges, 0.0)
    triples = zip(counted.edges[1:], counted.valid, counted.bad, strict=True)
    return tuple((end, 1 - bad / valid) for end, valid, bad in triples if valid > 0)
