"""A host whose clock jumps in the middle of a run: its times mean nothing, so its verdict is none."""

import json
import threading
from pathlib import Path

import pytest

from frangible.experiment import Windows
from frangible.hypothesis import Hypothesis
from frangible.judge import Ending, FaultProof, Outcome, judge
from frangible.plan import Plan
from frangible.supervisor.concluding import evidence
from frangible.supervisor.measuring import Measuring

FLOW = Hypothesis.model_validate(
    {
        "name": "flow",
        "recovery": {"within": "20s", "steady-for": "1s"},
        "indicators": [
            {"name": "orders", "kind": "ratio", "good": "good{${labels}}", "valid": "valid{${labels}}", "bound": {"at-least": 0.9}, "when-absent": "broken"}
        ],
    }
)
PROVEN = FaultProof("r-1", "node-loss", "node app-1", injected=True, proven_share=1.0, least_proven=0.95, reverted=True)


class SettableClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.passed, self.set_forward = 0.0, 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.passed

    def wall(self) -> float:
        return 1_800_000_000.0 + self.passed + self.set_forward

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.passed += seconds
        return stop.is_set()


def measuring(clock: SettableClock, folder: Path) -> Measuring:
    empty = dict.fromkeys(("journal_url", "ledger_url", "experiment_path", "experiment", "title", "digest", "actor", "note", "ticket", "environment_json"), "")
    hypotheses = json.dumps([FLOW.model_dump(mode="json", by_alias=True)])
    windows = Windows().model_dump_json(by_alias=True)
    plan = Plan(
        "r",
        folder,
        folder,
        injects=True,
        has_control=True,
        longest_hold=5.0,
        keys=(),
        needs=(),
        seed=1,
        hypotheses_json=hypotheses,
        windows_json=windows,
        **empty,
    )
    found = Measuring(plan, None, lambda _: None, clock)
    found.timeline.scrape_interval = 1.0
    return found


@pytest.mark.parametrize("seconds", [30.0, -30.0], ids=["forward", "back"])
def test_a_run_whose_clock_was_set_is_inconclusive(tmp_path: Path, seconds: float) -> None:
    """A jump of the wall clock by more than a scrape interval is said, and disqualifies all that was measured."""
    clock = SettableClock()
    run = measuring(clock, tmp_path)
    clock.passed = 60.0
    clock.set_forward = seconds
    found = evidence(run, (PROVEN,), Ending.COMPLETED, "")
    verdict = judge(run.plan.hypotheses, found)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons[0] == f"times cannot be trusted: this host's clock jumped by {seconds:+.1f} s during the run"


def test_time_that_only_passes_is_no_jump(tmp_path: Path) -> None:
    """A long run, and a correction smaller than a scrape interval, are as they should be."""
    clock = SettableClock()
    run = measuring(clock, tmp_path)
    clock.passed, clock.set_forward = 7200.0, 0.4
    assert run.clock_problem() == ""


def test_windows_are_measured_on_a_clock_that_does_not_jump(tmp_path: Path) -> None:
    """The run's own times follow the monotonic clock: what lies between two of them is what has passed."""
    clock = SettableClock()
    run = measuring(clock, tmp_path)
    run.proven()
    clock.passed, clock.set_forward = 5.0, 3600.0
    run.proven()
    effect = run.timeline.effect(0.0)
    assert effect is not None
    assert effect.end - effect.start == pytest.approx(5.0)
