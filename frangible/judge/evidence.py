"""What a run leaves for the judge, and what the judge answers."""

from dataclasses import dataclass
from enum import StrEnum

from frangible.metrics import Series

__all__ = [
    "Ending",
    "FaultProof",
    "IndicatorVerdict",
    "Observed",
    "Outcome",
    "RunEvidence",
    "Verdict",
    "Window",
    "WindowName",
]


class Outcome(StrEnum):
    """The three values of a verdict."""

    HELD = "held"
    DEVIATED = "deviated"
    INCONCLUSIVE = "inconclusive"


class WindowName(StrEnum):
    """The three windows of a run."""

    BASELINE = "baseline"
    EFFECT = "effect"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Window:
    """Start and end in seconds since the epoch, on Prometheus's clock."""

    name: WindowName
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What Prometheus held for one indicator in one window."""

    window: WindowName
    good: tuple[Series, ...] = ()
    """Ratio: raw samples of the good counter, with one sample before the window where there is one."""
    valid: tuple[Series, ...] = ()
    """Ratio: raw samples of the valid counter."""
    values: tuple[Series, ...] = ()
    """Gauge: values of the query at each step."""
    observer_failure: str = ""
    """Why the observer cannot be trusted in this window; empty when it was healthy throughout."""
    hypothesis: str = ""
    """Whose indicator or least load this is; empty where the run has one hypothesis."""


@dataclass(frozen=True, slots=True)
class FaultProof:
    """How much of a fault's hold was proven."""

    lease: str
    fault: str
    target: str
    injected: bool
    proven_share: float
    """0 to 1, of the hold as long as it lasted, however it ended."""
    least_proven: float
    reverted: bool
    detail: str = ""


class Ending(StrEnum):
    """How the method ended."""

    COMPLETED = "completed"
    NO_BASELINE = "no-baseline"
    ABORTED_BY_OPERATOR = "aborted-by-operator"
    ABORTED_BY_CONDITION = "aborted-by-condition"
    ACTION_FAILED = "action-failed"
    RUNNER_DIED = "runner-died"
    DEADLINE = "deadline"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """All that the judge may look at. See `judge` for the rules."""

    windows: tuple[Window, ...]
    observed: tuple[tuple[str, tuple[Observed, ...]], ...]
    """Per indicator name: its observations, one a window that took place."""
    load: tuple[Observed, ...]
    """Observations of the hypothesis's least-load counter (in `valid`)."""
    proofs: tuple[FaultProof, ...]
    ending: Ending
    ending_detail: str
    clock_problem: str
    """Why times cannot be trusted (skew, jump); empty when they can."""
    recovered_after: float | None
    """Seconds from revert observed until the steady stretch began; None when it was not seen (censored)."""
    recovery_limit: float
    recovery_complete: bool
    """False when recovery was cut short by anything but its own limit."""
    scrape_interval: float


@dataclass(frozen=True, slots=True)
class IndicatorVerdict:
    """One indicator in one window, with the numbers behind it.

    ratio: `observed`, `low` and `high` are shares of good events, with their one-sided limits; `good` and `total` are events.
    gauge: `observed` is the mean block, `low` and `high` the smallest and largest one; `good` and `total` are blocks.
    `observed` is None without data.
    """

    indicator: str
    window: WindowName
    outcome: Outcome
    reason: str
    bound: str
    observed: float | None
    low: float | None
    high: float | None
    good: float
    total: float
    blocks: int
    design_effect: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, with every reason, strongest first, and the evidence an indicator and window."""

    outcome: Outcome
    reasons: tuple[str, ...]
    indicators: tuple[IndicatorVerdict, ...]
