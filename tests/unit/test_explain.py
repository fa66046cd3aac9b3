"""Verdicts in sentences, and what is drawn."""

from dataclasses import replace

import pytest

from frangible.explain import Plot, deciding, explain, plot_of, sparkline
from frangible.journal import RunRecord
from frangible.judge import FaultProof, IndicatorVerdict, Outcome, Window, WindowName
from frangible.process import ProcessIdentity

WINDOWS = (Window(WindowName.BASELINE, 1000, 1010), Window(WindowName.EFFECT, 1012, 1032), Window(WindowName.RECOVERY, 1032, 1045))


def record(**changes) -> RunRecord:
    base = RunRecord(
        id="20261123-2351-07-3fa9",
        experiment="node-loss",
        experiment_title="Orders flow on",
        experiment_digest="d1",
        environment="lab-newyork",
        region="newyork",
        tier="staging",
        owner="environments-newyork",
        note="",
        ticket="",
        actor="ada@box",
        supervisor=ProcessIdentity("box", "b", 1, 1),
        started_at=990.0,
        ended_at=1050.0,
        state="finished",
        outcome="deviated",
        keys=(),
    )
    return replace(base, **changes)


def indicator(**changes) -> IndicatorVerdict:
    base = IndicatorVerdict(
        indicator="order-flow/orders-acknowledged",
        window=WindowName.EFFECT,
        outcome=Outcome.DEVIATED,
        reason="too few in time",
        bound="at least 0.99",
        observed=0.912,
        low=0.899,
        high=0.923,
        good=5120.0,
        total=5614.0,
        blocks=4,
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({}, "Run 20261123-2351-07-3fa9: node-loss on lab-newyork deviated after 60 s; started by ada@box.", id="deviated"),
        pytest.param(
            {"outcome": "inconclusive"}, "Run 20261123-2351-07-3fa9: node-loss on lab-newyork was inconclusive after 60 s; started by ada@box.", id="inc"
        ),
        pytest.param(
            {"outcome": None, "state": "started", "ended_at": None},
            "Run 20261123-2351-07-3fa9: node-loss on lab-newyork has no verdict yet: it is still started.",
            id="running",
        ),
    ],
)
def test_the_headline_says_what_where_and_how_it_ended(changes, sentence):
    assert explain(record(**changes)).headline == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            {},
            "order-flow/orders-acknowledged broke its bound in the effect window; asked: at least 0.99; observed: 0.912 (between 0.899 and 0.923); "
            "evidence: 5,120 of 5,614 events good, 4 blocks.",
            id="ratio",
        ),
        pytest.param(
            {"observed": None, "low": None, "high": None, "good": 0.0, "total": 0.0, "blocks": 0, "outcome": Outcome.INCONCLUSIVE, "reason": "no data"},
            "order-flow/orders-acknowledged could not be decided in the effect window; asked: at least 0.99; no data.",
            id="no data",
        ),
        pytest.param(
            {"outcome": Outcome.HELD, "observed": 0.999987, "low": None, "high": None, "total": 0.0, "blocks": 1, "reason": "", "design_effect": 2.0},
            "order-flow/orders-acknowledged kept its bound in the effect window; asked: at least 0.99; observed: 0.999987; "
            "evidence: 1 block, clustering makes it worth 50% of that.",
            id="held, digits that decide are shown",
        ),
    ],
)
def test_an_indicator_says_bound_observation_window_and_evidence(changes, sentence):
    assert explain(record(indicators=(indicator(**changes),))).indicators == (sentence,)


@pytest.mark.parametrize(
    ("proof", "sentence"),
    [
        pytest.param(
            FaultProof("l1", "node-loss", "node app-1", True, 1.0, 0.95, True, "powered again"),
            "node-loss on node app-1 was proven real in 100% of its hold (at least 95% is needed), then reverted (powered again).",
            id="proven",
        ),
        pytest.param(
            FaultProof("l1", "node-loss", "node app-1", True, 0.4, 0.95, False),
            "node-loss on node app-1 was proven real in 40% of its hold (at least 95% is needed, too little to count), "
            "then NOT reverted: run `frangible recover`.",
            id="healed and left over",
        ),
        pytest.param(
            FaultProof("l1", "node-loss", "node app-1", True, 0.4, 0.95, True, "the node has power"),
            "node-loss on node app-1 was proven real in 40% of its hold (at least 95% is needed, too little to count: the node has power), then reverted.",
            id="healed",
        ),
        pytest.param(FaultProof("l1", "node-loss", "node app-1", False, 0.0, 0.95, True), "node-loss on node app-1 was never injected.", id="never injected"),
    ],
)
def test_a_fault_says_how_much_was_proven_and_whether_it_is_gone(proof, sentence):
    assert explain(record(proofs=(proof,))).faults == (sentence,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"recovered_after": 4.21, "windows": WINDOWS}, "Steady again 4.2 s after the revert was observed.", id="measured"),
        pytest.param({"windows": WINDOWS}, "Not steady again within the 13.0 s that were watched after the revert.", id="censored"),
        pytest.param({"windows": WINDOWS[:1]}, "", id="no recovery window"),
    ],
)
def test_recovery_is_measured_or_censored(changes, sentence):
    assert explain(record(**changes)).recovery == sentence


def test_changes_are_those_of_the_fingerprint_since_the_run_before():
    before = record(id="earlier", outcome="held", fingerprint={"kernel": "6.1", "nats": "2.14", "old": "x"})
    after = record(fingerprint={"kernel": "6.1", "nats": "2.15", "fresh": "y"}, experiment_digest="d2")
    assert explain(after, before).changes == (
        "Since run earlier (held):",
        "the experiment's file was edited",
        "fresh: new, y",
        "nats: 2.14 -> 2.15",
        "old: gone, was x",
    )


def test_no_change_is_said_and_no_run_before_is_not_a_change():
    same = record(id="earlier")
    assert explain(record(), same).changes == ("Nothing that the fingerprint records has changed since run earlier (deviated).",)
    assert explain(record()).changes == ()


def test_guards_that_nobody_configured_are_named_with_note_and_ticket():
    told = explain(record(facts={"guard.freezes": "not configured", "clock.skew-seconds": "+0.002"}, note="before the upgrade", ticket="CHG-1")).notes
    assert told == ("Guards that the inventory does not configure: freezes.", "clock.skew-seconds: +0.002", "Note: before the upgrade", "Ticket: CHG-1")


def test_what_deviated_is_told_before_what_held():
    held, broken = indicator(outcome=Outcome.HELD, indicator="a"), indicator(indicator="b")
    assert [text.split()[0] for text in explain(record(indicators=(held, broken))).indicators] == ["b", "a"]


def test_the_deciding_indicator_has_the_runs_outcome_and_the_effect_window_first():
    held = indicator(outcome=Outcome.HELD, indicator="a")
    late, first = indicator(window=WindowName.RECOVERY, indicator="b"), indicator(indicator="c")
    assert deciding(record(indicators=(held, late, first))) == first
    assert deciding(record(indicators=())) is None


def test_the_plot_has_the_deciding_series_its_bound_and_windows_from_zero():
    one = indicator()
    plot = plot_of(record(indicators=(one,), windows=WINDOWS, series={one.indicator: [[1005.0, 1.0], [1015.0, 0.9], [1025.0, None]]}))
    assert plot is not None
    assert (plot.times, plot.values, plot.bound) == ((5.0, 15.0), (1.0, 0.9), 0.99)
    assert plot.windows[1] == Window(WindowName.EFFECT, 12, 32)


@pytest.mark.parametrize("series", [None, {}, {"order-flow/orders-acknowledged": []}, {"order-flow/orders-acknowledged": [["x"], [1.0, None]]}, [1]])
def test_a_record_without_usable_series_has_no_plot(series):
    assert plot_of(record(indicators=(indicator(),), windows=WINDOWS, series=series)) is None


def test_a_bound_of_several_numbers_draws_no_line():
    one = indicator(bound="at least 0.99, dropping at most 0.01")
    plot = plot_of(record(indicators=(one,), series={one.indicator: [[1.0, 1.0]]}))
    assert plot is not None
    assert plot.bound is None


@pytest.mark.parametrize(("bound", "line"), [("at most 2 above the baseline", 18.0), ("at most 2 below the baseline", 14.0)])
def test_a_relative_bound_is_drawn_from_what_the_baseline_was(bound, line):
    one = indicator(bound=bound)
    series = {one.indicator: [[1.0, 16.0]]}
    plot = plot_of(record(indicators=(replace(one, window=WindowName.BASELINE, observed=16.0), one), series=series))
    assert plot is not None
    assert plot.bound == line
    alone = plot_of(record(indicators=(one,), series=series))
    assert alone is not None
    assert alone.bound is None


def test_the_sparkline_shows_the_dip_in_the_window_where_it_was():
    values = (1.0, 1.0, 0.5, 0.5, 1.0, 1.0)
    windows = (Window(WindowName.BASELINE, 0, 1.9), Window(WindowName.EFFECT, 1.9, 3.9), Window(WindowName.RECOVERY, 3.9, 6))
    bars, marks = sparkline(Plot("i", (0, 1, 2, 3, 4, 5), values, None, "", windows), width=6)
    assert bars.split()[0][:6] == "██▁▁██"
    assert marks.startswith("bbeerr")


def test_a_hole_in_the_series_is_a_hole_in_the_sparkline():
    bars, _ = sparkline(Plot("i", (0, 1, 2, 6, 7), (1, 2, 3, 4, 5), None, "", ()), width=8)
    assert bars.split()[0] == "▁▃▅···▆█"


def test_a_flat_series_and_a_single_point_can_be_drawn():
    assert sparkline(Plot("i", (0, 1), (1, 1), None, "", ()))[0].startswith("██")
    assert sparkline(Plot("i", (0,), (1,), None, "", ()))[0].startswith("█")


def test_what_alerts_did_stands_beside_the_verdict() -> None:
    """In a part of its own, and not among the other facts."""
    told = "fired 4.0 s after the fault was first seen (asked: within 120 s)"
    found = explain(record(facts={"detection.OrdersLate": told, "clock.skew-seconds": "+0.001"}))
    assert found.detections == (f"OrdersLate {told}.",)
    assert ("Alerts", found.detections) in found.sections()
    assert found.notes == ("clock.skew-seconds: +0.001",)
