"""What a run tells while it goes on: one line of JSON an event, for the run's folder and for whoever started it."""

import contextlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from frangible.channel import Channel, ChannelClosed, Message

if TYPE_CHECKING:
    from frangible.plan import Plan

__all__ = ["Emit", "Telling"]

type Emit = Callable[..., None]
"""`Telling.emit`: takes the parts of an event by name (see `frangible.progress`)."""


class Telling:
    """Where the events of one run go."""

    def __init__(self, plan: "Plan", starter: Channel | None) -> None:
        """Prepare; nothing is written before `open`."""
        self.starter = starter
        self.also: Callable[[Message], None] | None = None
        """Gets each event too; returns at once and never raises."""
        self._plan = plan
        self._file: TextIO | None = None

    def open(self) -> None:
        """Begin the run's file of events."""
        self._file = self._plan.events_path.open("a", encoding="utf-8", buffering=1)

    def emit(self, **event: object) -> None:
        """Write one event to the run's file and to the starter."""
        message: Message = {"at": time.time(), "run": self._plan.run_id, **event}
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk must not stop a revert
                self._file.write(json.dumps(message) + "\n")
        if self.starter is not None:
            with contextlib.suppress(ChannelClosed):
                self.starter.send(message)
        if self.also is not None:
            self.also(message)
