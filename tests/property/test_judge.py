"""Laws of the judge: what can never happen, whatever the evidence."""

import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from frangible.hypothesis import GaugeBound, GaugeIndicator, Hypothesis, LeastLoad, RatioBound, RatioIndicator, Recovery
from frangible.judge import Ending, FaultProof, Observed, Outcome, RunEvidence, Verdict, Window, WindowName, block_series, judge
from frangible.metrics import Sample, Series

BASELINE, EFFECT, RECOVERY = WindowName.BASELINE, WindowName.EFFECT, WindowName.RECOVERY
WINDOWS = (Window(BASELINE, 1000.0, 1030.0), Window(EFFECT, 1040.0, 1100.0), Window(RECOVERY, 1105.0, 1165.0))
LABELS = (("instance", "a:1"), ("job", "generator"))
RATE = 40
WORSE = {Outcome.HELD: 0, Outcome.INCONCLUSIVE: 1, Outcome.DEVIATED: 2}

bounds = st.builds(
    lambda least, drop: RatioBound(at_least=least, drop_at_most=drop),
    st.one_of(st.none(), st.sampled_from([0.5, 0.9, 0.99, 0.999])),
    st.sampled_from([0.01, 0.1, 0.5]),
)
policies = st.sampled_from(["broken", "ignore"])


def ratio(name: str, bound: RatioBound, policy: str = "broken", **changes: Any) -> RatioIndicator:
    fields: dict[str, Any] = {"name": name, "when_absent": policy, "good": "good{${labels}}", "valid": "valid{${labels}}", "bound": bound}
    return RatioIndicator.model_validate({**fields, **changes})


def gauge(name: str, policy: str = "broken") -> GaugeIndicator:
    fields: dict[str, Any] = {"name": name, "when_absent": policy, "query": "depth{${labels}}", "lookback": 2.0}
    return GaugeIndicator.model_validate({**fields, "bound": GaugeBound(at_most=100.0, rise_at_most=50.0)})


def hypothesis(*indicators: RatioIndicator | GaugeIndicator, **changes: Any) -> Hypothesis:
    return Hypothesis.model_validate({"name": "orders", "indicators": indicators, "recovery": Recovery(within=60.0, steady_for=5.0), **changes})


def counted(window: Window, bad: list[int]) -> Observed:
    """Events of a window, a sample a second; `bad` has so many of each five seconds, in turn."""
    good, valid = [Sample(window.start - 0.5, 0.0)], [Sample(window.start - 0.5, 0.0)]
    for second in range(int(window.end - window.start)):
        at = window.start + second + 0.5
        valid.append(Sample(at, valid[-1].value + RATE))
        good.append(Sample(at, good[-1].value + RATE - (bad[second // 5] if second // 5 < len(bad) else 0)))
    return Observed(window.name, good=(Series(LABELS, tuple(good)),), valid=(Series(LABELS, tuple(valid)),))


def run(observed: dict[str, list[Observed]], **changes: Any) -> RunEvidence:
    whole = RunEvidence(
        windows=WINDOWS,
        observed=tuple((name, tuple(seen)) for name, seen in observed.items()),
        load=(),
        proofs=(FaultProof("lease-1", "node-loss", "node app-1", injected=True, proven_share=1.0, least_proven=0.9, reverted=True),),
        ending=Ending.COMPLETED,
        ending_detail="",
        clock_problem="",
        recovered_after=5.0,
        recovery_limit=60.0,
        recovery_complete=True,
        scrape_interval=1.0,
    )
    return replace(whole, **changes)


def fails(blocks: int) -> st.SearchStrategy[list[int]]:
    """Bad events a second, block by block: mostly none, sometimes everything."""
    return st.lists(st.one_of(st.just(0), st.integers(0, 3), st.integers(0, RATE)), min_size=blocks, max_size=blocks)


@given(effect=fails(12), recovery=fails(12), more=fails(12), more_later=fails(12), bound=bounds, tolerated=st.sampled_from([0.0, 0.1, 0.5]))
def test_more_bad_events_never_improve_a_verdict(
    effect: list[int], recovery: list[int], more: list[int], more_later: list[int], bound: RatioBound, tolerated: float
) -> None:
    made = hypothesis(ratio("acknowledged", bound, tolerated_share=tolerated))

    def outcome(during: list[int], after: list[int]) -> int:
        seen = [counted(WINDOWS[0], []), counted(WINDOWS[1], during), counted(WINDOWS[2], after)]
        return WORSE[judge(made, run({"acknowledged": seen})).outcome]

    worse = [min(RATE, some + other) for some, other in zip(effect, more, strict=True)]
    worse_later = [min(RATE, some + other) for some, other in zip(recovery, more_later, strict=True)]
    assert outcome(worse, worse_later) >= outcome(effect, recovery)


@given(first=fails(12), second=fails(12), bound=bounds)
def test_the_order_of_indicators_and_of_their_evidence_changes_nothing(first: list[int], second: list[int], bound: RatioBound) -> None:
    one, two = ratio("one", bound), ratio("two", bound)
    seen = {name: [counted(WINDOWS[0], []), counted(WINDOWS[1], bad), counted(WINDOWS[2], [])] for name, bad in (("one", first), ("two", second))}
    forwards = judge(hypothesis(one, two), run(seen))
    backwards = judge(hypothesis(two, one), run({name: seen[name] for name in ("two", "one")}))
    assert forwards.outcome is backwards.outcome
    assert set(forwards.indicators) == set(backwards.indicators)
    assert set(forwards.reasons) == set(backwards.reasons)


@given(first=fails(12), second=fails(12), bound=bounds)
def test_two_indicators_are_held_only_together_and_deviate_only_through_one_of_them(first: list[int], second: list[int], bound: RatioBound) -> None:
    one, two = ratio("one", bound), ratio("two", bound)
    seen = {name: [counted(WINDOWS[0], []), counted(WINDOWS[1], bad), counted(WINDOWS[2], [])] for name, bad in (("one", first), ("two", second))}
    both = judge(hypothesis(one, two), run(seen)).outcome
    alone = [judge(hypothesis(each), run(seen)).outcome for each in (one, two)]
    assert (both is Outcome.HELD) == all(outcome is Outcome.HELD for outcome in alone)
    assert both is not Outcome.DEVIATED or Outcome.DEVIATED in alone


endings = st.sampled_from(Ending)
proofs = st.lists(
    st.builds(
        FaultProof,
        lease=st.just("lease-1"),
        fault=st.just("node-loss"),
        target=st.just("node app-1"),
        injected=st.booleans(),
        proven_share=st.sampled_from([0.0, 0.5, 0.9, 1.0, math.nan]),
        least_proven=st.just(0.9),
        reverted=st.booleans(),
    ),
    max_size=2,
).map(tuple)


@given(
    bad=fails(12),
    ending=endings,
    proofs=proofs,
    clock=st.sampled_from(["", "skew of 9 s"]),
    recovered=st.sampled_from([None, 5.0, 70.0, math.nan]),
    complete=st.booleans(),
    failure=st.sampled_from(["", "gap"]),
)
def test_only_a_whole_and_proven_run_is_held_and_only_a_proven_fault_deviates(
    bad: list[int], ending: Ending, proofs: tuple[FaultProof, ...], clock: str, recovered: float | None, complete: bool, failure: str
) -> None:
    seen = [counted(WINDOWS[0], []), replace(counted(WINDOWS[1], bad), observer_failure=failure), counted(WINDOWS[2], [])]
    changes = {"ending": ending, "proofs": proofs, "clock_problem": clock, "recovered_after": recovered, "recovery_complete": complete}
    verdict = judge(hypothesis(ratio("acknowledged", RatioBound(at_least=0.9))), run({"acknowledged": seen}, **changes))
    proven = [proof for proof in proofs if proof.injected and proof.proven_share >= proof.least_proven]
    if verdict.outcome is Outcome.HELD:
        assert ending is Ending.COMPLETED
        assert not clock
        assert not failure
        assert recovered == 5.0
        assert proofs
        assert all(proof.reverted for proof in proofs)
        assert len(proven) == len(proofs)
        assert sum(bad) < 0.1 * RATE * 12
    if verdict.outcome is Outcome.DEVIATED:
        assert proven
        assert not clock
        assert ending not in (Ending.REFUSED, Ending.NO_BASELINE)
        assert sum(bad) > 0
    assert verdict.reasons


numbers = st.one_of(st.floats(), st.sampled_from([math.nan, 0.0, -1.0, 1e308, 1e-308, 5.0, 50.0]))
times = st.lists(st.floats(990.0, 1170.0), max_size=12, unique=True).map(sorted)
garbage_series = times.flatmap(
    lambda at: st.lists(numbers, min_size=len(at), max_size=len(at)).map(lambda values: Series(LABELS, tuple(map(Sample, at, values))))
)
several = st.lists(garbage_series, max_size=2).map(tuple)
garbage = st.builds(Observed, st.sampled_from(WindowName), good=several, valid=several, values=several, observer_failure=st.sampled_from(["", "gap"]))
odd_windows = st.lists(st.builds(Window, st.sampled_from(WindowName), st.floats(900.0, 1200.0), st.floats(900.0, 1200.0)), max_size=4).map(tuple)


@given(
    seen=st.lists(garbage, max_size=4),
    windows=st.one_of(st.just(WINDOWS), odd_windows),
    policy=policies,
    recovered=st.sampled_from([None, 5.0]),
    interval=st.sampled_from([0.1, 1.0, 15.0]),
)
def test_garbage_never_raises_and_is_never_held(
    seen: list[Observed], windows: tuple[Window, ...], policy: str, recovered: float | None, interval: float
) -> None:
    # A dozen samples are never the evidence that a bound of 0.999 or five blocks need, whatever they are.
    made = hypothesis(ratio("acknowledged", RatioBound(at_least=0.999, drop_at_most=0.01), policy), gauge("queue", policy))
    shifted = run({"acknowledged": seen, "queue": seen}, windows=windows, recovered_after=recovered, scrape_interval=interval)
    verdict: Verdict = judge(made, shifted)
    assert verdict.outcome is not Outcome.HELD
    for one in seen:
        for window in windows:
            for indicator in made.indicators:
                assert all(math.isfinite(at) for at, _ in block_series(indicator, one, window))


@given(policy=policies, failure=st.sampled_from(["", "gap"]), missing=st.sets(st.sampled_from(WindowName), min_size=1), recovered=st.sampled_from([None, 5.0]))
def test_no_data_is_never_a_pass(policy: str, failure: str, missing: set[WindowName], recovered: float | None) -> None:
    made = hypothesis(ratio("acknowledged", RatioBound(at_least=0.9), policy))
    seen = [Observed(window.name, observer_failure=failure) if window.name in missing else counted(window, []) for window in WINDOWS]
    outcome = judge(made, run({"acknowledged": seen}, recovered_after=recovered)).outcome
    # A recovery that was seen live has been seen, whatever is left of it afterwards.
    assert outcome is not Outcome.HELD or (missing == {RECOVERY} and recovered is not None and not failure)
    if failure:
        assert outcome is Outcome.INCONCLUSIVE


@given(rate=st.integers(0, 100), window=st.sampled_from(WindowName))
def test_less_load_than_needed_is_never_held(rate: int, window: WindowName) -> None:
    made = hypothesis(ratio("acknowledged", RatioBound(at_least=0.9)), requires=LeastLoad(metric="offered{${labels}}", at_least=50.0))
    load = tuple(Observed(one.name, valid=(steps(one, rate if one.name is window else 100),)) for one in WINDOWS)
    seen = {"acknowledged": [counted(one, []) for one in WINDOWS]}
    outcome = judge(made, run(seen, load=load)).outcome
    assert outcome is (Outcome.HELD if rate >= 50 else Outcome.INCONCLUSIVE) or 48 <= rate < 50


def steps(window: Window, rate: int) -> Series:
    """A counter that rises by `rate` a second, from one second before the window."""
    return Series(LABELS, tuple(Sample(window.start - 0.5 + second, float(rate * second)) for second in range(int(window.end - window.start) + 1)))
