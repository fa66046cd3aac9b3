"""The three windows of a run, measured by a thread of the supervisor: live readings, steadiness, and the series for the judge.

All times are seconds on Prometheus's clock: its own `time()` once at the start, and this host's monotonic clock from there.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frangible.clock import Clock, SystemClock
from frangible.errors import ObserverFailed
from frangible.judge import Observed, Window, WindowName
from frangible.supervisor.gathering import Gathered

if TYPE_CHECKING:
    from frangible.channel import Message
    from frangible.hypothesis import GaugeIndicator, Hypothesis, RatioIndicator
    from frangible.metrics import Metrics
    from frangible.observing import WindowObserved
    from frangible.plan import Plan
    from frangible.progress import IndicatorReading

__all__ = ["Measuring", "Timeline"]

POLL_EVERY = 1.0
"""Seconds between two live readings."""
READ_LIMIT = 60.0
"""Seconds after which no further window is read for the verdict."""
DEFAULT_SCRAPE_INTERVAL = 15.0
"""Prometheus's usual distance of samples, assumed until its data shows another (prometheus.io, configuration defaults to 1m; 15s in its examples)."""


@dataclass
class Timeline:
    """When things happened, filled in while the run goes on."""

    baseline: Window | None = None
    first_proof: float | None = None
    last_proof: float | None = None
    reverted_at: float | None = None
    """When the last revert was observed."""
    recovery_started: float | None = None
    recovery_ended: float | None = None
    recovered_at: float | None = None
    recovery_complete: bool = False
    baseline_problem: str = ""
    clock_problem: str = ""
    scrape_interval: float = DEFAULT_SCRAPE_INTERVAL
    skew: float | None = None

    def windows(self, observe_for: float) -> tuple[Window, ...]:
        """Return the windows that took place."""
        found = [self.baseline] if self.baseline else []
        effect = self.effect(observe_for)
        if effect:
            found.append(effect)
        if self.recovery_started is not None and self.recovery_ended is not None:
            found.append(Window(WindowName.RECOVERY, self.recovery_started, self.recovery_ended))
        return tuple(found)

    def effect(self, observe_for: float) -> Window | None:
        """From the first proof of the fault to the last, or `observe_for` where that is longer."""
        if self.first_proof is None or self.last_proof is None:
            return None
        return Window(WindowName.EFFECT, self.first_proof, max(self.last_proof, self.first_proof + observe_for))

    @property
    def recovered_after(self) -> float | None:
        """Seconds from revert observed until steady again, or None when that was not seen."""
        if self.recovered_at is None or self.recovery_started is None:
            return None
        return max(0.0, self.recovered_at - self.recovery_started)


@dataclass
class Measuring:
    """Reads Prometheus for one run. `post` receives what the supervisor has to know; all else is asked for."""

    plan: "Plan"
    metrics: "Metrics | None"
    post: "Callable[[Message], None]"
    clock: Clock = field(default_factory=SystemClock)
    timeline: Timeline = field(default_factory=Timeline)

    def __post_init__(self) -> None:
        """Prepare; nothing is asked before `start`."""
        self._stop = threading.Event()
        self._gathered = Gathered()
        self._phase = ""
        self._phase_started = 0.0
        self._offset: float | None = None
        self._interval_known = False
        self._wall_offset = self.clock.wall() - self.clock.monotonic()
        self._worse_since: dict[tuple[str, str], float] = {}
        self._thread = threading.Thread(target=self._loop, name="measuring", daemon=True)

    @property
    def labels(self) -> dict[str, str]:
        """The environment's label matchers."""
        return dict(self.plan.environment.labels)

    def now(self) -> float:
        """Seconds since the epoch on Prometheus's clock; this host's own where that was never read."""
        offset = self._wall_offset if self._offset is None else self._offset
        return self.clock.monotonic() + offset

    def start(self) -> None:
        """Begin to read, in a thread of its own; does nothing where there is nothing to measure."""
        if self.metrics is not None and self.plan.hypotheses:
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def begin_baseline(self) -> None:
        """Wait until steady for the baseline's length; posts `baseline` with `steady` and `reason`."""
        self._begin("baseline")

    def begin_recovery(self) -> None:
        """Wait until steady again; posts `recovery` with `recovered`."""
        effect = self.timeline.effect(self.plan.windows.observe_for)
        self.timeline.recovery_started = max(self.timeline.reverted_at or self.now(), effect.end if effect else 0.0)
        self._begin("recovery")

    def begin_effect(self) -> None:
        """Only read and watch the abort conditions."""
        self._begin("effect")

    def cut_recovery(self) -> None:
        """End an unfinished recovery window now: it was cut short, not exhausted."""
        if self.timeline.recovery_started is not None and self.timeline.recovery_ended is None:
            self.timeline.recovery_ended = max(self.now(), self.timeline.recovery_started)

    def proven(self) -> None:
        """Note a proof of the fault."""
        now = self.now()
        self.timeline.first_proof = self.timeline.first_proof or now
        self.timeline.last_proof = now

    def reverted(self) -> None:
        """Note that a revert was observed."""
        self.timeline.reverted_at = self.now()

    def clock_problem(self) -> str:
        """Say why this run's times cannot be trusted; empty when they can."""
        timeline = self.timeline
        jump = (self.clock.wall() - self.clock.monotonic()) - self._wall_offset
        if abs(jump) > timeline.scrape_interval:
            return f"this host's clock jumped by {jump:+.1f} s during the run"
        if timeline.skew is not None and abs(timeline.skew) > timeline.scrape_interval:
            return f"this host's clock and Prometheus's differ by {timeline.skew:+.1f} s, more than one scrape interval ({timeline.scrape_interval:g} s)"
        return timeline.clock_problem

    def observe_windows(self, scrapes: float = 10.0) -> "tuple[tuple[tuple[str, tuple[Observed, ...]], ...], tuple[Observed, ...]]":
        """Read every indicator and the load in every window that took place, once Prometheus holds all of it.

        It is waited for as long as so many scrapes take. Where the observer has failed by now, what was read earlier counts.
        """
        windows = self.timeline.windows(self.plan.windows.observe_for)
        observed: dict[str, list[Observed]] = {}
        load: list[Observed] = []
        if self.metrics is None or not windows:
            return (), ()
        from frangible.observing import wait_until_held

        wait_until_held(self.metrics, self.labels, windows[-1].end, self._stop, self.clock, scrapes * self.timeline.scrape_interval)
        self._check_drift()
        until = self.clock.monotonic() + READ_LIMIT
        for window in windows:
            for hypothesis in self.plan.hypotheses:
                seen = self._gathered.best(window, hypothesis.name, self._read(self.metrics, hypothesis, window, until))
                for name, one in seen.indicators:
                    observed.setdefault(name, []).append(one)
                load.extend(seen.load)
        return tuple((name, tuple(each)) for name, each in observed.items()), tuple(load)

    def _read(self, metrics: "Metrics", hypothesis: "Hypothesis", window: Window, until: float) -> "WindowObserved":
        """Read one window, or say that there was no time left: an observer that hangs must not hold up the verdict for ever."""
        from frangible.observing import observe, unread

        if self.clock.monotonic() < until:
            return observe(metrics, hypothesis, self.labels, window, self.timeline.scrape_interval)
        return unread(hypothesis, window, f"Prometheus was not asked any more, since its answers took more than {READ_LIMIT:.0f} s")

    def _gather(self, metrics: "Metrics") -> None:
        """Read baseline and effect while they can be read: Prometheus may be gone when the run is judged."""
        from frangible.observing import observe

        for window in (self.timeline.baseline, self.timeline.effect(0.0)):
            if window is not None and self._gathered.is_due(window, over=self._phase != "effect" or window.name is WindowName.BASELINE):
                for hypothesis in self.plan.hypotheses:
                    self._gathered.keep(window, hypothesis.name, observe(metrics, hypothesis, self.labels, window, self.timeline.scrape_interval))

    def _begin(self, phase: str) -> None:
        self._phase_started = self.clock.monotonic()
        self._phase = phase

    def _anchor(self) -> None:
        if self.metrics is None:
            return
        before = self.clock.monotonic()
        served = self.metrics.time()
        after = self.clock.monotonic()
        middle = (before + after) / 2
        self._offset = served - middle
        self.timeline.skew = served - (middle + self._wall_offset)

    def _learn_scrape_interval(self, metrics: "Metrics") -> None:
        """Take the distance of real samples; until there are two, what the inventory declares. A Prometheus that was just started has none yet."""
        from frangible.hypothesis import render

        declared = self.plan.environment.prometheus.scrape_interval if self.plan.environment.prometheus else None
        measured = metrics.scrape_interval(render("up{${labels}}", self.labels))
        self._interval_known = measured is not None
        self.timeline.scrape_interval = measured or declared or self.timeline.scrape_interval

    def _check_drift(self) -> None:
        if self.metrics is None or self._offset is None:
            return
        try:
            drift = self.metrics.time() - self.now()
        except ObserverFailed:
            return  # the observer's health is judged from the windows themselves
        if abs(drift) > self.timeline.scrape_interval:
            self.timeline.clock_problem = f"Prometheus's clock moved by {drift:+.1f} s against this host's during the run"

    def _loop(self) -> None:
        while not self._stop.is_set():
            started = self.clock.monotonic()
            try:
                self._poll()
            except ObserverFailed as error:
                self.post({"type": "observer-failed", "reason": str(error)})
                self._waited_too_long(str(error))
            except Exception as error:  # noqa: BLE001 - a thread that dies silently would leave the run waiting for its deadline
                self.post({"type": "broken", "error": error})
                return
            self.clock.wait(self._stop, POLL_EVERY - (self.clock.monotonic() - started))

    def _poll(self) -> None:
        from frangible.observing import current

        if self.metrics is None:
            return
        if self._offset is None:
            self._anchor()
        if not self._interval_known:
            self._learn_scrape_interval(self.metrics)
        readings, load = [], None
        for hypothesis in self.plan.hypotheses:
            seen = current(self.metrics, hypothesis, self.labels, self.timeline.scrape_interval, effect=self._phase == "effect")
            readings.extend(seen.readings)
            load = seen.load if load is None else load
            self._abort_conditions(hypothesis, seen.readings)
        self.post({"type": "readings", "readings": readings, "load": load})
        self._gather(self.metrics)
        match self._phase:
            case "baseline":
                self._poll_baseline()
            case "recovery":
                self._poll_recovery()

    def _steady(self, seconds: float) -> str:
        """Return why the newest `seconds` are not steady, also against the baseline once there is one; empty when they are."""
        from frangible.observing import steady

        if self.metrics is None:
            return "the environment has no Prometheus"
        for hypothesis in self.plan.hypotheses:
            problem = steady(self.metrics, hypothesis, self.labels, seconds, self.timeline.scrape_interval, baseline=self.timeline.baseline)
            if problem:
                return problem
        return ""

    def _poll_baseline(self) -> None:
        length = self.plan.windows.baseline
        if self.clock.monotonic() - self._phase_started < length:
            return
        problem = self._steady(length)
        if not problem:
            self._phase = ""
            end = self.now()
            self.timeline.baseline = Window(WindowName.BASELINE, end - length, end)
            if self.metrics is not None:
                self._gather(self.metrics)  # before anything is injected: what came before cannot be had again
            self.post({"type": "baseline", "steady": True, "reason": ""})
            return
        self._waited_too_long(problem)

    def _waited_too_long(self, problem: str) -> None:
        """End a baseline or a recovery whose limit has run out."""
        waited = self.clock.monotonic() - self._phase_started
        if self._phase == "baseline" and waited > self.plan.windows.baseline_limit:
            self._phase = ""
            self.timeline.baseline_problem = problem
            self.post({"type": "baseline", "steady": False, "reason": problem})
        elif self._phase == "recovery" and waited > self.recovery_limit + self.steady_for + 2 * self.timeline.scrape_interval:
            self._end_recovery(recovered_at=None)

    @property
    def recovery_limit(self) -> float:
        """Seconds within which every hypothesis wants to be steady again."""
        return self.plan.windows.recovery_limit or max((h.recovery.within for h in self.plan.hypotheses), default=0.0)

    @property
    def steady_for(self) -> float:
        """Seconds of steadiness that count as recovered."""
        return max((h.recovery.steady_for for h in self.plan.hypotheses), default=0.0)

    def _poll_recovery(self) -> None:
        started = self.timeline.recovery_started or self.now()
        span = self.steady_for
        now = self.now()
        if now - started < span:
            return
        if not self._steady(span):
            self._end_recovery(recovered_at=now - span)
            return
        self._waited_too_long("not steady again")

    def _end_recovery(self, recovered_at: float | None) -> None:
        self._phase = ""
        timeline = self.timeline
        started = timeline.recovery_started or self.now()
        if recovered_at is not None and recovered_at - started <= self.recovery_limit:
            timeline.recovered_at = recovered_at
        timeline.recovery_ended = self.now()
        timeline.recovery_complete = True
        self.post({"type": "recovery", "recovered": timeline.recovered_at is not None})

    def _abort_conditions(self, hypothesis: "Hypothesis", readings: "Sequence[IndicatorReading]") -> None:
        """Post `condition` when an indicator has been worse than its abort condition for long enough."""
        by_name = {reading["indicator"]: reading["value"] for reading in readings}
        for indicator in hypothesis.indicators:
            condition, value, which = indicator.abort, by_name.get(indicator.name), (hypothesis.name, indicator.name)
            if condition is None or value is None or not _is_worse(indicator, value, condition.worse_than):
                self._worse_since.pop(which, None)
                continue
            since = self._worse_since.setdefault(which, self.now())
            if self._phase == "effect" and self.now() - since >= condition.for_:
                text = f"worse than {condition.worse_than:g} for {condition.for_:g} s"
                self.post({"type": "condition", "indicator": indicator.name, "value": value, "condition": text})


def _is_worse(indicator: "RatioIndicator | GaugeIndicator", value: float, limit: float) -> bool:
    """Whether a value lies on the bad side of a limit: below it, or above it for a gauge that is bounded from above.

    For a gauge that is bounded on both sides, a limit at or below its floor is meant for values that fall.
    """
    bounded_above = indicator.kind == "gauge" and (indicator.bound.at_most is not None or indicator.bound.rise_at_most is not None)
    floor = indicator.bound.at_least
    if bounded_above and floor is not None and limit <= floor:
        bounded_above = False
    return value > limit if bounded_above else value < limit
