"""One indicator in one window: kept, broken, or not enough evidence to say."""

from dataclasses import dataclass, replace
from math import fsum
from typing import TYPE_CHECKING

from frangible.judge.blocks import GaugeBlocks, RatioBlocks, block_length, dropped, gauge_blocks, grid, ratio_blocks
from frangible.judge.bounds import Corridor, RatioLimits, corridor, gauge_text, number, percent, ratio_limits
from frangible.judge.evidence import IndicatorVerdict, Observed, Outcome, Window, WindowName
from frangible.judge.limits import ShareLimits, block_limits, drop_limits, mean_limits, share_limits

if TYPE_CHECKING:
    from frangible.hypothesis import GaugeIndicator, RatioIndicator

__all__ = ["ALLOWED_SHARE", "KEPT_LEVEL", "LEAST_BLOCKS", "Baseline", "Case", "baseline_of", "judge_indicator"]

KEPT_LEVEL = 0.05
"""Chance to call a bound kept whose true share lies below it: missed regressions (docs/judge.md)."""
LEAST_BLOCKS = 5
"""Blocks, all inside, that keep a gauge's bound: a gauge that is outside half of the time passes in 3 % of runs (1/2 to the power of 5)."""
ALLOWED_SHARE = 0.02
"""Share of blocks that noise may break: a gauge is broken when surely more of its blocks are outside."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an indicator was like before the fault."""

    present: bool
    good_present: bool = False
    share: ShareLimits | None = None
    level: tuple[float, float] | None = None
    """Gauge: limits of its mean."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known when one indicator is judged in one window."""

    name: str
    """How the indicator is called in the verdict."""
    window: Window
    """The part of the window that counts."""
    seen: Observed | None
    baseline: Baseline
    exercised: bool
    """Whether the least load was offered, so that absence means something."""
    scrape_interval: float
    broke_level: float
    """Chance to call a bound broken that was kept: false alarms."""

    @property
    def in_effect(self) -> bool:
        """Whether tolerances count."""
        return self.window.name is WindowName.EFFECT

    @property
    def problem(self) -> str:
        """Why the observer cannot be trusted here."""
        return "it was not observed" if self.seen is None else self.seen.observer_failure


def baseline_of(
    indicator: "RatioIndicator | GaugeIndicator", seen: Observed | None, window: Window | None, scrape_interval: float, broke_level: float
) -> Baseline:
    """Summarise an indicator's baseline window."""
    if seen is None or window is None:
        return Baseline(present=False)
    edges = _edges(indicator, window, scrape_interval)
    if indicator.kind == "gauge":
        gauge = gauge_blocks(seen, edges)
        values = [value for value in gauge.values if value is not None]
        return Baseline(bool(values) and not gauge.garbled, level=mean_limits(values, KEPT_LEVEL))
    blocks = ratio_blocks(seen, edges, scrape_interval)
    # The levels are swapped: what makes the baseline look better makes the fall look greater.
    share = share_limits(blocks.valid, blocks.bad, broke_level, KEPT_LEVEL, monotone=False) if blocks.events > 0 else None
    return Baseline(share is not None, good_present=any(one.samples for one in seen.good), share=share)


def judge_indicator(indicator: "RatioIndicator | GaugeIndicator", case: Case) -> IndicatorVerdict:
    """Judge one indicator in one window."""
    if indicator.kind == "gauge":
        return _judge_gauge(indicator, case)
    return _judge_ratio(indicator, case)


def _edges(indicator: "RatioIndicator | GaugeIndicator", window: Window, scrape_interval: float) -> tuple[float, ...]:
    return grid(window.start + dropped(indicator, scrape_interval), window.end, block_length(indicator, scrape_interval))


def _judge_ratio(indicator: "RatioIndicator", case: Case) -> IndicatorVerdict:
    limits = ratio_limits(indicator, case.window.name)
    edges = _edges(indicator, case.window, case.scrape_interval)
    seen = case.seen or Observed(case.window.name)
    needs_good = case.baseline.good_present and (indicator.when_absent == "ignore" or bool(case.problem))
    blocks = ratio_blocks(seen, edges, case.scrape_interval, needs_good=needs_good)
    unusable = _unusable(case, edges) or ("it counts more good events than valid ones" if blocks.garbled else "")
    if unusable:
        return _no_data(case, str(limits), unusable)
    if blocks.events <= 0:
        if any(blocks.silent):
            return _no_data(case, str(limits), "its counters gave no numbers")
        return _gone(indicator.when_absent, case, str(limits), "no valid event was counted")
    share = share_limits(blocks.valid, blocks.bad, KEPT_LEVEL, case.broke_level)
    outcome = _ratio_outcome(limits, share, case.baseline)
    gone = _absent_counts(blocks.absent, indicator.when_absent, case)
    silent = sum(blocks.silent)
    missing = _blocks_outcome(replace(gone, unknown=gone.unknown + silent, blocks=len(blocks.absent)), indicator.tolerated_share, case, 1)
    return IndicatorVerdict(
        indicator=case.name,
        window=case.window.name,
        outcome=_unless(case.problem, _worst(outcome, missing)),
        reason=_ratio_reason(limits, share, blocks, case) + _missing_reason(gone) + _silent_reason(silent) + _problem_reason(case.problem),
        bound=str(limits),
        observed=share.observed,
        low=share.low,
        high=share.high,
        good=blocks.events - sum(blocks.bad),
        total=blocks.events,
        blocks=sum(events > 0 for events in blocks.valid),
        design_effect=share.design_effect,
    )


def _ratio_outcome(limits: RatioLimits, share: ShareLimits, baseline: Baseline) -> Outcome:
    outcomes = [Outcome.HELD]
    if limits.at_least is not None:
        outcomes.append(_side(broke=share.high < limits.at_least, kept=share.low >= limits.at_least))
    if limits.drop_at_most is not None:
        least, greatest = drop_limits(baseline.share, share) if baseline.share is not None else (0.0, 1.0)
        outcomes.append(_side(broke=least > limits.drop_at_most, kept=greatest <= limits.drop_at_most))
    return _worst(*outcomes)


def _ratio_reason(limits: RatioLimits, share: ShareLimits, blocks: RatioBlocks, case: Case) -> str:
    clustered = ", in which bad events came in clusters" if share.design_effect > 1.05 else ""
    evidence = f"with evidence from {_plural(sum(events > 0 for events in blocks.valid), 'block')}{clustered}"
    asked = f"asked: {limits.in_percent}" if str(limits) else "no bound in this window"
    if limits.drop_at_most is not None and case.baseline.share is not None:
        asked += f", and the baseline had {percent(case.baseline.share.observed)}"
    return f"{_counted(share, blocks, evidence)}; {asked}"


def _counted(share: ShareLimits, blocks: RatioBlocks, evidence: str) -> str:
    """Say `757 of 759 events good (99.74 %, between 99.1 % and 99.9 % with evidence from 3 blocks)`."""
    bad = sum(blocks.bad)
    if bad <= 0:
        return f"all {blocks.events:,.0f} events good (at least {percent(share.low)} {evidence})"
    if bad >= blocks.events:
        return f"none of {blocks.events:,.0f} events good (at most {percent(share.high)} {evidence})"
    limits = f"{percent(share.observed)}, between {percent(share.low)} and {percent(share.high)} {evidence}"
    return f"{blocks.events - bad:,.0f} of {blocks.events:,.0f} events good ({limits})"


def _judge_gauge(indicator: "GaugeIndicator", case: Case) -> IndicatorVerdict:
    text = gauge_text(indicator, case.window.name)
    edges = _edges(indicator, case.window, case.scrape_interval)
    blocks = gauge_blocks(case.seen or Observed(case.window.name), edges)
    unusable = _unusable(case, edges) or ("its query gives several series, and one is meant" if blocks.garbled else "")
    if unusable:
        return _no_data(case, text, unusable)
    values = [value for value in blocks.values if value is not None]
    if not values:
        return _gone(indicator.when_absent, case, text, "its query gave no value") if all(blocks.absent) else _no_data(case, text, "its query gave only NaN")
    allowed = corridor(indicator, case.window.name, case.baseline.level)
    counts = _gauge_counts(blocks, allowed, indicator.when_absent, case)
    outcome = _blocks_outcome(counts, indicator.tolerated_share, case, LEAST_BLOCKS)
    return IndicatorVerdict(
        indicator=case.name,
        window=case.window.name,
        outcome=_unless(case.problem, outcome),
        reason=_gauge_reason(values, counts, text) + _problem_reason(case.problem),
        bound=text,
        observed=fsum(value / len(values) for value in values),
        low=min(values),
        high=max(values),
        good=float(sum(allowed.inside(value) for value in values)),
        total=float(len(values)),
        blocks=len(values),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Blocks that break a bound, that may or may not, and all that count."""

    broken: int
    unknown: int
    blocks: int
    absent: int = 0


def _gauge_counts(blocks: GaugeBlocks, allowed: Corridor, when_absent: str, case: Case) -> _Counts:
    """A block of NaN, or one that is missing while nobody can say why, may hide anything: it is unknown, not kept."""
    values = [value for value in blocks.values if value is not None]
    outside = sum(allowed.outside(value) for value in values)
    inside = sum(allowed.inside(value) for value in values)
    silent = sum(value is None and not absent for value, absent in zip(blocks.values, blocks.absent, strict=True))
    gone = _absent_counts(blocks.absent, when_absent, case)
    return _Counts(outside + gone.broken, len(values) - outside - inside + silent + gone.unknown, len(values) + silent + gone.blocks, gone.absent)


def _absent_counts(absent: tuple[bool, ...], when_absent: str, case: Case) -> _Counts:
    """Blocks without the series: broken, unknown (no healthy observer, or nothing was offered) or left out."""
    count = sum(absent)
    if when_absent == "ignore":
        return _Counts(0, 0, 0, count)
    certain = not case.problem and case.exercised and case.baseline.present
    return _Counts(count, 0, count, count) if certain else _Counts(0, count, count, count)


def _blocks_outcome(counts: _Counts, tolerated_share: float, case: Case, least_blocks: int) -> Outcome:
    """Judge a share of blocks against what is tolerated and what noise may do."""
    tolerated = tolerated_share if case.in_effect else 0.0
    low, _ = block_limits(counts.broken, counts.blocks, case.broke_level, KEPT_LEVEL)
    _, high = block_limits(counts.broken + counts.unknown, counts.blocks, case.broke_level, KEPT_LEVEL)
    spotless = counts.broken + counts.unknown == 0 and counts.blocks >= least_blocks
    return _side(broke=low > max(tolerated, ALLOWED_SHARE), kept=spotless or high <= tolerated)


def _gauge_reason(values: list[float], counts: _Counts, text: str) -> str:
    outside = "none" if counts.broken == 0 else "all" if counts.broken == counts.blocks > 1 else str(counts.broken)
    parts = [f"{outside} of {_plural(counts.blocks, 'block')} outside"]
    parts += [f"{counts.unknown} that say{'s' if counts.unknown == 1 else ''} nothing"] if counts.unknown else []
    parts += [f"in {counts.absent} the series was gone"] if counts.absent else []
    parts.append(f"values from {number(min(values))} to {number(max(values))}")
    return f"{', '.join(parts)}; {f'asked: {text}' if text else 'no bound in this window'}"


def _missing_reason(counts: _Counts) -> str:
    if not counts.absent:
        return ""
    ignored = "" if counts.blocks else ", which this indicator ignores"
    return f"; in {_plural(counts.absent, 'block')} the series was gone{ignored}"


def _silent_reason(silent: int) -> str:
    return f"; in {_plural(silent, 'block')} its counters gave no numbers" if silent else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _problem_reason(problem: str) -> str:
    return "; then the observer failed" if problem else ""


def _unusable(case: Case, edges: tuple[float, ...]) -> str:
    if case.seen is None:
        return "it was not observed"
    length = max(0.0, case.window.end - case.window.start)
    return "" if edges else f"the window of {length:.0f} s is too short for one block"


def _gone(when_absent: str, case: Case, text: str, what: str) -> IndicatorVerdict:
    """Judge a series that was not there in a whole window."""
    if case.problem:
        return _no_data(case, text, f"{what}, and the observer failed")  # its cause is a reason of its own
    if not case.baseline.present:
        return _no_data(case, text, f"{what}, in the baseline neither")
    if not case.exercised:
        return _no_data(case, text, f"{what}, and too little load was offered to tell why")
    if when_absent == "ignore":
        return _without_data(case, Outcome.HELD, text, f"gone: {what}, though it was there in the baseline; this indicator ignores that")
    return _without_data(case, Outcome.DEVIATED, text, f"gone: {what}, though it was there in the baseline and Prometheus kept scraping; asked: {text}")


def _no_data(case: Case, text: str, why: str) -> IndicatorVerdict:
    return _without_data(case, Outcome.INCONCLUSIVE, text, why)


def _without_data(case: Case, outcome: Outcome, text: str, reason: str) -> IndicatorVerdict:
    return IndicatorVerdict(case.name, case.window.name, outcome, reason, text, None, None, None, 0.0, 0.0, 0)


def _unless(problem: str, outcome: Outcome) -> Outcome:
    """What was broken before the observer failed stays broken; nothing is kept then."""
    return Outcome.INCONCLUSIVE if problem and outcome is Outcome.HELD else outcome


def _side(*, broke: bool, kept: bool) -> Outcome:
    if broke:
        return Outcome.DEVIATED
    return Outcome.HELD if kept else Outcome.INCONCLUSIVE


def _worst(*outcomes: Outcome) -> Outcome:
    return next(one for one in (Outcome.DEVIATED, Outcome.INCONCLUSIVE, Outcome.HELD) if one in outcomes)
