"""What is collected from a real Prometheus: windows, the observer's health, and the newest moments."""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from frangible.clock import SystemClock
from frangible.environment import PrometheusSettings
from frangible.errors import ObserverFailed
from frangible.hypothesis import AbortCondition, GaugeBound, GaugeIndicator, Hypothesis, LeastLoad, RatioBound, RatioIndicator
from frangible.judge import Observed, Window, WindowName
from frangible.judge.blocks import block_series
from frangible.metrics import Metrics, PrometheusMetrics
from frangible.observing import Current, current, observe, steady, wait_until_held

pytestmark = pytest.mark.once

BEFORE, AFTER = 120, 180
"""Seconds of samples before and after the tests begin: those in the future appear as time goes by."""
WINDOW = Window(WindowName.EFFECT, 0.0, 0.0)
RATIO = RatioIndicator(
    name="acknowledged",
    when_absent="broken",
    good="good{${labels}}",
    valid="offered{${labels}}",
    bound=RatioBound(at_least=0.99),
    abort=AbortCondition(worse_than=0.5),
)
GAUGE = GaugeIndicator(name="depth", when_absent="ignore", query="sum(avg_over_time(depth{${labels}}[2s]))", lookback=2.0, bound=GaugeBound(at_most=100.0))
BOTH = Hypothesis(name="orders", indicators=(RATIO, GAUGE), requires=LeastLoad(metric="offered{${labels}}", at_least=40.0))


def lines(name: str, environment: str, begin: float, value: Callable[[int], float | None], instance: str = "a") -> list[str]:
    """One sample a second; none where the value is None."""
    values = [(begin + at, value(at)) for at in range(-BEFORE, AFTER)]
    return [f'{name}{{environment="{environment}",instance="{instance}"}} {one} {at:.3f}' for at, one in values if one is not None]


def estate(begin: float) -> str:
    """Environments that differ in one thing each."""

    def offered(at: int) -> float:
        return 1000 + 50.0 * (at + BEFORE)

    def without(part: Callable[[int], float | None], gone: Callable[[int], bool]) -> Callable[[int], float | None]:
        return lambda at: None if gone(at) else part(at)

    usual: dict[str, Callable[[int], float | None]] = {"up": lambda _: 1.0, "good": offered, "offered": offered, "depth": lambda _: 10.0}
    environments: dict[str, dict[str, Callable[[int], float | None]]] = {
        "fine": {},
        "broken": {"good": lambda at: offered(min(at, -60))},
        "vanished": {name: without(usual[name], lambda at: at > -40) for name in ("good", "offered", "depth")},
        "drained": {"depth": without(usual["depth"], lambda at: at > -40)},
        "deep": {"depth": lambda _: 500.0},
        "idle": {"offered": lambda at: 1000.0 + at // 10, "good": lambda at: 1000.0 + at // 10},
        "gap": {name: without(part, lambda at: -50 < at < -40) for name, part in usual.items()},
        "blind": {"up": lambda _: None},
        "down": {"up": lambda at: 0.0 if at > -60 else 1.0},
        "missed": {name: without(part, lambda at: at == -45) for name, part in usual.items()},
    }
    text = []
    for name in usual:  # OpenMetrics wants all series of one metric together
        for environment, changes in environments.items():
            text += lines(name, environment, begin, {**usual, **changes}[name])
    return "\n".join(text)


@pytest.fixture(scope="module")
def begin() -> float:
    return math.floor(time.time()) + 0.25


@pytest.fixture(scope="module")
def metrics(start_prometheus: Callable[[str], str], begin: float) -> Iterator[Metrics]:
    asked = PrometheusMetrics(PrometheusSettings(url=start_prometheus(estate(begin))))
    yield asked
    asked.close()


def nowhere() -> Metrics:
    """A Prometheus that nobody has started."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    return PrometheusMetrics(PrometheusSettings(url=f"http://127.0.0.1:{port}", timeout=1.0))


def window(begin: float) -> Window:
    return Window(WindowName.EFFECT, begin - 70.4, begin - 20.4)


def seen(metrics: Metrics, environment: str, begin: float) -> tuple[dict[str, Observed], Observed]:
    found = observe(metrics, BOTH, {"environment": environment}, window(begin), 1.0)
    return dict(found.indicators), found.load[0]


def test_a_window_brings_raw_counters_with_one_sample_before_it_and_gauges_no_closer_than_they_look_back(metrics: Metrics, begin: float) -> None:
    indicators, load = seen(metrics, "fine", begin)
    (valid,) = indicators["acknowledged"].valid
    assert [sample.at - begin for sample in valid.samples] == [float(at) for at in range(-71, -20)]
    assert load.valid == (valid,)
    assert load.hypothesis == "orders"
    (depth,) = indicators["depth"].values
    assert depth.samples[-1].at == pytest.approx(begin - 20.4, abs=0.001)
    assert {round(after.at - before.at, 3) for before, after in zip(depth.samples, depth.samples[1:], strict=False)} == {2.0}
    assert all(one.observer_failure == "" and one.window is WindowName.EFFECT for one in (*indicators.values(), load))


def test_what_was_collected_can_be_drawn(metrics: Metrics, begin: float) -> None:
    indicators, _ = seen(metrics, "broken", begin)
    shares = [share for _, share in block_series(RATIO, indicators["acknowledged"], window(begin))]
    assert shares[0] == pytest.approx(1.0, abs=0.05)
    assert shares[-1] == 0.0


def test_a_gap_in_everything_is_the_observers_failure(metrics: Metrics, begin: float) -> None:
    indicators, load = seen(metrics, "gap", begin)
    assert "scraped nothing of the environment for 10.0 s" in load.observer_failure
    assert all(one.observer_failure for one in indicators.values())


@pytest.mark.parametrize("environment", ["vanished", "down", "missed", "drained"])
def test_a_series_that_is_gone_a_target_that_is_down_or_one_missed_scrape_is_not(metrics: Metrics, begin: float, environment: str) -> None:
    indicators, load = seen(metrics, environment, begin)
    assert [one.observer_failure for one in (*indicators.values(), load)] == ["", "", ""]


def test_without_any_sign_of_scraping_the_observer_cannot_be_trusted(metrics: Metrics, begin: float) -> None:
    indicators, _ = seen(metrics, "blind", begin)
    assert 'no series up{environment="blind"}' in indicators["acknowledged"].observer_failure


def test_a_window_that_has_not_ended_for_prometheus_yet_is_a_gap(metrics: Metrics, begin: float) -> None:
    late = Window(WindowName.EFFECT, begin + AFTER - 30, begin + AFTER + 30)
    found = observe(metrics, BOTH, {"environment": "fine"}, late, 1.0)
    assert "scraped nothing" in found.load[0].observer_failure


def test_an_unreachable_prometheus_is_in_the_evidence_and_raises_nothing(begin: float) -> None:
    found = observe(nowhere(), BOTH, {"environment": "fine"}, window(begin), 1.0)
    assert all("cannot be reached" in one.observer_failure for _, one in found.indicators)
    assert "cannot be reached" in found.load[0].observer_failure


def now(metrics: Metrics, environment: str, *, effect: bool = False) -> tuple[dict[str, tuple[float | None, str]], Current]:
    found = current(metrics, BOTH, {"environment": environment}, 1.0, effect=effect)
    return {one["indicator"]: (one["value"], one["state"]) for one in found.readings}, found


def test_current_readings_say_value_bound_state_and_load(metrics: Metrics) -> None:
    readings, found = now(metrics, "fine")
    assert readings == {"acknowledged": (1.0, "kept"), "depth": (10.0, "kept")}
    assert [one["bound"] for one in found.readings] == ["at least 0.99", "at most 100"]
    assert found.load == pytest.approx(50.0)


def test_current_readings_of_what_is_broken_gone_or_not_offered(metrics: Metrics) -> None:
    assert now(metrics, "broken")[0]["acknowledged"] == (0.0, "broken")
    assert now(metrics, "deep")[0]["depth"] == (500.0, "broken")
    readings, found = now(metrics, "vanished")
    assert readings["acknowledged"] == (None, "no-data")
    assert found.load is None
    assert now(metrics, "idle")[1].load == pytest.approx(0.0, abs=0.6)


def test_a_waived_indicator_says_so_during_the_effect(metrics: Metrics) -> None:
    waived = Hypothesis(name="orders", indicators=(RATIO.model_copy(update={"waived_during_effect": True}),))
    found = current(metrics, waived, {"environment": "broken"}, 1.0, effect=True)
    assert (found.readings[0]["state"], found.load) == ("waived", None)
    assert current(metrics, waived, {"environment": "broken"}, 1.0).readings[0]["state"] == "broken"


STEADY = {
    "fine": "",
    "missed": "",
    "broken": "acknowledged broke its bound (at least 0.99) in 4 of the newest 4 blocks",
    "deep": "depth broke its bound (at most 100) in 4 of the newest 4 blocks",
    "vanished": "0 a second are offered, and orders needs at least 40",
    "idle": "orders needs at least 40",
    "drained": "depth has no data",
}


@pytest.mark.parametrize(("environment", "problem"), STEADY.items())
def test_steady_says_what_is_not(metrics: Metrics, environment: str, problem: str) -> None:
    found = steady(metrics, BOTH, {"environment": environment}, 20.0, 1.0)
    assert problem in found
    assert bool(problem) == bool(found)


@pytest.mark.parametrize("environment", ["blind", "nowhere"])
def test_steadiness_that_nobody_can_see_raises(metrics: Metrics, environment: str) -> None:
    with pytest.raises(ObserverFailed):
        steady(metrics if environment == "blind" else nowhere(), BOTH, {"environment": environment}, 20.0, 1.0)


def test_a_recovery_waits_for_bounds_relative_to_the_baseline_and_not_for_what_may_be_absent(metrics: Metrics, begin: float) -> None:
    baseline = Window(WindowName.BASELINE, begin - 110, begin - 70)
    relative = Hypothesis(name="orders", indicators=(RATIO.model_copy(update={"bound": RatioBound(drop_at_most=0.1)}),))
    assert steady(metrics, relative, {"environment": "broken"}, 20.0, 1.0) == ""
    assert "broke its bound" in steady(metrics, relative, {"environment": "broken"}, 20.0, 1.0, baseline=baseline)
    assert steady(metrics, BOTH, {"environment": "drained"}, 20.0, 1.0, baseline=baseline) == ""


def test_a_stretch_shorter_than_a_block_is_one_block(metrics: Metrics) -> None:
    assert steady(metrics, BOTH, {"environment": "fine"}, 1.0, 1.0) == ""
    assert "1 of the newest 1 blocks" in steady(metrics, BOTH, {"environment": "broken"}, 1.0, 1.0)


SCRAPING = """
global: {scrape_interval: 200ms, scrape_timeout: 100ms}
scrape_configs: [{job_name: dead, static_configs: [{targets: ["127.0.0.1:9", "127.0.0.1:10"], labels: {environment: live}}]}]
"""


def test_waiting_ends_when_prometheus_holds_samples_later_than_the_end(start_prometheus: Callable[..., str]) -> None:
    metrics = PrometheusMetrics(PrometheusSettings(url=start_prometheus("", SCRAPING)))
    labels, stop, clock = {"environment": "live"}, threading.Event(), SystemClock()
    assert wait_until_held(metrics, labels, 0.0, stop, clock, 60.0)  # Prometheus takes some seconds to begin
    end = metrics.time() + 1.0
    assert wait_until_held(metrics, labels, end, stop, clock, 30.0)
    assert metrics.time() > end
    assert metrics.scrape_interval('up{environment="live"}') == pytest.approx(0.2, abs=0.05)
    assert not wait_until_held(metrics, labels, end + 3600, stop, clock, 0.3)
    stop.set()
    assert not wait_until_held(metrics, labels, end + 3600, stop, clock, 3600.0)
    metrics.close()


def test_waiting_for_an_unreachable_prometheus_ends_with_the_limit() -> None:
    assert not wait_until_held(nowhere(), {"environment": "live"}, 0.0, threading.Event(), SystemClock(), 0.3)
