"""Time as a value: a clock that survives suspend, and waits that can be interrupted."""

import threading
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What the rest of frangible asks of time; tests replace it."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps and counts through suspend."""

    def wall(self) -> float:
        """Seconds since the Unix epoch, as this host believes."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait up to `seconds`; return True at once when `stop` is set."""


class SystemClock:
    """The host's own clocks."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_BOOTTIME, which counts through suspend (clock_gettime(2))."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait on `stop`; a signal handler or another thread ends the wait in milliseconds."""
        return stop.wait(max(0.0, seconds))
