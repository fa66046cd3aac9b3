"""After everything: the evidence, the verdict, and the record that the journal keeps."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from frangible.errors import FrangibleError, JournalError
from frangible.judge import Ending, FaultProof, Observed, Outcome, RunEvidence, Verdict, WindowName

if TYPE_CHECKING:
    from frangible.fault import JsonValue
    from frangible.journal import Journal, RunRecord
    from frangible.plan import Plan
    from frangible.supervisor.measuring import Measuring

__all__ = ["conclude", "evidence", "keep", "provisional"]


def evidence(measuring: "Measuring", proofs: tuple[FaultProof, ...], ending: Ending, detail: str, scrapes: float = 10.0) -> RunEvidence:
    """Collect all that the judge may look at; an observer that fails here leaves windows without data.

    Prometheus has the time of so many scrapes to hold the end of the last window.
    """
    timeline = measuring.timeline
    observed: tuple[tuple[str, tuple[Observed, ...]], ...] = ()
    load: tuple[Observed, ...] = ()
    problem = ""
    try:
        observed, load = measuring.observe_windows(scrapes)
    except FrangibleError as error:
        problem = str(error)
    if problem and ending is Ending.COMPLETED:
        detail = problem
    return RunEvidence(
        windows=timeline.windows(measuring.plan.windows.observe_for),
        observed=observed,
        load=load,
        proofs=proofs,
        ending=ending,
        ending_detail=detail,
        clock_problem=measuring.clock_problem(),
        recovered_after=timeline.recovered_after,
        recovery_limit=measuring.recovery_limit,
        recovery_complete=timeline.recovery_complete,
        scrape_interval=timeline.scrape_interval,
    )


def provisional(measuring: "Measuring", proofs: tuple[FaultProof, ...]) -> bool:
    """Say whether the effect so far shows no deviation: what Chaos Toolkit's hypothesis after the method asks."""
    from frangible.judge import judge

    verdict = judge(measuring.plan.hypotheses, evidence(measuring, proofs, Ending.COMPLETED, "", scrapes=3.0))
    return all(one.outcome is not Outcome.DEVIATED for one in verdict.indicators if one.window is WindowName.EFFECT)


def conclude(
    measuring: "Measuring", record: "RunRecord", proofs: tuple[FaultProof, ...], ending: Ending, detail: str, chaos_journal: "JsonValue"
) -> "RunRecord":
    """Judge what was gathered and return the finished record."""
    plan = measuring.plan
    found = evidence(measuring, proofs, ending, detail)
    verdict = _judged(plan, found) if plan.hypotheses else _without_hypothesis(ending, detail)
    return replace(
        record,
        ended_at=time.time(),
        state="finished",
        outcome=str(verdict.outcome),
        reasons=verdict.reasons,
        ending=str(ending),
        windows=found.windows,
        indicators=verdict.indicators,
        proofs=proofs,
        facts={**record.facts, **_clock_facts(measuring), **_detection_facts(measuring, found)},
        recovered_after=found.recovered_after,
        chaos_journal=chaos_journal,
        series=_block_series(plan, found),
    )


def _judged(plan: "Plan", found: RunEvidence) -> Verdict:
    from frangible.judge import judge

    return judge(plan.hypotheses, found)


def _clock_facts(measuring: "Measuring") -> dict[str, str]:
    timeline = measuring.timeline
    facts = {"prometheus.scrape-interval-seconds": f"{timeline.scrape_interval:g}"}
    if timeline.skew is not None:
        facts["clock.skew-seconds"] = f"{timeline.skew:+.3f}"
    return facts


def _detection_facts(measuring: "Measuring", found: RunEvidence) -> dict[str, str]:
    """What our own alerts did from the first proof of the fault to the end of what was watched."""
    watched = [window for window in found.windows if window.name is not WindowName.BASELINE]
    if measuring.metrics is None or not watched:
        return {}
    from frangible.detections import detections

    start, end = min(window.start for window in watched), max(window.end for window in watched)
    return detections(measuring.metrics, measuring.plan.hypotheses, measuring.labels, start, end, found.scrape_interval)


def _block_series(plan: "Plan", found: RunEvidence) -> "JsonValue":
    """Per indicator: [seconds since the epoch, value] a block, over all windows."""
    if not plan.hypotheses:
        return {}
    from frangible.judge import block_series

    windows = {window.name: window for window in found.windows}
    observed = dict(found.observed)
    return {
        indicator.name: [[at, value] for one in observed.get(indicator.name, ()) for at, value in block_series(indicator, one, windows[one.window])]
        for hypothesis in plan.hypotheses
        for indicator in hypothesis.indicators
    }


def _without_hypothesis(ending: Ending, detail: str) -> Verdict:
    """An experiment that states no hypothesis shows nothing, however well it went."""
    reasons = (f"the experiment names no hypothesis, so there is nothing to judge ({ending})", *([detail] if detail else []))
    return Verdict(Outcome.INCONCLUSIVE, reasons, ())


def keep(journal: "Journal", record: "RunRecord", plan: "Plan") -> bool:
    """Write the record to the journal, or to the run's folder when that fails; return whether the journal has it.

    Raises `JournalError` when neither can be written: then nobody knows the verdict.
    """
    from frangible.journal import record_to_json

    retrying = Retrying(retry=retry_if_exception_type(JournalError), stop=stop_after_attempt(3), wait=wait_fixed(0.5), reraise=True)
    try:
        retrying(journal.finish, record)
    except JournalError as error:
        try:
            _spool(plan, record_to_json(record))
        except OSError as full:
            told = f"{error}; nor can {plan.record_path} ({full.strerror}), so the verdict is kept nowhere: make room, then run `frangible recover`"
            raise JournalError(told) from full
        return False
    return True


def _spool(plan: "Plan", text: str) -> None:
    """Write all of the record or nothing: `recover` reads it."""
    beside = plan.record_path.with_suffix(".new")
    try:
        beside.write_text(text)
        beside.replace(plan.record_path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
