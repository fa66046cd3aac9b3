"""The questions of the chaoslib process: is the baseline steady, may it inject, has the environment recovered."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from frangible.judge import Ending, FaultProof
from frangible.supervisor.admitting import Admitted, guard_facts

if TYPE_CHECKING:
    from frangible.channel import Message
    from frangible.supervisor.child import Child
    from frangible.supervisor.ending import Cause
    from frangible.supervisor.faults import Faults
    from frangible.supervisor.measuring import Measuring
    from frangible.supervisor.telling import Emit

__all__ = ["Answering"]

NO_PROMETHEUS = "the inventory names no `prometheus` for this environment, so its hypotheses cannot be measured"


class Answering:
    """Answers at once where it can; otherwise when what was asked for has been seen."""

    def __init__(
        self, admitted: Admitted, child: "Child", measuring: "Measuring", faults: "Faults", cause: "Cause", emit: "Emit", post: "Callable[[Message], None]"
    ) -> None:
        """Take the parts of the run; `post` puts a message into the supervisor's mailbox."""
        self._admitted = admitted
        self._child = child
        self._measuring = measuring
        self._faults = faults
        self._cause = cause
        self._emit = emit
        self._post = post
        self._waiting: dict[str, list[int]] = {}

    def ask_baseline(self, number: int) -> None:
        """Measure the baseline, once, and answer when it is over."""
        plan, timeline = self._admitted.plan, self._measuring.timeline
        if timeline.baseline is not None or timeline.baseline_problem or not plan.hypotheses:
            self._child.answer(number, steady=not timeline.baseline_problem, reason=timeline.baseline_problem)
        elif self._measuring.metrics is None:
            self._cause.note(Ending.NO_BASELINE, NO_PROMETHEUS)
            self._child.answer(number, steady=False, reason=NO_PROMETHEUS)
        elif self._wait_for("baseline", number):
            self._emit(event="phase", phase="baseline", until=time.time() + plan.windows.baseline)
            self._measuring.begin_baseline()

    def baseline_ended(self, message: "Message") -> None:
        """Answer everybody who waited for the baseline."""
        if not message["steady"]:
            self._cause.note(Ending.NO_BASELINE, message["reason"])
        self._reply("baseline", steady=message["steady"], reason=message["reason"])

    def ask_hypothesis(self, number: int) -> None:
        """Before anything was injected: the baseline. Afterwards: has the effect shown a deviation so far?"""
        if self._measuring.timeline.first_proof is None:
            self.ask_baseline(number)
            return
        # In a thread of its own: an observer that hangs must not keep the supervisor from looking after the run.
        threading.Thread(target=self._judge_so_far, args=(number, self._faults.proofs()), name="provisional", daemon=True).start()

    def _judge_so_far(self, number: int, proofs: tuple[FaultProof, ...]) -> None:
        from frangible.supervisor.concluding import provisional

        steady = False
        try:
            steady = provisional(self._measuring, proofs)
        finally:
            self._post({"type": "provisional", "number": number, "steady": steady})

    def ask_inject(self, message: "Message") -> None:
        """Ask the guards once more, for these targets."""
        reasons = self._against_injecting(message)
        if not reasons:
            self._emit(event="phase", phase="effect", until=time.time() + self._admitted.plan.longest_hold)
            self._measuring.begin_effect()
        self._child.answer(message["number"], allowed=not reasons, reasons=list(reasons))

    def _against_injecting(self, message: "Message") -> tuple[str, ...]:
        plan, cause = self._admitted.plan, self._cause
        if plan.hypotheses and self._measuring.timeline.baseline is None:
            return ("no steady baseline was seen in this run; the experiment needs its control and a hypothesis that holds",)
        if cause.aborted_at is not None or cause.ending is not None:
            return (f"this run has ended already: {cause.detail or cause.ending}",)
        if problem := self._measuring.clock_problem():
            return (problem,)
        from frangible.guard import decide

        facts = guard_facts(plan, self._admitted.ledger, self._admitted.platform, tuple(message["targets"]), float(message["load_times"]))
        return decide(facts).reasons

    def ask_recovery(self, number: int) -> None:
        """Wait until the environment is steady again; answer at once where there is nothing to recover from."""
        timeline = self._measuring.timeline
        unexercised = not self._admitted.plan.hypotheses or timeline.first_proof is None
        if unexercised or self._cause.aborted_at is not None or timeline.recovery_ended is not None:
            self._child.answer(number, recovered=timeline.recovered_at is not None)
        elif self._wait_for("recovery", number):
            self._emit(event="phase", phase="recovery", until=time.time() + self._measuring.recovery_limit)
            self._measuring.begin_recovery()

    def recovery_ended(self, message: "Message") -> None:
        """Answer everybody who waited for the recovery."""
        self._reply("recovery", recovered=message["recovered"])

    def _wait_for(self, what: str, number: int) -> bool:
        """Note who waits for an answer; return whether it is the first to ask."""
        waiting = self._waiting.setdefault(what, [])
        waiting.append(number)
        return len(waiting) == 1

    def _reply(self, what: str, **content: object) -> None:
        for number in self._waiting.pop(what, []):
            self._child.answer(number, **content)
