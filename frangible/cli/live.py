"""Progress on a terminal that redraws, or line by line anywhere else. Always on stderr; stdout is for the result."""

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

import typer

from frangible.cli.output import span
from frangible.cli.watching import Watched, value_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from frangible.progress import Event

__all__ = ["REDRAW", "STYLES", "View", "clock_text", "open_view", "write_now"]

STYLES = {
    "kept": "green",
    "broken": "bold red",
    "no-data": "yellow",
    "waived": "dim",
    "proven": "bold red",
    "not-proven": "yellow",
    "reverted": "green",
    "revert-failed": "bold white on red",
}
REDRAW = 4
"""Times a second."""


class View(Protocol):
    """Where progress goes."""

    def show(self, event: "Event") -> None:
        """Take an event in."""

    def say(self, text: str) -> None:
        """Show a sentence of the command's own."""

    def close(self) -> None:
        """Leave the terminal as it was, with the last picture in it."""


def open_view(watched: Watched, *, quiet: bool) -> View:
    """Choose: nothing, a live picture where stderr is a terminal, or lines."""
    if quiet:
        return Quiet(watched)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Picture(watched)
    return Lines(watched)


class Quiet:
    """Keeps count and says nothing."""

    def __init__(self, watched: Watched) -> None:
        """Keep what is told in `watched`."""
        self.watched = watched

    def show(self, event: "Event") -> None:
        """Take an event in."""
        self.watched.apply(event)

    def say(self, text: str) -> None:
        """Say it all the same: it answers a key that somebody pressed."""
        write_now(text)

    def close(self) -> None:
        """Nothing to leave."""


class Lines:
    """One line for each event of interest, with its time."""

    def __init__(self, watched: Watched) -> None:
        """Keep what is told in `watched`."""
        self.watched = watched

    def show(self, event: "Event") -> None:
        """Print the event's line, if it is worth one."""
        line = self.watched.apply(event)
        if line is not None:
            typer.echo(f"{clock_text(event['at'])} {line}", err=True)

    def say(self, text: str) -> None:
        """Print a sentence."""
        write_now(f"{clock_text(time.time())} {text}")

    def close(self) -> None:
        """Nothing to leave."""


def write_now(text: str) -> None:
    """Write past Python's buffers: this is called from a signal handler, which may interrupt a write to them."""
    os.write(2, f"{text}\n".encode())


def clock_text(at: float) -> str:
    """Render the time of day, UTC."""
    return time.strftime("%H:%M:%SZ", time.gmtime(at))


class Picture:
    """Phase with countdown, indicators, load and faults, redrawn in place."""

    def __init__(self, watched: Watched) -> None:
        """Start to draw; rich is imported here, while the supervisor starts anyway."""
        from rich.console import Console
        from rich.live import Live

        self.watched = watched
        self._live: Live = Live(
            get_renderable=lambda: picture(self.watched, time.time()),
            console=Console(stderr=True),
            refresh_per_second=REDRAW,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, event: "Event") -> None:
        """Take an event in; the next redraw shows it."""
        self.watched.apply(event)

    def say(self, text: str) -> None:
        """Show a sentence under the picture."""
        self.watched.messages = [*self.watched.messages, text][-4:]

    def close(self) -> None:
        """Draw the last picture and stop."""
        self._live.stop()


def picture(watched: Watched, now: float) -> "RenderableType":
    """Draw everything that is known."""
    from rich.console import Group
    from rich.text import Text

    left = "" if watched.until is None else f", {span(max(0.0, round(watched.until - now)))} left at most"
    head = Text.assemble((f"{watched.experiment} on {watched.environment}  ", "bold"), (watched.phase, "bold cyan"), left)
    if watched.load is not None:
        head.append(f"  offered load {watched.load:.5g}/s")
    parts: list[RenderableType] = [head]
    if watched.readings:
        parts.append(_indicators(watched))
    if watched.faults:
        parts.append(_faults(watched))
    parts.extend(Text(message, style="yellow") for message in watched.messages)
    return Group(*parts)


def _table(*names: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _indicators(watched: Watched) -> "Table":
    from rich.text import Text

    table = _table("indicator", "value", "bound", "state")
    for one in watched.readings.values():
        table.add_row(Text(one["indicator"]), value_text(one["value"]), Text(one["bound"]), Text(one["state"], style=STYLES.get(one["state"], "")))
    return table


def _faults(watched: Watched) -> "Table":
    from rich.text import Text

    table = _table("fault", "target", "state", "seen")
    for one in watched.faults.values():
        table.add_row(Text(one.fault), Text(one.target), Text(one.state, style=STYLES.get(one.state, "")), Text(one.detail))
    return table
