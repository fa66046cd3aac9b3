"""What was read of a window before the observer failed."""

from dataclasses import replace

import pytest

from frangible.judge import Observed, Window, WindowName
from frangible.metrics import Sample, Series
from frangible.observing import WindowObserved
from frangible.supervisor.gathering import Gathered

BASELINE, EFFECT = WindowName.BASELINE, WindowName.EFFECT


def seen(window: WindowName, samples: int, failure: str = "", value: float = 1.0) -> WindowObserved:
    series = (Series((), tuple(Sample(float(at), value) for at in range(samples))),) if samples else ()
    one = Observed(window, good=series, valid=series, observer_failure=failure)
    return WindowObserved((("orders", one),), (Observed(window, valid=series, observer_failure=failure),))


def best(kept: WindowObserved, now: WindowObserved, window: WindowName = EFFECT) -> Observed:
    gathered = Gathered()
    gathered.keep(Window(window, 0.0, 10.0), "flow", kept)
    found = gathered.best(Window(window, 0.0, 12.0), "flow", now)
    assert found.load[0].observer_failure == found.indicators[0][1].observer_failure
    return found.indicators[0][1]


@pytest.mark.parametrize("now", [seen(EFFECT, 0, "gone"), seen(EFFECT, 4, "gone"), seen(EFFECT, 12, "gone", float("nan"))], ids=["nothing", "less", "NaN"])
def test_an_earlier_reading_counts_where_the_last_one_failed_and_still_says_that_it_did(now: WindowObserved) -> None:
    found = best(seen(EFFECT, 10), now)
    assert len(found.good[0].samples) == 10
    assert found.observer_failure == "gone"


def test_a_baseline_that_was_read_when_it_was_over_stays_whole() -> None:
    assert best(seen(BASELINE, 10), seen(BASELINE, 0, "gone"), BASELINE).observer_failure == ""


@pytest.mark.parametrize("now", [seen(EFFECT, 3), seen(EFFECT, 0), seen(EFFECT, 12, "a gap")], ids=["healthy", "healthy and empty", "failed with more"])
def test_the_last_reading_counts_when_it_was_healthy_or_has_more(now: WindowObserved) -> None:
    assert best(seen(EFFECT, 10), now) == now.indicators[0][1]


def test_a_reading_whose_observer_failed_is_not_kept() -> None:
    gathered, window = Gathered(), Window(EFFECT, 0.0, 10.0)
    gathered.keep(window, "flow", seen(EFFECT, 10, "a gap"))
    assert gathered.is_due(window, over=False)
    assert gathered.best(window, "flow", seen(EFFECT, 0, "gone")) == seen(EFFECT, 0, "gone")


def test_a_window_is_read_again_when_it_has_grown_by_a_quarter_or_is_over() -> None:
    gathered, window = Gathered(), Window(EFFECT, 0.0, 10.0)
    gathered.keep(window, "flow", seen(EFFECT, 10))
    assert [gathered.is_due(replace(window, end=end), over=False) for end in (10.0, 12.0, 12.5)] == [False, False, True]
    assert [gathered.is_due(replace(window, end=end), over=True) for end in (10.0, 10.5)] == [False, True]
