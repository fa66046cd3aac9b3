"""What the journal keeps of one run, and its JSON form: the export, and the spool when the journal cannot be written."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from frangible.errors import JournalError
from frangible.fault import JsonValue
from frangible.judge import Ending, FaultProof, IndicatorVerdict, Outcome, Window
from frangible.process import ProcessIdentity

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["FORMAT", "RunRecord", "RunState", "record_from_json", "record_to_json"]

FORMAT = 1
"""Version of the JSON form."""

type RunState = Literal["started", "finished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run of one experiment on one environment: written when it starts, and once more when it ends."""

    id: str
    """Sorts by time."""
    experiment: str
    """Short name."""
    experiment_title: str
    experiment_digest: str
    """SHA-256 of the experiment's file, hexadecimal."""
    environment: str
    region: str
    tier: str
    owner: str
    """The owning team."""
    note: str
    ticket: str
    actor: str
    """Who started it, `user@host`."""
    supervisor: ProcessIdentity
    """The process that watched the run; when it is dead and the run still `started`, the run is an orphan."""
    started_at: float
    """Seconds since the epoch."""
    state: RunState
    keys: tuple[str, ...]
    """Resource keys that the run held, each once."""
    ended_at: float | None = None
    """Seconds since the epoch; None while it runs."""
    outcome: str | None = None
    """A value of `Outcome`; None while it runs."""
    reasons: tuple[str, ...] = ()
    """Strongest first."""
    ending: str = ""
    """A value of `Ending`; empty while it runs."""
    windows: tuple[Window, ...] = ()
    indicators: tuple[IndicatorVerdict, ...] = ()
    proofs: tuple[FaultProof, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """What the environment was made of; see `frangible.fingerprint`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else a reader should know: guards that were not configured, clock skew, …"""
    recovered_after: float | None = None
    """Seconds from revert observed until steady; None when it was not seen."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds that parts of the run took."""
    chaos_journal: JsonValue = None
    """Chaos Toolkit's own journal of the run."""
    series: JsonValue = None
    """Compact values a block and indicator, for the plot of `explain`."""

    def unjudged(self, reason: str, at: float) -> "RunRecord":
        """Return the run as ended at `at` (seconds since the epoch) without a verdict: its runner died."""
        ending = str(Ending.RUNNER_DIED)
        return replace(self, ended_at=at, state="finished", outcome=str(Outcome.INCONCLUSIVE), reasons=(reason,), ending=ending)


def record_to_json(record: RunRecord) -> str:
    """Return the record as one JSON object with sorted keys and its `format`.

    Numbers that are not finite have no JSON form: in `chaos_journal` and `series` they become null.
    Raise `JournalError` when those two hold anything that is no JSON.
    """
    document = asdict(record) | {
        "format": FORMAT,
        "chaos_journal": _finite(record.chaos_journal),
        "series": _finite(record.series),
    }
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise JournalError(f"run {record.id}: expected JSON in `chaos_journal` and `series`: {error}") from error


def record_from_json(text: str) -> RunRecord:
    """Return the record that `record_to_json` wrote; raise `JournalError` that names what is wrong with anything else."""
    from pydantic import ValidationError

    document = _document(text)
    try:
        record = _adapter().validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
        raise JournalError(f"not a run's record: {problems}") from error
    _refuse_surplus(document, json.loads(record_to_json(record)), "")
    return record


def _document(text: str) -> dict[str, object]:
    """Parse the outer object and take its format off."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"not a run's record: expected one JSON object: {error}") from error
    if not isinstance(document, dict):
        raise JournalError(f"not a run's record: expected one JSON object, found {type(document).__name__}")
    found = document.pop("format", None)
    if found != FORMAT or isinstance(found, bool):
        raise JournalError(f"a run's record of format {found!r}: this version of frangible reads format {FORMAT}; use the version that wrote it")
    return document


def _refuse_surplus(given: object, understood: object, where: str) -> None:
    """Raise when a key was given that the record has no place for: dropping it would lose what somebody recorded."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            place = f"{where}.{key}".lstrip(".")
            if key not in understood:
                raise JournalError(f"not a run's record: unknown key {place!r}")
            _refuse_surplus(value, understood[key], place)
    elif isinstance(given, list) and isinstance(understood, list):
        for index, (left, right) in enumerate(zip(given, understood, strict=True)):
            _refuse_surplus(left, right, f"{where}.{index}")


def _finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return value


@cache
def _adapter() -> "TypeAdapter[RunRecord]":
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)
