"""What a run tells those who watch it: one JSON object an event, one line each, in the run's `events.jsonl` and on the starter's pipe."""

from typing import Literal, NotRequired, TypedDict

__all__ = ["Event", "FaultState", "IndicatorReading", "Phase"]

type Phase = Literal["admission", "baseline", "effect", "recovery", "judging", "done"]
type FaultState = Literal["intended", "injecting", "injected", "proven", "not-proven", "reverting", "reverted", "revert-failed"]


class IndicatorReading(TypedDict):
    """One indicator's newest value."""

    indicator: str
    value: float | None
    bound: str
    state: Literal["kept", "broken", "no-data", "waived"]


class Event(TypedDict):
    """One event; which keys are present depends on `event`."""

    event: Literal["started", "phase", "indicators", "fault", "log", "refused", "failed", "verdict"]
    at: float
    """Seconds since the epoch."""
    run: str
    phase: NotRequired[Phase]
    until: NotRequired[float | None]
    """`phase`: when it ends at the latest, seconds since the epoch."""
    readings: NotRequired[list[IndicatorReading]]
    load: NotRequired[float | None]
    """`indicators`: offered load per second."""
    lease: NotRequired[str]
    fault: NotRequired[str]
    target: NotRequired[str]
    state: NotRequired[FaultState]
    detail: NotRequired[str]
    """`fault`: what was seen."""
    level: NotRequired[Literal["info", "warning", "error"]]
    message: NotRequired[str]
    """`log`, `failed`: one sentence."""
    reasons: NotRequired[list[str]]
    """`refused`, `verdict`."""
    outcome: NotRequired[str]
    exit_code: NotRequired[int]
    """`verdict`, `refused`, `failed`: what `frangible run` ends with."""
    journalled: NotRequired[bool]
    """`verdict`: False when the journal could not be written and the record was spooled to the run's folder."""
