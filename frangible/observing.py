"""Collecting what Prometheus holds of a hypothesis: whole windows for the judge, the newest moments for whoever watches."""

import math
import threading
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from frangible.errors import ObserverFailed
from frangible.judge.blocks import block_length, dropped, gauge_blocks, grid, increases, ratio_blocks
from frangible.judge.bounds import gauge_text, number, ratio_limits
from frangible.judge.evidence import Observed, Window, WindowName
from frangible.judge.recovering import BlockState, block_states
from frangible.metrics import Metrics, Series
from frangible.template import render

if TYPE_CHECKING:
    from frangible.clock import Clock
    from frangible.hypothesis import GaugeIndicator, Hypothesis, RatioIndicator
    from frangible.progress import IndicatorReading

    type AnyIndicator = RatioIndicator | GaugeIndicator

__all__ = ["Current", "WindowObserved", "current", "observe", "observer_problem", "steady", "unread", "wait_until_held"]

ALIVE = "up{${labels}}"
"""Prometheus writes it for each target at each scrape, 0 where the scrape failed (Prometheus: jobs and instances)."""
GAP = 3.0
"""Scrape intervals without any sample that are a gap: one missed scrape is none."""
ASK_AGAIN = 0.25
"""Seconds between two questions whether Prometheus holds a window's end."""


@dataclass(frozen=True, slots=True)
class WindowObserved:
    """One window of one hypothesis."""

    indicators: tuple[tuple[str, Observed], ...]
    """By the indicator's name, in the hypothesis's order."""
    load: tuple[Observed, ...]
    """The least-load counter; empty where the hypothesis needs no load."""


@dataclass(frozen=True, slots=True)
class Current:
    """The newest moments of one hypothesis."""

    readings: "list[IndicatorReading]"
    load: float | None
    """Offered load a second, None where the hypothesis states none or nothing was seen."""


def observe(metrics: Metrics, hypothesis: "Hypothesis", labels: Mapping[str, str], window: Window, scrape_interval: float) -> WindowObserved:
    """Collect every indicator and the load of one window, and whether the observer was healthy throughout.

    Never raises for Prometheus's sake: what it could not answer is in `observer_failure`.
    """
    asked = _Asked(metrics, labels, scrape_interval)
    unhealthy = observer_problem(metrics, labels, window.start, window.end, scrape_interval)
    found = []
    for indicator in hypothesis.indicators:
        try:
            found.append((indicator.name, asked.indicator(indicator, window, hypothesis.name, unhealthy)))
        except ObserverFailed as error:
            found.append((indicator.name, Observed(window.name, observer_failure=str(error), hypothesis=hypothesis.name)))
    if hypothesis.requires is None:
        return WindowObserved(tuple(found), ())
    try:
        load = Observed(window.name, valid=asked.counter(hypothesis.requires.metric, window), observer_failure=unhealthy, hypothesis=hypothesis.name)
    except ObserverFailed as error:
        load = Observed(window.name, observer_failure=str(error), hypothesis=hypothesis.name)
    return WindowObserved(tuple(found), (load,))


def unread(hypothesis: "Hypothesis", window: Window, why: str) -> WindowObserved:
    """Return what is known of a window that Prometheus was not asked about: nothing, and why."""
    nothing = Observed(window.name, observer_failure=why, hypothesis=hypothesis.name)
    return WindowObserved(tuple((indicator.name, nothing) for indicator in hypothesis.indicators), () if hypothesis.requires is None else (nothing,))


def observer_problem(metrics: Metrics, labels: Mapping[str, str], start: float, end: float, scrape_interval: float) -> str:
    """Say why Prometheus cannot be trusted between two times; empty when it scraped something of the environment throughout.

    A scrape that failed counts: then the observer did its work, and the observed did not answer.
    """
    longest = GAP * scrape_interval
    try:
        series = metrics.raw(render(ALIVE, labels), start - longest, end)
    except ObserverFailed as error:
        return str(error)
    if not series:
        return (
            f"Prometheus has no series {render(ALIVE, labels)} in this window, so nobody can say whether it kept scraping; do its targets carry these labels?"
        )
    times = sorted({sample.at for one in series for sample in one.samples if math.isfinite(sample.value)})
    known = bisect_right(times, start)
    for earlier, later in pairwise([times[known - 1] if known else start, *times[known:], end]):
        if later - earlier > longest:
            return f"Prometheus scraped nothing of the environment for {later - earlier:.1f} s, and {longest:g} s is the longest that counts as no gap"
    return ""


def wait_until_held(metrics: Metrics, labels: Mapping[str, str], end: float, stop: threading.Event, clock: "Clock", limit: float) -> bool:
    """Wait until Prometheus holds samples of the environment's targets later than `end`; return False when `limit` seconds or `stop` came first.

    All targets count for the first half of the limit, then any of them: one that is no longer scraped must not hold up the rest.
    """
    query = f"timestamp({render(ALIVE, labels)})"
    started = clock.monotonic()
    while True:
        waited = clock.monotonic() - started
        try:
            newest = [one.samples[-1].value for one in metrics.instant(query)]
        except ObserverFailed:
            newest = []
        later = [at > end for at in newest]
        if later and (all(later) or (any(later) and waited >= limit / 2)):
            return True
        if waited >= limit or clock.wait(stop, min(ASK_AGAIN, limit - waited)):
            return False


def current(metrics: Metrics, hypothesis: "Hypothesis", labels: Mapping[str, str], scrape_interval: float, *, effect: bool = False) -> Current:
    """Read each indicator's newest block, and the load over the last few scrapes; raise `ObserverFailed` when Prometheus cannot be asked.

    With `effect`, an indicator that is waived while the fault is in force says so, whatever its value.
    """
    asked = _Asked(metrics, labels, scrape_interval)
    now = metrics.time()
    readings = [_reading(asked, indicator, now, effect=effect) for indicator in hypothesis.indicators]
    return Current(readings, None if hypothesis.requires is None else _rate(asked, hypothesis.requires.metric, now, (GAP + 1) * scrape_interval))


def steady(
    metrics: Metrics,
    hypothesis: "Hypothesis",
    labels: Mapping[str, str],
    seconds: float,
    scrape_interval: float,
    *,
    baseline: Window | None = None,
) -> str:
    """Say why the newest `seconds` are not steady; empty when every block keeps its plain bound, with data, and the load is offered.

    Bounds relative to the baseline count where `baseline` is given: pass it when recovery is awaited. An indicator that is gone then, and
    whose absence is ignored, does not hold up the recovery. Raises `ObserverFailed` when Prometheus cannot be asked.
    """
    asked = _Asked(metrics, labels, scrape_interval)
    now = metrics.time()
    start = now - max(seconds, 2 * scrape_interval)
    unhealthy = observer_problem(metrics, labels, start, now, scrape_interval)
    if unhealthy:
        raise ObserverFailed(unhealthy)
    if hypothesis.requires is not None:
        rate = _rate(asked, hypothesis.requires.metric, now, now - start)
        if rate is None or rate < hypothesis.requires.at_least:
            return f"{number(rate or 0.0)} a second are offered, and {hypothesis.name} needs at least {number(hypothesis.requires.at_least)}"
    for indicator in hypothesis.indicators:
        problem = _unsteady(asked, indicator, Window(WindowName.RECOVERY, start, now), baseline)
        if problem:
            return problem
    return ""


class _Asked:
    """Each selector is asked for once, however many indicators share it."""

    def __init__(self, metrics: Metrics, labels: Mapping[str, str], scrape_interval: float) -> None:
        self.metrics = metrics
        self.labels = labels
        self.scrape_interval = scrape_interval
        self._raw: dict[tuple[str, float, float], tuple[Series, ...]] = {}

    def counter(self, template: str, window: Window) -> tuple[Series, ...]:
        """Raw samples of a window, with the newest one before it."""
        key = (template, window.start, window.end)
        if key not in self._raw:
            before = window.start - (GAP + 1) * self.scrape_interval
            self._raw[key] = tuple(_one_before(one, window.start) for one in self.metrics.raw(render(template, self.labels), before, window.end))
        return self._raw[key]

    def gauge(self, indicator: "GaugeIndicator", window: Window) -> tuple[Series, ...]:
        """A gauge's values, no closer together than it looks back, the last one at the window's end."""
        step = max(self.scrape_interval, indicator.lookback)
        count = math.floor((window.end - window.start) / step + 1e-9)
        return self.metrics.range(render(indicator.query, self.labels), window.end - count * step, window.end, step)

    def indicator(self, indicator: "AnyIndicator", window: Window, hypothesis: str = "", problem: str = "") -> Observed:
        """All that one indicator needs of a window."""
        if indicator.kind == "gauge":
            return Observed(window.name, values=self.gauge(indicator, window), observer_failure=problem, hypothesis=hypothesis)
        good, valid = self.counter(indicator.good, window), self.counter(indicator.valid, window)
        return Observed(window.name, good=good, valid=valid, observer_failure=problem, hypothesis=hypothesis)


def _one_before(series: Series, start: float) -> Series:
    """Keep one sample before the window: what a counter stood at when it began."""
    times = [sample.at for sample in series.samples]
    return Series(series.labels, series.samples[max(0, bisect_right(times, start) - 1) :])


def _rate(asked: _Asked, template: str, now: float, seconds: float) -> float | None:
    """Events a second between the oldest and the newest scrape of the last seconds; None when nothing was seen."""
    window = Window(WindowName.RECOVERY, now - seconds, now)
    series = asked.counter(template, window)
    times = [sample.at for one in series for sample in one.samples]
    if not times or max(times) <= min(times):
        return None
    # A generator that stopped is missing from the newest scrapes: time goes on without it.
    covered = max(times) - min(times) if now - max(times) <= GAP * asked.scrape_interval else now - min(times)
    return sum(increases(series, (min(times), now))) / covered


def _reading(asked: _Asked, indicator: "AnyIndicator", now: float, *, effect: bool) -> "IndicatorReading":
    name = WindowName.EFFECT if effect else WindowName.RECOVERY
    edges = (now - block_length(indicator, asked.scrape_interval), now)
    observed = asked.indicator(indicator, Window(name, *edges))
    value = _value(indicator, observed, edges, asked.scrape_interval)
    (state,) = block_states(indicator, observed, edges, asked.scrape_interval)
    shown = "waived" if effect and indicator.waived_during_effect else "no-data" if state == "absent" else state
    return {"indicator": indicator.name, "value": value, "bound": _plain_bound(indicator), "state": shown}


def _plain_bound(indicator: "AnyIndicator") -> str:
    return gauge_text(indicator, WindowName.RECOVERY) if indicator.kind == "gauge" else str(ratio_limits(indicator, WindowName.RECOVERY))


def _value(indicator: "AnyIndicator", observed: Observed, edges: tuple[float, ...], scrape_interval: float) -> float | None:
    if indicator.kind == "gauge":
        return gauge_blocks(observed, edges).values[0] if len(observed.values) == 1 else None
    blocks = ratio_blocks(observed, edges, scrape_interval)
    return 1 - blocks.bad[0] / blocks.valid[0] if blocks.events > 0 else None


def _unsteady(asked: _Asked, indicator: "AnyIndicator", window: Window, baseline: Window | None) -> str:
    length = block_length(indicator, asked.scrape_interval)
    # A stretch shorter than a block is one block; a gauge then looks back a little further than asked.
    window = Window(window.name, min(window.start, window.end - length), window.end)
    edges = grid(window.start, window.end, length)
    observed = asked.indicator(indicator, window)
    share, level = _before(asked, indicator, baseline)
    states = block_states(indicator, observed, edges, asked.scrape_interval, share, level)
    tolerated: tuple[BlockState, ...] = ("kept", "absent") if baseline is not None and indicator.when_absent == "ignore" else ("kept",)
    bad = [state for state in states if state not in tolerated]
    if not bad:
        return ""
    text = _plain_bound(indicator)
    if "broken" in bad:
        return f"{indicator.name} broke its bound ({text}) in {bad.count('broken')} of the newest {len(states)} blocks"
    return f"{indicator.name} has no data in {len(bad)} of the newest {len(states)} blocks"


def _before(asked: _Asked, indicator: "AnyIndicator", baseline: Window | None) -> tuple[float | None, tuple[float, float] | None]:
    """What the baseline had, for bounds relative to it: a ratio's share, or a gauge's mean."""
    if baseline is None:
        return None, None
    edges = grid(baseline.start + dropped(indicator, asked.scrape_interval), baseline.end, block_length(indicator, asked.scrape_interval))
    if indicator.kind == "gauge":
        if indicator.bound.rise_at_most is None and indicator.bound.drop_at_most is None:
            return None, None
        values = [value for value in gauge_blocks(asked.indicator(indicator, baseline), edges).values if value is not None]
        mean = sum(values) / len(values) if values else None
        return None, None if mean is None else (mean, mean)
    if indicator.bound.drop_at_most is None:
        return None, None
    blocks = ratio_blocks(asked.indicator(indicator, baseline), edges, asked.scrape_interval)
    return (1 - sum(blocks.bad) / blocks.events if blocks.events > 0 else None), None
