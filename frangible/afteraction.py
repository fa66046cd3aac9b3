"""The after-action report of a game day, in Markdown. Pure: what was planned and what came of it in, text out.

It is for people who were not there: facts and people, the checks, the timeline, the verdicts with their reasons, whether alerts noticed, what was
stopped and why, and what each team has to look at next.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.agenda import Agenda
    from frangible.trials import Check

__all__ = ["DayReport", "Looked", "RunOutcome", "markdown"]

MARKS = re.compile(r"([\\`*<>|\[\]])")
"""What Markdown would take for its own."""
NEXT = {
    "deviated": "find out why, mend it, run it again: `frangible explain {run}`",
    "inconclusive": "it says nothing about the environment: remove the cause and run it again",
    "refused": "a guard said no: what it names has to be put right first",
    "failed": "an error of frangible's own: look into the run's log",
    "died": "its supervisor died: look into the run's log, and whether anything is left in force: `frangible status`",
    "not started": "still to be run",
    "left": "was left in progress: `frangible status`, then `frangible journal show {run}`",
}
"""What follows from an outcome; `held` asks for nothing."""
MISSED = ("did not fire", "fired too late", "no data", "was firing already")


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """One run of the day, or one that never came to be."""

    wave: str
    experiment: str
    environment: str
    team: str
    contact: str
    outcome: str
    reasons: tuple[str, ...] = ()
    run: str = ""
    """Empty where it was not started."""
    began: float | None = None
    """Seconds since the epoch."""
    ended: float | None = None
    happened: tuple[tuple[float, str], ...] = ()
    """What its faults did, by time."""
    detections: tuple[tuple[str, str], ...] = ()
    """Alert, and what it did."""


@dataclass(frozen=True, slots=True)
class Looked:
    """One check, and the environment that it was about; empty for all of them."""

    environment: str
    check: "Check"


@dataclass(frozen=True, slots=True)
class DayReport:
    """All that there is to tell."""

    agenda: "Agenda"
    plan: str
    """Its file."""
    digest: str
    """SHA-256 of the file, hexadecimal."""
    actor: str
    version: str
    began: float
    ended: float | None
    """None while the day goes on."""
    looked: tuple[Looked, ...]
    runs: tuple[RunOutcome, ...]
    happened: tuple[tuple[float, str], ...]
    """What the day itself did: checks, waves, pauses."""
    stopped: str = ""
    """Why not everything was run."""


def markdown(report: DayReport) -> str:
    """Render the report."""
    parts = [_head(report), _people(report), _checks(report), _timeline(report), _verdicts(report), _detections(report), _stopped(report), _follow_ups(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: DayReport) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in Counter(one.outcome for one in report.runs).items())
    ended = "still going on" if report.ended is None else _moment(report.ended)
    facts = [
        ("outcome", f"{_many(len(report.runs), 'run')}: {counts}" if report.runs else "nothing was run"),
        ("stopped", report.stopped or "no: everything that was planned was run"),
        ("began", _moment(report.began)),
        ("ended", ended),
        ("started by", report.actor),
        ("plan", f"{report.plan} (SHA-256 {report.digest[:16]})"),
        ("ticket", report.agenda.ticket),
        ("frangible", report.version),
    ]
    table = _table(("fact", "value"), [(name, _text(value)) for name, value in facts if value])
    purpose = f"{_text(report.agenda.purpose)}\n\n" if report.agenda.purpose else ""
    return f"# After-action report: {_text(report.agenda.title)}\n\n{purpose}{table}"


def _people(report: DayReport) -> str:
    agenda = report.agenda
    owners = {one.team: one.contact for one in report.runs}
    rows = [(person.name, person.role, person.contact) for person in agenda.people]
    rows += [(team, "owns environments of the day", contact) for team, contact in sorted(owners.items())]
    rows += [(team, "takes part", "") for team in agenda.teams if team not in owners]
    return f"## People and teams\n\n{_table(('who', 'role', 'contact'), [tuple(map(_text, row)) for row in rows])}" if rows else ""


def _checks(report: DayReport) -> str:
    failed = [one for one in report.looked if not one.check.ok]
    head = f"## Go or no-go\n\n{len(report.looked) - len(failed)} of {_many(len(report.looked), 'check')} passed"
    if not failed:
        return f"{head}."
    rows = [(one.environment or "all", one.check.name, one.check.found, one.check.advice) for one in failed]
    return f"{head}; these did not:\n\n{_table(('environment', 'check', 'found', 'advice'), [tuple(map(_text, row)) for row in rows])}"


def _timeline(report: DayReport) -> str:
    entries = sorted([*report.happened, *(entry for one in report.runs for entry in _told(one))], key=lambda entry: entry[0])
    rows = [(f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}", _text(what)) for at, what in entries]
    return f"## Timeline\n\n{_table(('UTC', 'what'), rows)}"


def _told(one: RunOutcome) -> Iterator[tuple[float, str]]:
    what = f"{one.experiment} on {one.environment}"
    if one.began is not None:
        yield one.began, f"{what}: started"
    yield from ((at, f"{what}: {said}") for at, said in one.happened)
    if one.ended is not None:
        yield one.ended, f"{what}: {one.outcome}"


def _verdicts(report: DayReport) -> str:
    rows = [
        (
            _text(one.wave),
            _text(one.experiment),
            _text(one.environment),
            _text(one.team),
            f"**{_text(one.outcome)}**",
            _text("; ".join(one.reasons)),
            f"`{one.run}`" if one.run else "",
        )
        for one in report.runs
    ]
    return f"## Verdicts\n\n{_table(('wave', 'experiment', 'environment', 'team', 'verdict', 'reasons', 'run'), rows)}" if rows else ""


def _detections(report: DayReport) -> str:
    rows = [(_text(one.environment), _text(one.experiment), _text(alert), _text(told)) for one in report.runs for alert, told in one.detections]
    if not report.runs:
        return ""
    told = _table(("environment", "experiment", "alert", "what it did"), rows) if rows else "No hypothesis of these runs names an alert that should notice."
    return f"## Detections\n\n{told}"


def _stopped(report: DayReport) -> str:
    if not report.stopped:
        return ""
    left = [one for one in report.runs if one.outcome == "not started"]
    listed = "".join(f"\n- {_text(one.experiment)} on {_text(one.environment)}" for one in left)
    return f"## What was stopped, and why\n\n{_text(report.stopped[:1].upper() + report.stopped[1:])}." + (f" Not started:\n{listed}" if left else "")


def _follow_ups(report: DayReport) -> str:
    due = sorted([(one, what) for one in report.runs for what in _due(one)], key=lambda each: each[0].team)
    if not due:
        return "## Follow-ups\n\nNone." if report.runs else ""
    parts = []
    for team, group in groupby(due, key=lambda each: each[0].team):
        found = list(group)
        contact = found[0][0].contact
        head = f"### {_text(team or 'nobody')}" + (f" ({_text(contact)})" if contact else "")
        parts.append("\n".join([head, "", *(f"- [ ] {_text(one.environment)}, {_text(one.experiment)}: {what}" for one, what in found)]))
    return "## Follow-ups\n\n" + "\n\n".join(parts)


def _due(one: RunOutcome) -> Iterator[str]:
    if one.outcome in NEXT:
        why = f" ({_text(one.reasons[0])})" if one.reasons else ""
        yield f"{one.outcome}{why}; {NEXT[one.outcome].format(run=one.run)}"
    for alert, told in one.detections:
        if one.outcome == "deviated" and told.startswith(MISSED):  # where nothing broke, an alert has nothing to say
            yield f"the alert {_text(alert)} {_text(told)}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: str) -> str:
    """Put plain text into Markdown, on one line."""
    return MARKS.sub(r"\\\1", " ".join(value.split()))


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
