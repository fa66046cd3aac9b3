"""From evidence and hypotheses to a verdict: what outweighs what. Pure: no I/O, no clock.

`held` needs everything: a steady baseline, the load, the fault proven, every bound kept with enough evidence, and a recovery that was
seen. `deviated` needs a steady baseline, the fault proven, and a bound broken with enough evidence, or a recovery that ran out; such
evidence outweighs however the run ended. All else is `inconclusive`, with its reasons. docs/judge.md says why.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from frangible.judge.blocks import rate
from frangible.judge.bounds import number
from frangible.judge.evidence import Ending, IndicatorVerdict, Observed, Outcome, RunEvidence, Verdict, Window, WindowName
from frangible.judge.indicators import Baseline, Case, baseline_of, judge_indicator
from frangible.judge.recovering import never_steady

if TYPE_CHECKING:
    from frangible.hypothesis import GaugeIndicator, Hypothesis, RatioIndicator

    type AnyIndicator = RatioIndicator | GaugeIndicator

__all__ = ["FALSE_ALARMS", "broke_level", "judge"]

FALSE_ALARMS = 0.005
"""Chance that a run in which every bound is just kept has any indicator called broken; half of the 1 % that is promised (docs/judge.md)."""
LONGEST_GAP = 3.0
"""Scrape intervals without a reading of the load that count as it going on."""
ENDINGS = {
    Ending.COMPLETED: "",
    Ending.NO_BASELINE: "no steady baseline",
    Ending.ABORTED_BY_OPERATOR: "the run was aborted",
    Ending.ABORTED_BY_CONDITION: "an abort condition ended the run",
    Ending.ACTION_FAILED: "an action failed",
    Ending.RUNNER_DIED: "the runner died",
    Ending.DEADLINE: "the run reached its deadline",
    Ending.REFUSED: "nothing was injected",
}


def judge(hypotheses: "Hypothesis | tuple[Hypothesis, ...] | None", evidence: RunEvidence) -> Verdict:
    """Judge a run. Every indicator of every hypothesis is evaluated in every window; one name in two hypotheses becomes `hypothesis/indicator`."""
    if not isinstance(hypotheses, tuple):
        hypotheses = () if hypotheses is None else (hypotheses,)
    trial = _Trial(hypotheses, evidence)
    deviations, doubts = tuple(trial.deviations()), tuple(trial.doubts())
    # Without these nothing that was seen can be laid at the fault's door.
    disqualified = tuple(trial.disqualifying())
    if disqualified:
        outcome, reasons = Outcome.INCONCLUSIVE, (*disqualified, *deviations, *doubts)
    elif deviations:
        outcome, reasons = Outcome.DEVIATED, (*deviations, *doubts)
    elif doubts:
        outcome, reasons = Outcome.INCONCLUSIVE, doubts
    else:
        outcome, reasons = Outcome.HELD, tuple(trial.praise())
    return Verdict(outcome, tuple(dict.fromkeys(reasons)), trial.indicators)


def broke_level(hypotheses: "tuple[Hypothesis, ...]") -> float:
    """Return the level of one comparison: `FALSE_ALARMS` shared by all bounds in both windows that can deviate (Bonferroni)."""
    comparisons = sum(_comparisons(indicator) for hypothesis in hypotheses for indicator in hypothesis.indicators)
    return FALSE_ALARMS / (2 * max(1, comparisons))


def _comparisons(indicator: "AnyIndicator") -> int:
    if indicator.kind == "gauge":
        return 2  # blocks outside; it has no second test, but blocks that are missing count the same way
    bound = indicator.bound
    return 1 + (bound.at_least is not None) + (bound.drop_at_most is not None)


@dataclass(frozen=True)
class _Trial:
    """One run before the judge."""

    hypotheses: "tuple[Hypothesis, ...]"
    evidence: RunEvidence

    def disqualifying(self) -> Iterator[str]:
        """What takes all meaning from the run, deviations included."""
        evidence = self.evidence
        if evidence.clock_problem:
            yield f"times cannot be trusted: {evidence.clock_problem}"
        if not self.hypotheses:
            yield "no hypothesis was stated, so there is nothing to judge"
        if evidence.ending in (Ending.REFUSED, Ending.NO_BASELINE):
            yield self._ended()
        else:
            yield from self._baseline_problems()
        if not any(_proven(proof.injected, proof.proven_share, proof.least_proven) for proof in evidence.proofs):
            yield from self._unproven()

    def deviations(self) -> Iterator[str]:
        """Evidence that the environment did not hold."""
        for one in self.indicators:
            if one.outcome is Outcome.DEVIATED and one.window is WindowName.EFFECT:
                yield _sentence(one)
        for one in self.indicators:
            if one.outcome is Outcome.DEVIATED and one.window is WindowName.RECOVERY:
                yield _sentence(one)

    def doubts(self) -> Iterator[str]:
        """Whatever keeps a run without deviation from being held."""
        evidence = self.evidence
        if evidence.ending not in (Ending.COMPLETED, Ending.REFUSED, Ending.NO_BASELINE):
            yield self._ended()
        for proof in evidence.proofs:
            if proof.injected and not proof.reverted:
                yield f"the revert of {proof.fault} on {proof.target} failed{_detail(proof.detail)}"
        yield from self._unproven()
        begun = any(proof.injected for proof in evidence.proofs)
        for name in (WindowName.EFFECT, WindowName.RECOVERY):
            if begun and name not in self.windows:
                yield f"there was no {name} window"
            yield from self._failures(name)
            yield from self._unexercised(name)
        yield from self._undecided()
        yield from self._not_recovered()

    def praise(self) -> Iterator[str]:
        """Why a run was held."""
        yield from (_sentence(one) for one in self.indicators if one.window is WindowName.EFFECT)
        after = self.evidence.recovered_after or 0.0
        yield f"steady again {after:.1f} s after the revert was observed, within {self.evidence.recovery_limit:.0f} s"

    @cached_property
    def windows(self) -> dict[WindowName, Window]:
        """The windows that took place."""
        return {window.name: window for window in self.evidence.windows}

    @cached_property
    def level(self) -> float:
        """The level of one comparison."""
        return broke_level(self.hypotheses)

    @cached_property
    def reverted(self) -> bool:
        """Whether every injected fault is gone, so that what follows is the environment's own."""
        return all(proof.reverted for proof in self.evidence.proofs if proof.injected)

    @cached_property
    def recovered(self) -> bool:
        """Whether the environment was seen steady again, by a run that had itself cleaned up."""
        return self.evidence.recovered_after is not None and self.reverted

    @cached_property
    def ran_out(self) -> bool:
        """Whether the whole recovery limit went by and nothing of ours was in the way."""
        window = self.windows.get(WindowName.RECOVERY)
        if window is None or self.evidence.recovered_after is not None or not self.evidence.recovery_complete or not self.reverted:
            return False
        return not any(self._failures(window.name)) and not any(self._unexercised(window.name))

    @cached_property
    def indicators(self) -> tuple[IndicatorVerdict, ...]:
        """Every indicator in every window, in the order of hypotheses."""
        found = []
        for hypothesis in self.hypotheses:
            for indicator in hypothesis.indicators:
                seen = self._seen(hypothesis, indicator)
                baseline = baseline_of(
                    indicator, seen.get(WindowName.BASELINE), self.windows.get(WindowName.BASELINE), self.evidence.scrape_interval, self.level
                )
                found += [self._judged(hypothesis, indicator, window, seen.get(window.name), baseline) for window in self.evidence.windows]
        return tuple(found)

    def _judged(self, hypothesis: "Hypothesis", indicator: "AnyIndicator", window: Window, seen: Observed | None, baseline: Baseline) -> IndicatorVerdict:
        exercised = not self._load_problem(hypothesis, window)
        case = Case(self._name(hypothesis, indicator), window, seen, baseline, exercised, self.evidence.scrape_interval, self.level)
        match window.name:
            case WindowName.EFFECT:
                return _waived(judge_indicator(indicator, case)) if indicator.waived_during_effect else judge_indicator(indicator, case)
            case WindowName.RECOVERY:
                return self._judged_recovery(hypothesis, indicator, case)
            case WindowName.BASELINE:
                return judge_indicator(indicator, case)

    def _judged_recovery(self, hypothesis: "Hypothesis", indicator: "AnyIndicator", case: Case) -> IndicatorVerdict:
        """Steadiness was decided live; what came after it can only be contradicted by evidence."""
        if self.recovered:
            start = case.window.start + (self.evidence.recovered_after or 0.0)
            after = judge_indicator(indicator, replace(case, window=replace(case.window, start=start)))
            if after.outcome is Outcome.DEVIATED or case.problem:
                return after
            return replace(after, outcome=Outcome.HELD, reason=f"steady again when it was watched; after that: {after.reason}")
        whole = judge_indicator(indicator, case)
        if self.ran_out and case.seen is not None:
            limit = self.evidence.recovery_limit
            broken = never_steady(indicator, case.seen, case.window, case.baseline, case.scrape_interval, limit, hypothesis.recovery.steady_for)
            if broken:
                return replace(whole, outcome=Outcome.DEVIATED, reason=f"not steady again within {limit:.0f} s of the revert: {broken}; {whole.reason}")
        if whole.outcome is Outcome.DEVIATED:
            return replace(whole, outcome=Outcome.INCONCLUSIVE, reason=f"seen before any recovery: {whole.reason}")
        return whole

    def _baseline_problems(self) -> Iterator[str]:
        window = self.windows.get(WindowName.BASELINE)
        if window is None:
            yield "no steady baseline: there was no baseline window"
            return
        yield from self._unexercised(window.name)
        yield from self._failures(window.name)
        for one in self.indicators:
            if one.window is WindowName.BASELINE and (one.outcome is Outcome.DEVIATED or one.observed is None):
                yield f"no steady baseline: {_sentence(one)}"

    def _unproven(self) -> Iterator[str]:
        if not self.evidence.proofs:
            # Without a baseline nothing is injected: that has been said, and this would follow from it.
            stopped = self.evidence.ending in (Ending.REFUSED, Ending.NO_BASELINE)
            yield from () if stopped else ("fault not proven: no fault was in force",)
        for proof in self.evidence.proofs:
            if not proof.injected:
                yield f"fault not proven: {proof.fault} on {proof.target} was not injected{_detail(proof.detail)}"
            elif not _proven(proof.injected, proof.proven_share, proof.least_proven):
                shares = f"{proof.proven_share:.0%} of its hold, and {proof.least_proven:.0%} is the least"
                yield f"fault not proven: {proof.fault} on {proof.target} was seen real in {shares}{_detail(proof.detail)}"

    def _failures(self, name: WindowName) -> Iterator[str]:
        if name not in self.windows:
            return
        every = [one for _, seen in self.evidence.observed for one in seen] + list(self.evidence.load)
        failures = [one.observer_failure for one in every if one.window is name and one.observer_failure]
        # One cause is told once, with the first question that it left without an answer.
        causes = {failure.partition(" (asked: ")[0]: failure for failure in reversed(failures)}
        yield from (f"no data: the observer failed in the {name} window: {failure}" for failure in reversed(causes.values()))

    def _unexercised(self, name: WindowName) -> Iterator[str]:
        window = self.windows.get(name)
        for hypothesis in self.hypotheses if window is not None else ():
            problem = self._load_problem(hypothesis, window) if window is not None else ""
            if problem and not self._load_failure(hypothesis, name):
                yield f"not exercised: {problem}"

    def _load_failure(self, hypothesis: "Hypothesis", name: WindowName) -> str:
        """Why the observer could not see the load; that is a reason of its own."""
        seen = self._load_seen(hypothesis, name)
        return "" if seen is None else seen.observer_failure

    def _load_seen(self, hypothesis: "Hypothesis", name: WindowName) -> Observed | None:
        return next((one for one in self.evidence.load if one.window is name and one.hypothesis in ("", hypothesis.name)), None)

    def _load_problem(self, hypothesis: "Hypothesis", window: Window) -> str:
        """Say what was offered when it is less than a hypothesis needs; empty when it is enough."""
        if hypothesis.requires is None:
            return ""
        seen = self._load_seen(hypothesis, window.name)
        least = f"{hypothesis.name} needs at least {number(hypothesis.requires.at_least)} a second"
        if seen is None or not any(one.samples for one in seen.valid):
            return f"no load was seen in the {window.name} window, and {least}"
        # Where the observer failed, silence is its own and does not count against the load.
        gap = math.inf if seen.observer_failure else LONGEST_GAP * self.evidence.scrape_interval
        offered = rate(seen.valid, window.start, window.end, gap)
        if offered is None:
            # A recovery may be shorter than two scrapes: whoever saw it steady has seen the load, too.
            shortly = window.name is WindowName.RECOVERY and self.recovered
            return "" if shortly else f"the load was not read twice in the {window.name} window, and {least}"
        return "" if offered >= hypothesis.requires.at_least else f"{number(offered)} a second were offered in the {window.name} window, and {least}"

    def _undecided(self) -> Iterator[str]:
        effect = [one for one in self.indicators if one.window is WindowName.EFFECT]
        waived = {self._name(hypothesis, one) for hypothesis in self.hypotheses for one in hypothesis.indicators if one.waived_during_effect}
        for one in self.indicators:
            if one.outcome is Outcome.INCONCLUSIVE and (one.window is WindowName.RECOVERY or (one.window is WindowName.EFFECT and one.indicator not in waived)):
                yield _sentence(one)
        deciding = [one for one in effect if one.indicator not in waived]
        if deciding and all(one.observed is None and one.outcome is not Outcome.INCONCLUSIVE for one in deciding):
            yield "no data: no indicator that counts had any data in the effect window"

    def _not_recovered(self) -> Iterator[str]:
        evidence = self.evidence
        if WindowName.RECOVERY not in self.windows:
            return  # has been said
        if evidence.recovered_after is None:
            watched = "the whole limit" if evidence.recovery_complete else "a part of the limit only"
            yield f"no recovery was seen within {evidence.recovery_limit:.0f} s ({watched} was watched)"
        elif not 0 <= evidence.recovered_after <= evidence.recovery_limit:
            yield f"steady again only after {evidence.recovered_after:.1f} s, and the limit is {evidence.recovery_limit:.0f} s"

    def _ended(self) -> str:
        return f"{ENDINGS[self.evidence.ending]}{_detail(self.evidence.ending_detail)}"

    def _seen(self, hypothesis: "Hypothesis", indicator: "AnyIndicator") -> dict[WindowName, Observed]:
        every = (one for name, seen in self.evidence.observed if name == indicator.name for one in seen)
        return {one.window: one for one in every if one.hypothesis in ("", hypothesis.name)}

    @cached_property
    def _names(self) -> Counter[str]:
        return Counter(indicator.name for hypothesis in self.hypotheses for indicator in hypothesis.indicators)

    def _name(self, hypothesis: "Hypothesis", indicator: "AnyIndicator") -> str:
        return indicator.name if self._names[indicator.name] == 1 else f"{hypothesis.name}/{indicator.name}"


def _proven(injected: bool, share: float, least: float) -> bool:
    return injected and share > 0 and share >= least


def _detail(text: str) -> str:
    return f": {text}" if text else ""


def _waived(one: IndicatorVerdict) -> IndicatorVerdict:
    """A waived indicator is reported and never decides."""
    if one.outcome is not Outcome.DEVIATED:
        return replace(one, reason=f"waived during the effect; {one.reason}")
    return replace(one, outcome=Outcome.INCONCLUSIVE, reason=f"waived during the effect, otherwise broken; {one.reason}")


def _sentence(one: IndicatorVerdict) -> str:
    verb = {Outcome.HELD: "kept its bound", Outcome.DEVIATED: "broke its bound", Outcome.INCONCLUSIVE: "has not enough evidence"}[one.outcome]
    if one.outcome is Outcome.INCONCLUSIVE and one.observed is None:
        verb = "has no data"
    return f"{one.indicator} {verb} in the {one.window} window: {one.reason}"
