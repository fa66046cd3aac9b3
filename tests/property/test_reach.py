"""What is promised before a run is given by it: windows that are said to be long enough are, however proofs and samples fall into them."""

import re
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from frangible.fault import PROOF_EVERY
from frangible.hypothesis import GaugeBound, GaugeIndicator, Hypothesis, RatioBound, RatioIndicator, Recovery
from frangible.judge import Ending, FaultProof, Observed, Outcome, RunEvidence, Window, WindowName, judge, reachability
from frangible.metrics import Sample, Series

BASELINE, EFFECT, RECOVERY = WindowName.BASELINE, WindowName.EFFECT, WindowName.RECOVERY
LABELS = (("instance", "a:1"), ("job", "generator"))
BEGIN = 10_000.0

type Indicator = RatioIndicator | GaugeIndicator


def ratio(block: float, least: float) -> RatioIndicator:
    counters = {"good": "good{${labels}}", "valid": "valid{${labels}}"}
    return RatioIndicator.model_validate({"name": "it", "when_absent": "broken", **counters, "block": block, "bound": RatioBound(at_least=least)})


def gauge(block: float, lookback: float) -> GaugeIndicator:
    asked = {"query": "depth{${labels}}", "lookback": lookback, "bound": GaugeBound(at_most=100.0)}
    return GaugeIndicator.model_validate({"name": "it", "when_absent": "broken", **asked, "block": block})


indicators = st.one_of(
    st.builds(ratio, st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0.2, 0.6, 0.9, 0.99])),
    st.builds(gauge, st.sampled_from([1.0, 3.0]), st.sampled_from([1.0, 3.0])),
)


def seen(indicator: Indicator, window: Window, interval: float, phase: float, rate: float) -> Observed:
    """Flawless samples of a window at every scrape, the first of them before it."""
    first = window.start - (2 - phase) * interval
    times = [first + number * interval for number in range(int((window.end - first) / interval + 1e-9) + 1)]
    if indicator.kind == "gauge":
        return Observed(window.name, values=(Series(LABELS, tuple(Sample(at, 10.0) for at in times if at > window.start)),))
    counted = Series(LABELS, tuple(Sample(at, rate * (at - first)) for at in times))
    return Observed(window.name, good=(counted,), valid=(counted,))


def outcome(indicator: Indicator, interval: float, effect: float, phase: float, rate: float) -> Outcome:
    """Of the effect of a run in which nothing ever goes wrong."""
    starts = {BASELINE: (BEGIN, 60.0), EFFECT: (BEGIN + 100.0, effect), RECOVERY: (BEGIN + 200.0 + effect, 60.0)}
    windows = tuple(Window(name, start, start + length) for name, (start, length) in starts.items())
    evidence = RunEvidence(
        windows=windows,
        observed=(("it", tuple(seen(indicator, window, interval, phase, rate) for window in windows)),),
        load=(),
        proofs=(FaultProof("lease", "node-loss", "node a", injected=True, proven_share=1.0, least_proven=0.9, reverted=True),),
        ending=Ending.COMPLETED,
        ending_detail="",
        clock_problem="",
        recovered_after=1.0,
        recovery_limit=60.0,
        recovery_complete=True,
        scrape_interval=interval,
    )
    verdict = judge(Hypothesis(name="h", indicators=(indicator,), recovery=Recovery(within=60.0, steady_for=5.0)), evidence)
    return next(one.outcome for one in verdict.indicators if one.window is EFFECT)


@given(
    indicator=indicators,
    interval=st.sampled_from([0.2, 1.0, 5.0]),
    rate=st.sampled_from([20.0, 50.0, 400.0]),
    longer=st.one_of(st.just(0.0), st.floats(0.0, 30.0)),
    lost=st.floats(0.0, PROOF_EVERY),
    phase=st.floats(0.0, 1.0, exclude_max=True),
)
def test_a_hold_that_is_promised_to_be_enough_is_enough_wherever_proofs_and_samples_fall(
    indicator: Indicator, interval: float, rate: float, longer: float, lost: float, phase: float
) -> None:
    """The shortest hold that is named, or a longer one, loses up to one proof interval, and its samples lie anywhere within a scrape interval."""
    made = Hypothesis(name="h", indicators=(indicator,), recovery=Recovery(within=60.0, steady_for=5.0))
    asked: dict[str, Any] = {"scrape_interval": interval, "baseline": 60.0, "recovery": 60.0, "load": rate, "proof_interval": PROOF_EVERY}
    [refused] = reachability(made, effect=0.5, **asked)
    named = re.search(r"the shortest that can is ([0-9.]+) s", refused)
    assume(named)  # some bounds take more events than a week has
    assert named is not None
    hold = float(named[1]) + longer
    assert reachability(made, effect=hold, **asked) == ()
    assert outcome(indicator, interval, hold - lost, phase, rate) is Outcome.HELD
