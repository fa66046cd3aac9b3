"""What was read of a run's windows while it went on: the best that is left when the observer fails before the end."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from frangible.judge import Observed, Window, WindowName

if TYPE_CHECKING:
    from frangible.observing import WindowObserved

__all__ = ["Gathered"]

GROWTH = 1.25
"""A window is read again when it has grown by a quarter: at most a fifth of it is ever lost, and long windows are not read every second."""


class Gathered:
    """The newest whole reading of each window and hypothesis."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._extent: dict[WindowName, Window] = {}
        self._kept: dict[tuple[WindowName, str], WindowObserved] = {}

    def is_due(self, window: Window, *, over: bool) -> bool:
        """Say whether a window should be read now; `over` when it will not grow any more."""
        last = self._extent.get(window.name)
        if last is None or last.start != window.start:
            return True
        return window.end > last.end if over else window.end - window.start >= GROWTH * (last.end - last.start)

    def keep(self, window: Window, hypothesis: str, seen: "WindowObserved") -> None:
        """Keep a reading through which the observer was healthy."""
        if not any(one.observer_failure for one in (*(one for _, one in seen.indicators), *seen.load)):
            self._extent[window.name] = window
            self._kept[window.name, hypothesis] = seen

    def best(self, window: Window, hypothesis: str, seen: "WindowObserved") -> "WindowObserved":
        """Return a reading, with what an earlier one had more of wherever its observer failed."""
        kept = self._kept.get((window.name, hypothesis))
        if kept is None:
            return seen
        before = dict(kept.indicators)
        indicators = tuple((name, _fuller(one, before[name])) for name, one in seen.indicators)
        return replace(seen, indicators=indicators, load=tuple(map(_fuller, seen.load, kept.load)))


def _fuller(now: Observed, before: Observed) -> Observed:
    """A baseline was read when it was over, so its observer was healthy; of an effect the end may be missing."""
    if not now.observer_failure or _finite(before) <= _finite(now):
        return now
    return before if now.window is WindowName.BASELINE else replace(before, observer_failure=now.observer_failure)


def _finite(observed: Observed) -> int:
    every = (*observed.good, *observed.valid, *observed.values)
    return sum(math.isfinite(sample.value) for one in every for sample in one.samples)
