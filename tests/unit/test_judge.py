"""The judge's rules one by one, on evidence written out by hand; error rates by simulation."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import pytest

from frangible.hypothesis import GaugeBound, GaugeIndicator, Hypothesis, LeastLoad, RatioBound, RatioIndicator, Recovery
from frangible.judge import Ending, FaultProof, Observed, Outcome, RunEvidence, Verdict, Window, WindowName, block_series, judge, reachability
from frangible.judge.blocks import grid, increases
from frangible.judge.bounds import percent
from frangible.judge.limits import drop_limits, share_limits
from frangible.metrics import Sample, Series

pytestmark = pytest.mark.once

BASELINE, EFFECT, RECOVERY = WindowName.BASELINE, WindowName.EFFECT, WindowName.RECOVERY
WINDOWS = {BASELINE: Window(BASELINE, 1000.0, 1030.0), EFFECT: Window(EFFECT, 1040.0, 1100.0), RECOVERY: Window(RECOVERY, 1105.0, 1125.0)}
LABELS = (("instance", "a:1"), ("job", "generator"))
PROOF = FaultProof("lease-1", "node-loss", "node app-1", injected=True, proven_share=1.0, least_proven=0.9, reverted=True)
RATE = 50.0


def ratio(name: str = "acknowledged", **changes: Any) -> RatioIndicator:
    fields: dict[str, Any] = {"name": name, "when_absent": "broken", "good": "good{${labels}}", "valid": "valid{${labels}}", "bound": RatioBound(at_least=0.99)}
    return RatioIndicator.model_validate({**fields, **changes})


def gauge(name: str = "queue", **changes: Any) -> GaugeIndicator:
    fields: dict[str, Any] = {"name": name, "when_absent": "broken", "query": "depth{${labels}}", "lookback": 1.0, "bound": GaugeBound(at_most=100.0)}
    return GaugeIndicator.model_validate({**fields, **changes})


def hypothesis(*indicators: RatioIndicator | GaugeIndicator, name: str = "orders", **changes: Any) -> Hypothesis:
    fields: dict[str, Any] = {"name": name, "indicators": indicators or (ratio(),), "recovery": Recovery(within=60.0, steady_for=5.0)}
    return Hypothesis.model_validate({**fields, **changes})


def counter(window: Window, rise: Callable[[float], float], start: float = 1000.0, labels: tuple[tuple[str, str], ...] = LABELS) -> Series:
    """One sample a second from just before the window to its end; `rise` says by how much up to each moment."""
    value, samples = start, []
    for second in range(math.floor(window.start) - 1, math.floor(window.end) + 1):
        value += rise(float(second))
        samples.append(Sample(second + 0.5, value))
    return Series(labels, tuple(sample for sample in samples if sample.at <= window.end))


def events(window: Window, bad_share: Callable[[float], float] = lambda _: 0.0, **changes: Any) -> Observed:
    good = counter(window, lambda at: RATE * (1 - bad_share(at)))
    return replace(Observed(window.name, good=(good,), valid=(counter(window, lambda _: RATE),)), **changes)


def values(window: Window, value: Callable[[float], float] = lambda _: 10.0, **changes: Any) -> Observed:
    samples = tuple(Sample(float(at), value(float(at))) for at in range(math.ceil(window.start), math.floor(window.end) + 1))
    return replace(Observed(window.name, values=(Series((), samples),)), **changes)


def evidence(*, indicators: Mapping[str, Iterable[Observed]] | None = None, **changes: Any) -> RunEvidence:
    """A fine run, apart from what is changed."""
    given = {"acknowledged": fine()} if indicators is None else indicators
    whole = RunEvidence(
        windows=tuple(WINDOWS.values()),
        observed=tuple((name, tuple(seen)) for name, seen in given.items()),
        load=(),
        proofs=(PROOF,),
        ending=Ending.COMPLETED,
        ending_detail="",
        clock_problem="",
        recovered_after=5.0,
        recovery_limit=60.0,
        recovery_complete=True,
        scrape_interval=1.0,
    )
    return replace(whole, **changes)


def fine(**changed: Observed) -> list[Observed]:
    return [changed.get(window.name, events(window)) for window in WINDOWS.values()]


def always(value: float) -> Callable[[float], float]:
    return lambda _: value


def outage(start: float, end: float) -> Callable[[float], float]:
    return lambda at: 1.0 if start <= at < end else 0.0


def first_half(series: tuple[Series, ...]) -> tuple[Series, ...]:
    return tuple(Series(one.labels, one.samples[:30]) for one in series)


BROKEN = {"acknowledged": fine(effect=events(WINDOWS[EFFECT], outage(1045, 1090)))}


def in_window(verdict: Verdict, window: WindowName) -> Outcome:
    return next(one.outcome for one in verdict.indicators if one.window is window)


def test_a_run_that_kept_every_bound_and_recovered_is_held() -> None:
    verdict = judge(hypothesis(), evidence())
    assert verdict.outcome is Outcome.HELD
    assert [one.window for one in verdict.indicators] == [BASELINE, EFFECT, RECOVERY]
    assert "acknowledged kept its bound in the effect window: all 2,950 events good (at least 99.9" in verdict.reasons[0]
    assert "steady again 5.0 s after" in verdict.reasons[-1]


def test_a_bound_broken_during_the_effect_is_deviated_and_says_indicator_bound_observed_and_window() -> None:
    verdict = judge(hypothesis(), evidence(indicators=BROKEN))
    assert verdict.outcome is Outcome.DEVIATED
    for part in ("acknowledged broke its bound", "effect window", "700 of 2,950 events good (23.7 %, between ", "asked: at least 99 %"):
        assert part in verdict.reasons[0]


ENDINGS = [ending for ending in Ending if ending not in (Ending.COMPLETED, Ending.NO_BASELINE, Ending.REFUSED)]
LATER = {
    **{str(ending): {"ending": ending, "ending_detail": "somebody did"} for ending in ENDINGS},
    "failed revert": {"proofs": (replace(PROOF, reverted=False),)},
    "no recovery seen": {"recovered_after": None, "recovery_complete": False},
    "no recovery window": {"windows": (WINDOWS[BASELINE], WINDOWS[EFFECT])},
    "another fault was not proven": {"proofs": (PROOF, replace(PROOF, proven_share=0.1))},
}


@pytest.mark.parametrize("changes", LATER.values(), ids=LATER.keys())
def test_what_went_wrong_later_is_never_held_and_never_hides_evidence_of_deviation(changes: dict[str, Any]) -> None:
    assert judge(hypothesis(), evidence(**changes)).outcome is Outcome.INCONCLUSIVE
    assert judge(hypothesis(), evidence(indicators=BROKEN, **changes)).outcome is Outcome.DEVIATED


FATAL = {
    "clock": ({"clock_problem": "skew of 7 s"}, "times cannot be trusted"),
    "no baseline": ({"ending": Ending.NO_BASELINE}, "no steady baseline"),
    "refused": ({"ending": Ending.REFUSED}, "nothing was injected"),
    "no baseline window": ({"windows": (WINDOWS[EFFECT], WINDOWS[RECOVERY])}, "no steady baseline"),
    "no fault": ({"proofs": ()}, "fault not proven"),
    "not injected": ({"proofs": (replace(PROOF, injected=False),)}, "fault not proven"),
    "healed": ({"proofs": (replace(PROOF, proven_share=0.5),)}, "fault not proven"),
    "never seen": ({"proofs": (replace(PROOF, proven_share=0.0, least_proven=0.0),)}, "fault not proven"),
}


@pytest.mark.parametrize(("changes", "reason"), FATAL.values(), ids=FATAL.keys())
def test_without_trusted_times_baseline_or_proof_even_a_broken_bound_is_inconclusive(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(hypothesis(), evidence(indicators=BROKEN, **changes))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[0].startswith(reason)
    assert any("broke its bound in the effect window" in one for one in verdict.reasons)


def test_a_broken_baseline_is_no_steady_baseline() -> None:
    seen = {"acknowledged": fine(baseline=events(WINDOWS[BASELINE], lambda _: 0.2), effect=events(WINDOWS[EFFECT], lambda _: 0.2))}
    verdict = judge(hypothesis(), evidence(indicators=seen))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[0].startswith("no steady baseline: acknowledged broke its bound in the baseline window")


def test_an_indicator_that_the_baseline_does_not_have_is_no_steady_baseline() -> None:
    verdict = judge(hypothesis(), evidence(indicators={"acknowledged": fine(baseline=Observed(BASELINE))}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no steady baseline: acknowledged has no data" in verdict.reasons[0]


@pytest.mark.parametrize("window", WindowName)
def test_an_observer_that_failed_in_any_window_is_never_a_pass(window: WindowName) -> None:
    failed = events(WINDOWS[window], observer_failure="it scraped nothing for 12 s")
    verdict = judge(hypothesis(), evidence(indicators={"acknowledged": fine(**{str(window): failed})}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert any("the observer failed" in reason and "12 s" in reason for reason in verdict.reasons)
    assert in_window(verdict, window) is Outcome.INCONCLUSIVE


def test_deviation_seen_before_the_observer_failed_still_counts() -> None:
    seen = events(WINDOWS[EFFECT], outage(1045, 1090), observer_failure="it scraped nothing for 9 s")
    assert judge(hypothesis(), evidence(indicators={"acknowledged": fine(effect=seen)})).outcome is Outcome.DEVIATED


@pytest.mark.parametrize(("policy", "outcome"), [("broken", Outcome.DEVIATED), ("ignore", Outcome.HELD)])
@pytest.mark.parametrize("kind", ["ratio", "gauge"])
def test_a_series_that_went_away_while_prometheus_kept_scraping_is_judged_by_when_absent(policy: str, outcome: Outcome, kind: str) -> None:
    made = ratio("vanishing", when_absent=policy) if kind == "ratio" else gauge("vanishing", when_absent=policy)
    data: Callable[[Window], Observed] = events if kind == "ratio" else values
    gone = [data(WINDOWS[BASELINE]), Observed(EFFECT), data(WINDOWS[RECOVERY])]
    verdict = judge(hypothesis(ratio(), made), evidence(indicators={"acknowledged": fine(), "vanishing": gone}))
    assert verdict.outcome is outcome
    assert any("gone" in one.reason for one in verdict.indicators)


@pytest.mark.parametrize("kind", ["ratio", "gauge"])
def test_a_series_that_is_gone_in_half_of_the_effect_is_broken_by_when_absent(kind: str) -> None:
    made = ratio("vanishing") if kind == "ratio" else gauge("vanishing")
    data: Callable[[Window], Observed] = events if kind == "ratio" else values
    whole = data(WINDOWS[EFFECT])
    half = Observed(EFFECT, good=first_half(whole.good), valid=first_half(whole.valid), values=first_half(whole.values))
    seen = [data(WINDOWS[BASELINE]), half, data(WINDOWS[RECOVERY])]
    assert judge(hypothesis(made), evidence(indicators={"vanishing": seen})).outcome is Outcome.DEVIATED


def test_when_every_indicator_that_counts_is_gone_and_ignored_nothing_was_shown() -> None:
    seen = fine(effect=Observed(EFFECT))
    verdict = judge(hypothesis(ratio(when_absent="ignore")), evidence(indicators={"acknowledged": seen}))
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_absence_with_a_failed_observer_is_no_data_and_never_the_environments_fault() -> None:
    seen = fine(effect=Observed(EFFECT, observer_failure="Prometheus at http://p cannot be reached"))
    verdict = judge(hypothesis(), evidence(indicators={"acknowledged": seen}))
    assert verdict.outcome is Outcome.INCONCLUSIVE


NAN = {
    "both": events(WINDOWS[EFFECT], good=(counter(WINDOWS[EFFECT], lambda _: math.nan),), valid=(counter(WINDOWS[EFFECT], lambda _: math.nan),)),
    "good": events(WINDOWS[EFFECT], good=(counter(WINDOWS[EFFECT], lambda _: math.nan),)),
    "valid": events(WINDOWS[EFFECT], valid=(counter(WINDOWS[EFFECT], lambda _: math.nan),)),
    "both from the middle on": events(
        WINDOWS[EFFECT],
        good=(counter(WINDOWS[EFFECT], lambda at: math.nan if at > 1070 else RATE),),
        valid=(counter(WINDOWS[EFFECT], lambda at: math.nan if at > 1070 else RATE),),
    ),
}


@pytest.mark.parametrize("seen", NAN.values(), ids=NAN.keys())
def test_counters_that_are_no_numbers_are_neither_kept_nor_broken(seen: Observed) -> None:
    verdict = judge(hypothesis(), evidence(indicators={"acknowledged": fine(effect=seen)}))
    assert in_window(verdict, EFFECT) is Outcome.INCONCLUSIVE
    assert any("its counters gave no numbers" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.84, "84 %"),
        (0.2373, "23.7 %"),
        (0.99, "99 %"),
        (0.997365, "99.74 %"),
        (0.99997, "99.997 %"),
        (0.0012, "0.12 %"),
        (1 - 1e-12, "100 %"),
    ],
)
def test_a_share_is_told_in_percent_with_the_digits_that_decide(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_cause_that_left_many_questions_unanswered_is_told_once() -> None:
    failed = [replace(Observed(EFFECT), observer_failure=f"Prometheus cannot be reached (asked: {query})") for query in ("a", "b")]
    two = hypothesis(ratio("acknowledged"), ratio("stored"))
    verdict = judge(two, evidence(indicators={"acknowledged": fine(effect=failed[0]), "stored": fine(effect=failed[1])}))
    assert [reason for reason in verdict.reasons if "cannot be reached" in reason] == [
        "no data: the observer failed in the effect window: Prometheus cannot be reached (asked: a)"
    ]


def test_a_run_without_a_steady_baseline_says_only_that() -> None:
    none = evidence(windows=(), indicators={}, proofs=(), ending=Ending.NO_BASELINE, ending_detail="p99 broke its bound", recovered_after=None)
    verdict = judge(hypothesis(), none)
    assert (verdict.outcome, verdict.reasons) == (Outcome.INCONCLUSIVE, ("no steady baseline: p99 broke its bound",))


LOAD = hypothesis(requires=LeastLoad(metric="offered{${labels}}", at_least=40.0))


def offered(rates: Sequence[float]) -> tuple[Observed, ...]:
    return tuple(Observed(window.name, valid=(counter(window, always(rate)),)) for window, rate in zip(WINDOWS.values(), rates, strict=True))


@pytest.mark.parametrize("rates", [(50, 10, 50), (10, 50, 50), (50, 50, 10), (50, 0, 50)])
def test_less_load_than_the_hypothesis_needs_is_not_exercised(rates: tuple[float, ...]) -> None:
    verdict = judge(LOAD, evidence(load=offered(rates)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert any(reason.startswith("not exercised:") and "40 a second" in reason for reason in verdict.reasons)


def test_enough_load_in_every_window_is_exercised() -> None:
    assert judge(LOAD, evidence(load=offered((50, 50, 50)))).outcome is Outcome.HELD


@pytest.mark.parametrize("recovery", [Window(RECOVERY, 1105.0, 1106.3), Window(RECOVERY, 1105.6, 1106.2)], ids=["one reading", "no reading"])
def test_a_recovery_shorter_than_two_scrapes_was_exercised_when_it_was_seen_steady(recovery: Window) -> None:
    windows = (WINDOWS[BASELINE], WINDOWS[EFFECT], recovery)
    seen = [events(window) for window in windows]
    load = tuple(Observed(window.name, valid=(counter(window, lambda _: 50),)) for window in windows)
    verdict = judge(LOAD, evidence(windows=windows, indicators={"acknowledged": seen}, load=load, recovered_after=0.1))
    assert verdict.outcome is Outcome.HELD, verdict.reasons


def test_load_that_stopped_counts_as_none_for_the_rest_of_the_window() -> None:
    stopped = counter(replace(WINDOWS[EFFECT], end=1060.0), lambda _: 50)
    load = (*offered((50, 50, 50))[:1], Observed(EFFECT, valid=(stopped,)), *offered((50, 50, 50))[2:])
    assert any("not exercised: 16.53 a second" in reason for reason in judge(LOAD, evidence(load=load)).reasons)


def test_load_that_nobody_observed_is_not_exercised() -> None:
    assert judge(LOAD, evidence(load=())).outcome is Outcome.INCONCLUSIVE


def test_load_that_the_observer_could_not_see_is_the_observers_failure() -> None:
    blind = (*offered((50, 50, 50))[:1], Observed(EFFECT, observer_failure="Prometheus is gone"), *offered((50, 50, 50))[2:])
    verdict = judge(LOAD, evidence(load=blind))
    assert (verdict.outcome, verdict.reasons) == (Outcome.INCONCLUSIVE, ("no data: the observer failed in the effect window: Prometheus is gone",))


def test_silence_without_load_is_not_the_environments_fault() -> None:
    seen = fine(effect=Observed(EFFECT))
    assert judge(LOAD, evidence(indicators={"acknowledged": seen}, load=offered((50, 0, 50)))).outcome is Outcome.INCONCLUSIVE


def test_bad_events_count_whatever_the_load_was() -> None:
    assert judge(LOAD, evidence(indicators=BROKEN, load=offered((50, 10, 50)))).outcome is Outcome.DEVIATED


STILL_DOWN = {"acknowledged": fine(recovery=events(WINDOWS[RECOVERY], lambda _: 1.0))}


def test_a_recovery_that_ran_out_is_deviated_and_says_what_stayed_broken() -> None:
    verdict = judge(hypothesis(), evidence(indicators=STILL_DOWN, recovered_after=None, recovery_limit=15.0))
    assert verdict.outcome is Outcome.DEVIATED
    assert "not steady again within 15 s" in verdict.reasons[0]


NOT_BLAMED = {
    "cut short": {"recovery_complete": False},
    "our revert failed": {"proofs": (replace(PROOF, reverted=False),)},
    "times unknown": {"clock_problem": "the clock jumped"},
    "fault not proven": {"proofs": (replace(PROOF, proven_share=0.2),)},
    "no hypothesis says so": {"indicators": {"acknowledged": fine()}},
    "observer failed": {"indicators": {"acknowledged": fine(recovery=events(WINDOWS[RECOVERY], lambda _: 1.0, observer_failure="gap"))}},
}


@pytest.mark.parametrize("changes", NOT_BLAMED.values(), ids=NOT_BLAMED.keys())
def test_a_recovery_that_ran_out_is_not_blamed_on_the_environment_when(changes: dict[str, Any]) -> None:
    verdict = judge(hypothesis(), evidence(**{"indicators": STILL_DOWN, "recovered_after": None, "recovery_limit": 15.0, **changes}))
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_an_environment_that_only_flaps_did_not_recover() -> None:
    long = Window(RECOVERY, 1105.0, 1165.0)
    flapping = events(long, lambda at: 1.0 if at % 20 < 8 else 0.0)
    changes = {"windows": (WINDOWS[BASELINE], WINDOWS[EFFECT], long), "recovered_after": None, "recovery_limit": 55.0}
    seen = {"acknowledged": [events(WINDOWS[BASELINE]), events(WINDOWS[EFFECT]), flapping]}
    steady_for = Recovery(within=55.0, steady_for=15.0)
    assert judge(hypothesis(recovery=steady_for), evidence(indicators=seen, **changes)).outcome is Outcome.DEVIATED


def test_a_short_recovery_that_was_seen_live_needs_no_further_evidence() -> None:
    short = Window(RECOVERY, 1105.0, 1106.0)
    seen = [events(WINDOWS[BASELINE]), events(WINDOWS[EFFECT]), events(short)]
    verdict = judge(hypothesis(), evidence(windows=(WINDOWS[BASELINE], WINDOWS[EFFECT], short), indicators={"acknowledged": seen}, recovered_after=0.5))
    assert verdict.outcome is Outcome.HELD


def test_a_relapse_after_the_recovery_is_deviated() -> None:
    long = Window(RECOVERY, 1105.0, 1165.0)
    seen = [events(WINDOWS[BASELINE]), events(WINDOWS[EFFECT]), events(long, outage(1120, 1160))]
    verdict = judge(hypothesis(), evidence(windows=(WINDOWS[BASELINE], WINDOWS[EFFECT], long), indicators={"acknowledged": seen}))
    assert verdict.outcome is Outcome.DEVIATED


def test_what_was_broken_before_the_recovery_is_not_held_against_it() -> None:
    seen = fine(recovery=events(WINDOWS[RECOVERY], outage(1105, 1112)))
    assert judge(hypothesis(), evidence(indicators={"acknowledged": seen}, recovered_after=10.0)).outcome is Outcome.HELD


def test_a_recovery_later_than_the_limit_is_not_held() -> None:
    assert judge(hypothesis(), evidence(recovered_after=61.0)).outcome is not Outcome.HELD


@pytest.mark.parametrize(("tolerated", "outcome"), [(0.0, Outcome.DEVIATED), (0.9, Outcome.HELD)])
def test_the_tolerated_share_counts_in_the_effect_only(tolerated: float, outcome: Outcome) -> None:
    made = ratio(tolerated_share=tolerated)
    seen = fine(effect=events(WINDOWS[EFFECT], lambda _: 0.5))
    assert judge(hypothesis(made), evidence(indicators={"acknowledged": seen})).outcome is outcome
    seen = fine(baseline=events(WINDOWS[BASELINE], lambda _: 0.5))
    assert judge(hypothesis(made), evidence(indicators={"acknowledged": seen})).outcome is Outcome.INCONCLUSIVE


def test_a_waived_indicator_is_reported_and_never_decides() -> None:
    verdict = judge(hypothesis(ratio(waived_during_effect=True), ratio("other")), evidence(indicators={**BROKEN, "other": fine()}))
    assert verdict.outcome is Outcome.HELD
    waived = next(one for one in verdict.indicators if one.window is EFFECT)
    assert waived.outcome is not Outcome.DEVIATED
    assert "waived" in waived.reason


def test_a_burst_in_one_block_decides_nothing() -> None:
    seen = fine(effect=events(WINDOWS[EFFECT], outage(1061, 1064)))
    verdict = judge(hypothesis(), evidence(indicators={"acknowledged": seen}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "not enough evidence" in verdict.reasons[0]


def test_a_fall_below_the_runs_own_baseline_is_deviated() -> None:
    made = ratio(bound=RatioBound(drop_at_most=0.05))
    seen = {"acknowledged": [events(window, always(share)) for window, share in zip(WINDOWS.values(), (0.1, 0.3, 0.1), strict=True)]}
    assert judge(hypothesis(made), evidence(indicators=seen)).outcome is Outcome.DEVIATED
    seen["acknowledged"][1] = events(WINDOWS[EFFECT], lambda _: 0.1)
    assert judge(hypothesis(made), evidence(indicators=seen)).outcome is Outcome.HELD


GAUGES = {
    "inside": (lambda _: 50.0, {}, Outcome.HELD),
    "outside": (lambda _: 150.0, {}, Outcome.DEVIATED),
    "half outside": (lambda at: 150.0 if at < 1070 else 50.0, {}, Outcome.DEVIATED),
    "one block outside": (lambda at: 500.0 if 1062 <= at < 1064 else 50.0, {}, Outcome.INCONCLUSIVE),
    "half outside, tolerated": (lambda at: 150.0 if at < 1070 else 50.0, {"tolerated_share": 0.9}, Outcome.HELD),
    "only NaN": (lambda _: math.nan, {}, Outcome.INCONCLUSIVE),
    "some blocks NaN": (lambda at: math.nan if at < 1070 else 50.0, {}, Outcome.INCONCLUSIVE),
    "single NaN": (lambda at: math.nan if at == 1070 else 50.0, {}, Outcome.HELD),
    "risen": (lambda _: 50.0, {"bound": GaugeBound(rise_at_most=20.0)}, Outcome.DEVIATED),
    "risen a little": (lambda _: 25.0, {"bound": GaugeBound(rise_at_most=20.0)}, Outcome.HELD),
    "fallen": (lambda _: 1.0, {"bound": GaugeBound(drop_at_most=5.0)}, Outcome.DEVIATED),
    "too low": (lambda _: 1.0, {"bound": GaugeBound(at_least=5.0)}, Outcome.DEVIATED),
    "waived": (lambda _: 150.0, {"waived_during_effect": True}, Outcome.HELD),
}


@pytest.mark.parametrize(("value", "changes", "outcome"), GAUGES.values(), ids=GAUGES.keys())
def test_a_gauge_in_the_effect_window(value: Callable[[float], float], changes: dict[str, Any], outcome: Outcome) -> None:
    seen = [values(WINDOWS[BASELINE]), values(WINDOWS[EFFECT], value), values(WINDOWS[RECOVERY])]
    made = hypothesis(ratio(), gauge(**changes))
    assert judge(made, evidence(indicators={"acknowledged": fine(), "queue": seen})).outcome is outcome


def test_the_tolerated_share_of_a_gauge_counts_in_the_effect_only() -> None:
    seen = [values(WINDOWS[BASELINE], lambda at: 150.0 if at < 1025 else 50.0), values(WINDOWS[EFFECT]), values(WINDOWS[RECOVERY])]
    verdict = judge(hypothesis(gauge(tolerated_share=0.9)), evidence(indicators={"queue": seen}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[0].startswith("no steady baseline")


def test_a_query_that_gives_several_series_is_no_data() -> None:
    double = replace(values(WINDOWS[EFFECT]), values=values(WINDOWS[EFFECT]).values * 2)
    seen = [values(WINDOWS[BASELINE]), double, values(WINDOWS[RECOVERY])]
    verdict = judge(hypothesis(gauge()), evidence(indicators={"queue": seen}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert any("several series" in reason for reason in verdict.reasons)


def test_the_start_of_a_window_is_left_out_since_it_may_show_what_was_before() -> None:
    seen = fine(effect=events(WINDOWS[EFFECT], outage(1030, 1041)))
    assert judge(hypothesis(), evidence(indicators={"acknowledged": seen})).outcome is Outcome.HELD


def test_more_good_events_than_valid_ones_are_no_data() -> None:
    seen = fine(effect=events(WINDOWS[EFFECT], lambda _: -1.0))
    verdict = judge(hypothesis(), evidence(indicators={"acknowledged": seen}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert any("more good events than valid ones" in reason for reason in verdict.reasons)


def test_names_that_two_hypotheses_share_are_prefixed() -> None:
    two = (hypothesis(name="orders"), hypothesis(name="quotes"))
    seen = [replace(one, hypothesis=name) for name in ("orders", "quotes") for one in (fine() if name == "orders" else BROKEN["acknowledged"])]
    verdict = judge(two, evidence(indicators={"acknowledged": seen}))
    assert verdict.outcome is Outcome.DEVIATED
    assert {one.indicator for one in verdict.indicators} == {"orders/acknowledged", "quotes/acknowledged"}
    assert "quotes/acknowledged broke" in verdict.reasons[0]


@pytest.mark.parametrize("none", [None, ()])
def test_without_a_hypothesis_there_is_nothing_to_judge(none: tuple[Hypothesis, ...] | None) -> None:
    assert judge(none, evidence()).outcome is Outcome.INCONCLUSIVE


COUNTERS = {
    "rises": ([10, 20, 35], [10, 15]),
    "starts again": ([10, 4, 9], [4, 5]),
    "no sample before the first block": ([None, 20, 35], [0, 15]),
    "missed scrape": ([10, None, 35], [0, 25]),
    "gone": ([10, 20, None], [10, 0]),
    "NaN": ([10, math.nan, 35], [0, 25]),
    "negative": ([10, -5, 35], [0, 25]),
}


@pytest.mark.parametrize(("samples", "expected"), COUNTERS.values(), ids=COUNTERS.keys())
def test_what_a_counter_rose_by_in_each_block(samples: list[float | None], expected: list[float]) -> None:
    series = Series(LABELS, tuple(Sample(10.0 * at, value) for at, value in enumerate(samples) if value is not None))
    assert increases((series,), (0.0, 10.0, 20.0)) == tuple(expected)


def test_a_counter_that_appears_while_its_target_is_scraped_started_from_zero() -> None:
    old = Series((*LABELS, ("outcome", "ok")), (Sample(0.0, 5.0), Sample(10.0, 6.0)))
    new = Series((*LABELS, ("outcome", "error")), (Sample(10.0, 3.0), Sample(20.0, 4.0)))
    assert increases((old, new), (0.0, 10.0, 20.0)) == (4.0, 1.0)


def test_an_event_that_is_valid_in_one_block_and_good_in_the_next_is_not_bad() -> None:
    late = Observed(
        EFFECT,
        good=(counter(WINDOWS[EFFECT], lambda at: RATE - (20 if at % 10 == 2 else 0) + (20 if at % 10 == 3 else 0)),),
        valid=(counter(WINDOWS[EFFECT], lambda _: RATE),),
    )
    verdict = judge(hypothesis(ratio(block=1.0)), evidence(indicators={"acknowledged": fine(effect=late)}))
    effect = next(one for one in verdict.indicators if one.window is EFFECT)
    assert effect.outcome is Outcome.HELD
    assert effect.observed == pytest.approx(1.0)
    assert effect.design_effect == 1.0


def test_blocks_are_equal_and_never_shorter_than_asked() -> None:
    assert grid(0.0, 10.0, 3.0) == pytest.approx((0.0, 10 / 3, 20 / 3, 10.0))
    assert grid(0.0, 2.0, 3.0) == ()
    assert grid(5.0, 0.0, 1.0) == ()


def test_block_series_gives_what_a_plot_needs() -> None:
    points = block_series(ratio(), events(WINDOWS[EFFECT], outage(1070, 1100)), WINDOWS[EFFECT])
    assert len(points) == 12
    assert points[0] == pytest.approx((1045.0, 1.0))
    assert points[-1] == pytest.approx((1100.0, 0.0))
    assert block_series(gauge(), values(WINDOWS[EFFECT]), WINDOWS[EFFECT])[0] == pytest.approx((1045.0, 10.0))


REACH = {"scrape_interval": 1.0, "baseline": 30.0, "effect": 60.0, "recovery": 60.0, "load": 50.0}


def test_windows_that_are_long_enough_can_be_held() -> None:
    assert reachability(hypothesis(ratio(), gauge()), **REACH) == ()


SHORT = {
    "effect of a ratio": (ratio(bound=RatioBound(at_least=0.999)), {"effect": 30.0}, "the shortest that can is 40.4 s"),
    "effect of a gauge": (gauge(), {"effect": 20.0}, "the shortest that can is 28 s"),
    "effect of two blocks": (ratio(bound=RatioBound(at_least=0.5)), {"effect": 5.0}, "the shortest that can is 12 s"),
    "baseline": (ratio(bound=RatioBound(drop_at_most=0.1)), {"baseline": 4.0}, "baseline of 4 s"),
    "impossible": (ratio(bound=RatioBound(at_least=1.0)), {}, "with any window"),
    "recovery": (ratio(), {"recovery": 2.0}, "must be steady for"),
}


@pytest.mark.parametrize(("indicator", "changes", "sentence"), SHORT.values(), ids=SHORT.keys())
def test_what_can_never_be_held_is_said_with_the_shortest_window_that_can(
    indicator: RatioIndicator | GaugeIndicator, changes: dict[str, float], sentence: str
) -> None:
    found = reachability(hypothesis(indicator), **{**REACH, **changes})
    assert any(sentence in one for one in found), found


def test_less_expected_load_than_needed_can_never_be_held() -> None:
    assert any("not exercised" in one for one in reachability(LOAD, **{**REACH, "load": 10.0}))


@pytest.mark.parametrize("rate", [5.0, 50.0, 500.0])
@pytest.mark.parametrize("least", [0.9, 0.99, 0.999])
def test_the_shortest_window_that_reachability_names_is_held_by_a_flawless_run(rate: float, least: float) -> None:
    made = hypothesis(ratio(bound=RatioBound(at_least=least)))
    found = reachability(made, **{**REACH, "effect": 1.0, "load": rate})
    seconds = float(found[0].split("the shortest that can is ")[1].split(" s")[0])
    effect = Window(EFFECT, 1040.0, 1040.0 + seconds)
    flawless = counter(effect, lambda _: rate)
    seen = [events(WINDOWS[BASELINE]), Observed(EFFECT, good=(flawless,), valid=(flawless,)), events(WINDOWS[RECOVERY])]
    windows = (WINDOWS[BASELINE], effect, WINDOWS[RECOVERY])
    assert in_window(judge(made, evidence(windows=windows, indicators={"acknowledged": seen})), EFFECT) is Outcome.HELD


def beta_binomial(random: numpy.random.Generator, blocks: int, mean: float, clustering: float, runs: int) -> "numpy.ndarray":
    """Bad events of clustered blocks: the correlation of two events of one block is `clustering`."""
    spread = (1 - clustering) / clustering
    return blocks - random.binomial(blocks, random.beta(mean * spread, (1 - mean) * spread, size=runs))


@pytest.mark.parametrize("clustering", [0.0005, 0.02, 0.2])
@pytest.mark.parametrize(("blocks", "rate"), [(6, 100), (11, 250), (28, 100)])
def test_a_share_that_just_keeps_its_bound_is_called_broken_in_less_than_one_run_in_a_hundred(clustering: float, blocks: int, rate: int) -> None:
    random = numpy.random.default_rng(20170589)
    valid = [float(rate)] * blocks
    runs = beta_binomial(random, rate, 0.99, clustering, blocks * 400).reshape(400, blocks)
    alarms = sum(share_limits(valid, list(bad), 0.05, 0.0025).high < 0.99 for bad in runs)
    assert alarms <= 4


@pytest.mark.parametrize("clustering", [0.0005, 0.005, 0.02])
def test_a_share_five_points_below_its_bound_is_found_in_95_of_100_runs_and_never_called_kept(clustering: float) -> None:
    random = numpy.random.default_rng(20222554)
    runs = beta_binomial(random, 250, 0.94, clustering, 11 * 400).reshape(400, 11)
    limits = [share_limits([250.0] * 11, list(bad), 0.05, 0.00125) for bad in runs]
    assert sum(one.high < 0.99 for one in limits) >= 380
    assert not any(one.low >= 0.99 for one in limits)


def test_limits_of_independent_events_are_those_of_the_beta_posterior() -> None:
    # Jeffreys' lower 5 % limit for 0 of 192 bad: 0.99 (Brown, Cai and DasGupta 2001, the interval's definition).
    limits = share_limits([96.0, 96.0], [0.0, 0.0], 0.05, 0.05)
    assert limits.low == pytest.approx(0.99, abs=2e-4)
    assert limits.design_effect == 1.0


def test_a_burst_on_top_of_steady_failure_does_not_make_it_less_certain() -> None:
    steadily, burst = [4.0] * 11, [4.0] * 5 + [200.0] + [4.0] * 5
    plain = [share_limits([200.0] * 11, bad, 0.05, 0.00125, monotone=False).high for bad in (steadily, burst)]
    assert plain[0] < 0.99 < plain[1]  # what the closure is for
    assert share_limits([200.0] * 11, burst, 0.05, 0.00125).high < 0.99


def test_failures_all_over_do_not_make_a_burst_look_better() -> None:
    burst, more = [0.0] * 5 + [10.0] + [0.0] * 5, [1.0] * 5 + [10.0] + [1.0] * 5
    plain = [share_limits([200.0] * 11, bad, 0.05, 0.00125, monotone=False).low for bad in (burst, more)]
    assert plain[0] < plain[1]  # what the closure is for
    limits = [share_limits([200.0] * 11, bad, 0.05, 0.00125).low for bad in (burst, more)]
    assert limits[1] <= limits[0]


def test_the_design_effect_is_pearsons_chi_square_over_its_degrees_of_freedom() -> None:
    limits = share_limits([100.0, 100.0, 100.0], [0.0, 10.0, 20.0], 0.05, 0.05)
    assert limits.design_effect == pytest.approx((100 + 0 + 100) / (100 * 0.1 * 0.9) / 2)


def test_the_limits_of_a_fall_meet_newcombes_when_events_are_many() -> None:
    before, after = share_limits([5000.0] * 10, [50.0] * 10, 0.05, 0.05), share_limits([5000.0] * 10, [150.0] * 10, 0.05, 0.05)
    least, greatest = drop_limits(before, after)
    assert least < 0.02 < greatest
    assert greatest - least < 0.01
