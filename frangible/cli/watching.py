"""What a run tells while it goes on, kept up to date and put into words. No terminal here: see `live`."""

from dataclasses import dataclass, field

from frangible.cli.output import span
from frangible.progress import Event, IndicatorReading

__all__ = ["FaultInForce", "Watched", "line_of"]

MESSAGES = 4
"""Newest log messages kept in view."""


@dataclass
class FaultInForce:
    """One fault and what was last seen of it."""

    fault: str
    target: str
    state: str
    detail: str = ""


@dataclass
class Watched:
    """The newest of everything that a run has told."""

    run: str = ""
    environment: str = ""
    experiment: str = ""
    phase: str = "starting"
    until: float | None = None
    readings: dict[str, IndicatorReading] = field(default_factory=dict)
    load: float | None = None
    faults: dict[str, FaultInForce] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    last: Event | None = None
    """The event that ended the run: `verdict`, `refused` or `failed`."""

    def apply(self, event: Event) -> str | None:
        """Take one event in; return the line that it is worth, or None where nothing of interest changed."""
        line = line_of(event, self)
        self.run = event.get("run", self.run)
        match event["event"]:
            case "phase":
                self.phase, self.until = event.get("phase", self.phase), event.get("until")
            case "indicators":
                self.readings = {reading["indicator"]: reading for reading in event.get("readings", [])}
                self.load = event.get("load")
            case "fault":
                self.faults[event.get("lease", "")] = FaultInForce(
                    event.get("fault", ""), event.get("target", ""), event.get("state", ""), event.get("detail", "")
                )
            case "log":
                self.messages = [*self.messages, event.get("message", "")][-MESSAGES:]
            case "verdict" | "refused" | "failed":
                self.last = event
        return line


def line_of(event: Event, before: Watched) -> str | None:
    """Put an event into one line, given what was known before it; None where nothing of interest changed."""
    match event["event"]:
        case "started":
            return f"run {event['run']} is admitted"
        case "phase":
            return _phase(event, before)
        case "indicators":
            return _readings(event, before)
        case "fault":
            return _fault(event, before)
        case "log":
            return f"{event.get('level', 'info')}: {event.get('message', '')}"
        case _:
            return None


def _phase(event: Event, before: Watched) -> str | None:
    if event.get("phase") == before.phase:
        return None
    until = event.get("until")
    return f"{event.get('phase')}" + ("" if until is None else f", at most {span(max(0.0, until - event['at']))}")


def _readings(event: Event, before: Watched) -> str | None:
    """Only indicators whose state changed: a line a second would hide what matters."""
    changed = [
        one for one in event.get("readings", []) if one["indicator"] not in before.readings or before.readings[one["indicator"]]["state"] != one["state"]
    ]
    return "; ".join(reading_text(one) for one in changed) or None


def reading_text(reading: IndicatorReading) -> str:
    """Render `orders-acknowledged 0.9987 (at least 0.99): kept`."""
    return f"{reading['indicator']} {value_text(reading['value'])} ({reading['bound']}): {reading['state']}"


def value_text(value: float | None) -> str:
    """Render a value to five digits; a dash where there is none."""
    return "-" if value is None else f"{value:.5g}"


def _fault(event: Event, before: Watched) -> str | None:
    known = before.faults.get(event.get("lease", ""))
    if known is not None and known.state == event.get("state"):
        return None
    detail = event.get("detail")
    return f"{event.get('fault')} on {event.get('target')}: {event.get('state')}" + (f" ({detail})" if detail else "")
