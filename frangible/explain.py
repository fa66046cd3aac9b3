"""Why a run got its verdict, in sentences, and what to draw. Pure: a journal record in, text and numbers out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from frangible.detections import PREFIX
from frangible.fingerprint import Difference, diff
from frangible.journal.record import RunRecord
from frangible.judge import FaultProof, IndicatorVerdict, Outcome, Window, WindowName

__all__ = ["Explanation", "Plot", "deciding", "explain", "plot_of", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"
KEPT = {Outcome.HELD: "kept its bound", Outcome.DEVIATED: "broke its bound", Outcome.INCONCLUSIVE: "could not be decided"}
ORDER = (Outcome.DEVIATED, Outcome.INCONCLUSIVE, Outcome.HELD)
RELATIVE = "the baseline"
"""How a bound ends that is relative."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Plot:
    """One indicator over time. Times are seconds since the first window began."""

    indicator: str
    times: tuple[float, ...]
    values: tuple[float, ...]
    bound: float | None
    """Where the bound lies, if it is one number: as it is named, or above or below what was observed in the baseline."""
    bound_text: str
    windows: tuple[Window, ...]
    """The windows, on the plot's own clock."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict in sentences, part by part."""

    headline: str
    reasons: tuple[str, ...]
    indicators: tuple[str, ...]
    faults: tuple[str, ...]
    recovery: str
    detections: tuple[str, ...]
    """Whether our own alerts noticed; no part of the verdict."""
    changes: tuple[str, ...]
    """What changed in the environment since the run that it is compared with; the first sentence names that run."""
    notes: tuple[str, ...]
    plot: Plot | None

    def sections(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return heading and sentences of each part that has any."""
        parts = (
            ("Because", self.reasons),
            ("Indicators", self.indicators),
            ("Faults", self.faults),
            ("Recovery", (self.recovery,) if self.recovery else ()),
            ("Alerts", self.detections),
            ("Changed", self.changes),
            ("Also", self.notes),
        )
        return tuple((heading, sentences) for heading, sentences in parts if sentences)


def explain(record: RunRecord, previous: RunRecord | None = None) -> Explanation:
    """Put a run into sentences; `previous` is the run of the same experiment on the same environment before it."""
    return Explanation(
        headline=_headline(record),
        reasons=record.reasons,
        indicators=tuple(_indicator(one) for one in sorted(record.indicators, key=lambda one: ORDER.index(one.outcome))),
        faults=tuple(_fault(proof) for proof in record.proofs),
        recovery=_recovery(record),
        detections=tuple(f"{name.removeprefix(PREFIX)} {told}." for name, told in sorted(record.facts.items()) if name.startswith(PREFIX)),
        changes=_changes(record, previous),
        notes=_notes(record),
        plot=plot_of(record),
    )


def _headline(record: RunRecord) -> str:
    what = f"Run {record.id}: {record.experiment} on {record.environment}"
    if record.outcome is None:
        return f"{what} has no verdict yet: it is still {record.state}."
    took = "" if record.ended_at is None else f" after {record.ended_at - record.started_at:.0f} s"
    return f"{what} {_verb(record.outcome)}{took}; started by {record.actor or 'somebody unknown'}."


def _verb(outcome: str) -> str:
    return "was inconclusive" if outcome == Outcome.INCONCLUSIVE else outcome


def _indicator(one: IndicatorVerdict) -> str:
    """One indicator in one window: what was asked, what was seen, on how much evidence."""
    parts = [f"{one.indicator} {KEPT[one.outcome]} in the {one.window} window"]
    if one.bound:
        parts.append(f"asked: {one.bound}")
    if one.observed is not None:
        parts.append(f"observed: {_number(one.observed)}{_interval(one)}")
    evidence = _evidence(one)
    if evidence:
        parts.append(f"evidence: {evidence}")
    if one.reason and one.observed is None:  # else the reason says these numbers again
        parts.append(one.reason)
    return "; ".join(parts) + "."


def _interval(one: IndicatorVerdict) -> str:
    if one.low is None or one.high is None:
        return ""
    return f" (between {_number(one.low)} and {_number(one.high)})"


def _evidence(one: IndicatorVerdict) -> str:
    parts = []
    if one.total > 0:
        parts.append(f"{one.good:,.0f} of {one.total:,.0f} events good")
    if one.blocks:
        parts.append(f"{one.blocks} block{'s' if one.blocks != 1 else ''}")
    if one.design_effect is not None and one.design_effect > 1:
        parts.append(f"clustering makes it worth {1 / one.design_effect:.0%} of that")
    return ", ".join(parts)


def _number(value: float) -> str:
    """Four significant digits, more where a share is close to one and the digits decide."""
    return f"{value:.6g}" if 0.99 < value < 1 else f"{value:.4g}"


def _fault(proof: FaultProof) -> str:
    what = f"{proof.fault} on {proof.target}"
    if not proof.injected:
        return f"{what} was never injected{_detail(proof)}."
    end = "reverted" if proof.reverted else "NOT reverted: run `frangible recover`"
    proven = f"{what} was proven real in {proof.proven_share:.0%} of its hold (at least {proof.least_proven:.0%} is needed"
    if proof.proven_share >= proof.least_proven:
        return f"{proven}), then {end}{_detail(proof)}."
    if not proof.reverted:
        return f"{proven}, too little to count), then {end}{_detail(proof)}."
    why = f": {proof.detail}" if proof.detail else ""
    return f"{proven}, too little to count{why}), then {end}."


def _detail(proof: FaultProof) -> str:
    return f" ({proof.detail})" if proof.detail else ""


def _recovery(record: RunRecord) -> str:
    """Time to recover is a measurement, censored when the window ended first."""
    if record.recovered_after is not None:
        return f"Steady again {record.recovered_after:.1f} s after the revert was observed."
    window = next((one for one in record.windows if one.name is WindowName.RECOVERY), None)
    if window is None:
        return ""
    return f"Not steady again within the {window.end - window.start:.1f} s that were watched after the revert."


def _changes(record: RunRecord, previous: RunRecord | None) -> tuple[str, ...]:
    """Compare fingerprints with the run before."""
    if previous is None:
        return ()
    before = f"run {previous.id} ({previous.outcome or previous.state})"
    differences = tuple(_difference(one) for one in diff(previous.fingerprint, record.fingerprint))
    if previous.experiment_digest != record.experiment_digest:
        differences = ("the experiment's file was edited", *differences)
    if not differences:
        return (f"Nothing that the fingerprint records has changed since {before}.",)
    return (f"Since {before}:", *differences)


def _difference(one: Difference) -> str:
    name, old, new = one
    if old is None:
        return f"{name}: new, {new}"
    return f"{name}: gone, was {old}" if new is None else f"{name}: {old} -> {new}"


def _notes(record: RunRecord) -> tuple[str, ...]:
    missing = sorted(name.removeprefix("guard.") for name, value in record.facts.items() if value == "not configured")
    notes = [f"Guards that the inventory does not configure: {', '.join(missing)}."] if missing else []
    notes += [f"{name}: {value}" for name, value in sorted(record.facts.items()) if value != "not configured" and not name.startswith(PREFIX)]
    if record.note:
        notes.append(f"Note: {record.note}")
    if record.ticket:
        notes.append(f"Ticket: {record.ticket}")
    return tuple(notes)


def deciding(record: RunRecord) -> IndicatorVerdict | None:
    """Return the indicator that decided: the first with the run's outcome, the effect window before the others."""
    wanted = [one for one in record.indicators if one.outcome == record.outcome] or list(record.indicators)
    effect = [one for one in wanted if one.window is WindowName.EFFECT]
    return next(iter(effect or wanted), None)


def plot_of(record: RunRecord) -> Plot | None:
    """Return what to draw: the deciding indicator's values over time, or None when the record holds none."""
    one = deciding(record)
    if one is None or not isinstance(record.series, dict):
        return None
    points = _points(record.series.get(one.indicator))
    if not points:
        return None
    origin = min([window.start for window in record.windows] or [points[0][0]])
    return Plot(
        indicator=one.indicator,
        times=tuple(at - origin for at, _ in points),
        values=tuple(value for _, value in points),
        bound=_bound(record, one),
        bound_text=one.bound,
        windows=tuple(Window(window.name, window.start - origin, window.end - origin) for window in record.windows),
    )


def _points(series: object) -> list[tuple[float, float]]:
    """Read `[[at, value], …]`; blocks without a value are left out."""
    if not isinstance(series, list):
        return []
    pairs = [pair for pair in series if isinstance(pair, list) and len(pair) == 2]
    return sorted((float(at), float(value)) for at, value in pairs if isinstance(at, int | float) and isinstance(value, int | float))


def _bound(record: RunRecord, one: IndicatorVerdict) -> float | None:
    numbers = NUMBER.findall(one.bound)
    if len(numbers) != 1:
        return None
    bound = float(numbers[0])
    if not one.bound.endswith(RELATIVE):
        return bound
    before = next((each.observed for each in record.indicators if (each.indicator, each.window) == (one.indicator, WindowName.BASELINE)), None)
    return None if before is None else before + (bound if one.bound.endswith(f"above {RELATIVE}") else -bound)


def sparkline(plot: Plot, width: int = 60) -> tuple[str, ...]:
    """Draw the plot in two lines of text: bars, and below them which window each bar is in (b, e, r)."""
    end = max([plot.times[-1], *(window.end for window in plot.windows)])
    # No column narrower than the distance of the points: a gap is to mean that a value is missing.
    apart = median([after - before for before, after in pairwise(plot.times)] or [end])
    step = max(end / width, apart, 1e-9)
    columns = [_mean(plot, number * step, (number + 1) * step) for number in range(int(end / step) + 1)]
    low, high = min(plot.values), max(plot.values)
    bars = "".join(GAP if value is None else _bar(value, low, high) for value in columns)
    marks = "".join(_mark(plot.windows, (number + 0.5) * step) for number in range(len(columns)))
    scale = f"{_number(low)} to {_number(high)}"
    return (f"{bars}  {scale}", marks.rstrip())


def _mean(plot: Plot, start: float, end: float) -> float | None:
    inside = [value for at, value in zip(plot.times, plot.values, strict=True) if start <= at < end]
    return sum(inside) / len(inside) if inside else None


def _bar(value: float, low: float, high: float) -> str:
    if high <= low:
        return BARS[-1]
    return BARS[round((value - low) / (high - low) * (len(BARS) - 1))]


def _mark(windows: Sequence[Window], at: float) -> str:
    return next((window.name[0] for window in windows if window.start <= at <= window.end), " ")
