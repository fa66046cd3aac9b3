"""May a change go on? A policy's requirements held against the newest runs. Pure: the evidence and the clock come in as values.

Only a run that held, that is fresh, and whose followers did not contradict it, is a pass. Missing, stale and inconclusive evidence is
unknown, which is never a pass; a fresh deviation that no later run has refuted is a fail.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.judge import IndicatorVerdict

__all__ = ["Answer", "Case", "Decision", "Evidence", "Requirement", "cases", "decide", "overall", "strictest"]

LEEWAY = 300.0
"""Seconds that a run may seem to come from the future, since clocks differ; one from further ahead is no evidence."""
VERDICT = "verdict"
"""Name of the test case that stands for the whole answer."""


class Answer(StrEnum):
    """The three answers."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a policy wants of one experiment on one environment."""

    environment: str
    experiment: str
    within: float
    """Seconds: the oldest start of a run that still counts."""
    held_in_a_row: int = 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """One finished run."""

    run: str
    outcome: str
    started_at: float
    """Seconds since the epoch."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one requirement."""

    requirement: Requirement
    answer: Answer
    reason: str
    evidence: Evidence | None = None
    """The run that decided; None when there is none at all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a test report."""

    name: str
    """An indicator, or `verdict` for the answer itself."""
    answer: Answer
    reason: str


def strictest(requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
    """Return one requirement an environment and experiment, the strictest of each, sorted."""
    found: dict[tuple[str, str], Requirement] = {}
    for one in requirements:
        key = (one.environment, one.experiment)
        before = found.get(key, one)
        found[key] = Requirement(*key, min(one.within, before.within), max(one.held_in_a_row, before.held_in_a_row))
    return tuple(found[key] for key in sorted(found))


def decide(requirement: Requirement, runs: Sequence[Evidence], now: float) -> Decision:
    """Answer one requirement from the newest finished runs of its experiment on its environment, newest first.

    `runs` has at least as many as are required in a row, as far as there are any, and the newest conclusive one.
    """

    def answer(value: Answer, reason: str, evidence: Evidence | None) -> Decision:
        return Decision(requirement, value, reason, evidence)

    if not runs:
        return answer(Answer.UNKNOWN, "never run", None)
    fresh = [run for run in runs if -LEEWAY <= now - run.started_at <= requirement.within]
    if not fresh:
        found = "is from the future: clocks differ" if runs[0].started_at > now else f"is {_days(now - runs[0].started_at)} old"
        return answer(Answer.UNKNOWN, f"the newest run {found}; expected one of the last {_days(requirement.within)}", runs[0])
    conclusive = next((run for run in fresh if run.outcome in ("held", "deviated")), None)
    if conclusive is not None and conclusive.outcome == "deviated":
        return answer(Answer.FAIL, f"deviated: {conclusive.reason}", conclusive)
    if fresh[0].outcome != "held":
        return answer(Answer.UNKNOWN, f"inconclusive: {fresh[0].reason}", fresh[0])
    row = len(list(takewhile(lambda run: run.outcome == "held", fresh)))
    if row < requirement.held_in_a_row:
        return answer(Answer.UNKNOWN, f"held {row} in a row of the last {_days(requirement.within)}; expected {requirement.held_in_a_row}", fresh[0])
    return answer(Answer.PASS, "held" if requirement.held_in_a_row == 1 else f"held {requirement.held_in_a_row} in a row", fresh[0])


def overall(decisions: Iterable[Decision]) -> Answer:
    """Return the worst answer: fail, then unknown; without any decision nothing is known."""
    answers = {decision.answer for decision in decisions}
    if Answer.FAIL in answers:
        return Answer.FAIL
    return Answer.PASS if answers == {Answer.PASS} else Answer.UNKNOWN


def cases(decision: Decision, indicators: "Iterable[IndicatorVerdict]") -> tuple[Case, ...]:
    """Return the answer, and one case an indicator of the run that decided: its worst window. Where the answer is unknown, so are all of them."""
    worst: dict[str, IndicatorVerdict] = {}
    order = ("held", "inconclusive", "deviated")
    for one in indicators:
        before = worst.get(one.indicator)
        if before is None or order.index(one.outcome) > order.index(before.outcome):
            worst[one.indicator] = one
    return (Case(VERDICT, decision.answer, decision.reason), *(_case(decision, one) for one in worst.values()))


def _case(decision: Decision, one: "IndicatorVerdict") -> Case:
    said = f"{one.window}: {one.reason or one.outcome}"
    if decision.answer is Answer.UNKNOWN:
        return Case(one.indicator, Answer.UNKNOWN, f"{decision.reason}; {said}")
    if one.outcome == "deviated":
        return Case(one.indicator, Answer.FAIL, said)
    # The judge may waive an indicator in one window of a run that held as a whole.
    return Case(one.indicator, Answer.PASS if one.outcome == "held" or decision.answer is Answer.PASS else Answer.UNKNOWN, said)


def _days(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} s"
