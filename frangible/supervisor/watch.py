"""One run, watched: a mailbox that everything which happens is put into, and one loop that acts on it."""

import contextlib
import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from frangible.channel import Channel, Message
from frangible.clock import Clock, SystemClock
from frangible.errors import FrangibleError, Refused
from frangible.fault import FaultRegistry
from frangible.judge import Ending, Outcome
from frangible.notifying import Notifying
from frangible.process import ProcessIdentity
from frangible.reverting import REVERT_LIMIT
from frangible.supervisor.admitting import Admitted, admit
from frangible.supervisor.answering import Answering
from frangible.supervisor.child import LEAVE_PATIENCE, Child, Process
from frangible.supervisor.ending import Cause
from frangible.supervisor.faults import Faults
from frangible.supervisor.measuring import Measuring
from frangible.supervisor.stops import stop_asked, watch_stops
from frangible.supervisor.telling import Telling

if TYPE_CHECKING:
    from frangible.metrics import Metrics
    from frangible.plan import Plan

__all__ = ["EXIT_CODES", "Supervisor"]

EXIT_CODES = {Outcome.HELD: 0, Outcome.DEVIATED: 1, Outcome.INCONCLUSIVE: 3}
UNBEGUN_PATIENCE = 0.35
"""Seconds that an aborted chaoslib process has to begin the next revert before it is killed and reverted for."""
REVERT_PATIENCE = 2 * REVERT_LIMIT
"""Seconds after which a chaoslib process that hangs in a revert is killed and reverted for."""
HUNG_AFTER = 15.0
"""Seconds without a sign of life after which the chaoslib process counts as hung."""
SLACK = 60.0
"""Seconds added to the sum of all windows for the run's deadline."""
IMPORTED_AHEAD = ("frangible.judge", "frangible.observing", "scipy.special")


@dataclass
class Supervisor:
    """Watches one run. `run()` returns what the run's command should end with."""

    plan: "Plan"
    channel: Channel
    """To the chaoslib process."""
    child_process: "Process | None" = None
    """The chaoslib process where we started it; None under `chaos run`, which started us."""
    starter: Channel | None = None
    clock: Clock = field(default_factory=SystemClock)
    registry: FaultRegistry = field(default_factory=FaultRegistry)

    def __post_init__(self) -> None:
        """Prepare; nothing happens before `run`."""
        self.mailbox: SimpleQueue[Message] = SimpleQueue()
        self.telling = Telling(self.plan, self.starter)
        self.emit = self.telling.emit
        self.child = Child(self.channel, self.child_process, self.clock)
        self.cause = Cause()
        self.chaos_journal: Message | None = None
        self.notifying = Notifying(self.plan, self.plan.environment.notify, self._not_told)
        self.telling.also = self.notifying.hear
        self._done = threading.Event()
        self._code = 70

    def run(self) -> int:
        """Admit, watch, revert, judge, journal."""
        self.telling.open()
        self._catch_signals()
        self._listen(self.channel, "child")
        if self.starter is not None:
            self._listen(self.starter, "starter")
        self.emit(event="phase", phase="admission", until=None)
        try:
            self.admitted = admit(self.plan)
        except Refused as refusal:
            return self._refuse(refusal)
        self.faults = Faults(self.admitted, self.registry, self.emit, self._note, self.clock)
        try:
            self._watch(self.admitted)
        except Exception as error:  # noqa: BLE001 - whatever went wrong here, what was injected has to be reverted
            self._last_resort(error)
        finally:
            self._done.set()
            self.child.end()
            self._release_locks()
            self._end_telling()
        return self._code

    def _refuse(self, refusal: Refused) -> int:
        self.child.tell({"type": "refused", "reason": str(refusal)})
        self.emit(event="refused", reasons=list(refusal.reasons), message=str(refusal), exit_code=refusal.exit_code)
        self.child.end()
        return refusal.exit_code

    def _release_locks(self) -> None:
        """Free the keys; those that cannot be written are free anyway when this process has ended."""
        try:
            self.admitted.locks.release()
        except FrangibleError as error:
            self.emit(event="log", level="warning", message=f"not released before this process ends: {error}")

    def _not_told(self, reason: str) -> None:
        """Say so in the run's log; called from any thread."""
        self.mailbox.put({"type": "not-told", "reason": reason})

    def _end_telling(self) -> None:
        """Give what is still to be told elsewhere a little time, and say what was not told."""
        self.notifying.close()
        with contextlib.suppress(Empty):
            while True:
                message = self.mailbox.get_nowait()
                if message["type"] == "not-told":
                    self._handle(message)

    def _last_resort(self, error: Exception) -> None:
        """Revert after an error of our own, and close the run's row without a verdict."""
        from frangible.supervisor.concluding import keep

        self.child.kill()
        self.faults.revert_open()
        with contextlib.suppress(OSError):  # the disk may be what failed
            traceback.print_exception(error)  # into supervisor.log
        reason = f"runner died: the supervisor failed: {error!r}; see {self.plan.folder / 'supervisor.log'}"
        try:
            keep(self.admitted.journal, self.admitted.record.unjudged(reason, time.time()), self.plan)
        except FrangibleError as lost:
            reason = f"{reason}; {lost}"
        self.emit(event="failed", message=reason, exit_code=70)

    # --- what comes into the mailbox ----------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        def stop(number: int, _frame: object) -> None:
            self._post_abort(f"stopped by {signal.Signals(number).name}")

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)

    def _listen(self, channel: Channel, who: str) -> None:
        def read() -> None:
            for message in channel.messages():
                self.mailbox.put(message)
            self.mailbox.put({"type": "gone", "who": who})

        threading.Thread(target=read, name=f"from-{who}", daemon=True).start()

    def _post_abort(self, reason: str) -> None:
        self.mailbox.put({"type": "abort", "ending": Ending.ABORTED_BY_OPERATOR, "reason": reason})

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _watch(self, admitted: Admitted) -> None:
        self.measuring = Measuring(self.plan, _metrics(self.plan), self.mailbox.put, self.clock)
        self.answering = Answering(admitted, self.child, self.measuring, self.faults, self.cause, self.emit, self.mailbox.put)
        self.measuring.start()
        threading.Thread(target=watch_stops, args=(admitted, self.clock, self._done, self._post_abort), name="stops", daemon=True).start()
        self.deadline = self.clock.monotonic() + self._longest()
        self.child.beat()
        self.emit(event="started")
        while not self._done.is_set():
            try:
                message = self.mailbox.get(timeout=0.05 if self.cause.aborted_at is not None else 0.5)
            except Empty:
                message = {"type": "tick"}
            self._handle(message)
            self._look_after_child()

    def _longest(self) -> float:
        windows = self.plan.windows
        return windows.baseline_limit + self.plan.longest_hold + windows.observe_for + self.measuring.recovery_limit + self.measuring.steady_for + SLACK

    def _handle(self, message: Message) -> None:
        match message["type"]:
            case "hello":
                self.child.injector = ProcessIdentity.from_json(message["process"])
                self.child.tell({"type": "ready", "run_id": self.plan.run_id})
                if self.plan.hypotheses:
                    threading.Thread(target=_import_ahead, name="import-ahead", daemon=True).start()
            case "beat":
                self.child.beat()
            case "ask":
                self._asked(message)
            case "fault":
                self.faults.hear(message)
            case "failed":
                self.faults.failures.append(message["message"])
                self.cause.note(Ending.REFUSED if message["refused"] else Ending.ACTION_FAILED, message["message"])
            case "finished":
                self._finished(message)
            case "interrupted" | "abort":
                self.abort(Ending(message.get("ending", Ending.ABORTED_BY_OPERATOR)), message["reason"])
            case "condition":
                self.abort(Ending.ABORTED_BY_CONDITION, f"{message['indicator']} was {message['value']:g}: {message['condition']}")
            case "readings":
                self.emit(event="indicators", readings=message["readings"], load=message["load"])
            case "observer-failed" | "not-told":
                self.emit(event="log", level="warning", message=message["reason"])
            case "baseline":
                self.answering.baseline_ended(message)
            case "provisional":
                self.child.answer(message["number"], steady=message["steady"], reason="")
            case "broken":
                raise message["error"]
            case "recovery":
                self.answering.recovery_ended(message)
            case "gone":
                self._gone(message["who"])

    def _asked(self, message: Message) -> None:
        number = message["number"]
        match message["what"]:
            case "baseline":
                self.answering.ask_baseline(number)
            case "hypothesis":
                self.answering.ask_hypothesis(number)
            case "inject":
                self.answering.ask_inject(message)
            case "recovery":
                self.answering.ask_recovery(number)
            case "verdict":
                self._conclude()
                self.child.answer(number, **self._told_verdict)
                self._done.set()

    def _note(self, what: Literal["proven", "reverted"]) -> None:
        if what == "proven":
            self.measuring.proven()
        else:
            self.measuring.reverted()

    def _finished(self, message: Message) -> None:
        """Keep Chaos Toolkit's journal; an activity that failed there is never a pass here."""
        journal = self.chaos_journal = message["journal"]
        if message["status"] not in {"completed", "failed"}:
            self.cause.note(Ending.ABORTED_BY_OPERATOR, f"Chaos Toolkit was {message['status']}")
        for run in [*journal.get("run", ()), *journal.get("rollbacks", ())]:
            if run.get("status") == "failed":
                name = run.get("activity", {}).get("name", "?")
                why = (run.get("exception") or ["no reason given"])[-1].strip()
                self.cause.note(Ending.ACTION_FAILED, f"activity {name!r} failed: {why}")

    # --- stopping -----------------------------------------------------------------------------------------------------

    def abort(self, ending: Ending, reason: str) -> None:
        """Have the chaoslib process revert and end; it is killed and reverted for when it does not begin at once."""
        if self.cause.aborted_at is not None:
            return
        self.cause.note(ending, reason)
        self.cause.aborted_at = self.clock.monotonic()
        self.measuring.cut_recovery()
        self.emit(event="log", level="warning", message=f"stopping: {reason}")
        self.child.tell({"type": "abort", "reason": reason})

    def _gone(self, who: str) -> None:
        if who == "starter":
            self.telling.starter = None
            self.abort(Ending.ABORTED_BY_OPERATOR, "the command that started this run is gone")
            return
        self.child.gone = True
        if self._done.is_set():
            return
        self.cause.note(Ending.RUNNER_DIED, "the chaoslib process died")
        self.cause.aborted_at = self.cause.aborted_at or self.clock.monotonic()
        self.child.kill()
        self.faults.revert_open()
        if not self.faults.unrecorded():
            self.faults.remove_copies()
        self._conclude()
        self._done.set()

    def _look_after_child(self) -> None:
        """Deadline, signs of life, and an aborted process that does not end."""
        now = self.clock.monotonic()
        if self._done.is_set() or self.child.gone:
            return
        if self.cause.aborted_at is None:
            if now > self.deadline:
                self.abort(Ending.DEADLINE, f"the run took longer than the {self._longest():.0f} s that its windows add up to")
            elif self.child.injector is not None and self.child.silent_for() > HUNG_AFTER:
                self.cause.note(Ending.RUNNER_DIED, f"the chaoslib process gave no sign of life for {HUNG_AFTER:.0f} s")
                self.child.kill()
            return
        idle = self.faults.idle_since(self.cause.aborted_at)
        if idle > UNBEGUN_PATIENCE and idle > self._patience():
            self.child.kill()

    def _patience(self) -> float:
        """Seconds that an aborted chaoslib process has for its next step."""
        if self.faults.is_reverted_by(self.child.injector):
            return REVERT_PATIENCE
        return UNBEGUN_PATIENCE if self.faults.any_unclaimed() else LEAVE_PATIENCE

    # --- concluding ---------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        from frangible.supervisor.concluding import conclude, keep

        self.emit(event="phase", phase="judging", until=None)
        self.faults.revert_open()
        if unrecorded := self.faults.unrecorded():
            self.faults.failures.append(unrecorded)
            self.cause.note(Ending.ACTION_FAILED, unrecorded)
        self.measuring.cut_recovery()
        self._ask_why()
        ending = self.cause.ending or Ending.COMPLETED
        detail = "; ".join(dict.fromkeys([*([self.cause.detail] if self.cause.detail else []), *self.faults.failures]))
        record = conclude(self.measuring, self.admitted.record, self.faults.proofs(), ending, detail, self.chaos_journal)
        self.measuring.stop()
        journalled = keep(self.admitted.journal, record, self.plan)
        outcome = Outcome(record.outcome or Outcome.INCONCLUSIVE)
        self._code = EXIT_CODES[outcome]
        self._told_verdict = {"outcome": str(outcome), "reasons": list(record.reasons), "exit_code": self._code, "journalled": journalled}
        self.emit(event="verdict", **self._told_verdict)

    def _ask_why(self) -> None:
        """Take the operator's own words, which the ledger has, over those of the signal that came before them."""
        if self.cause.ending is Ending.ABORTED_BY_OPERATOR:
            with contextlib.suppress(FrangibleError):
                self.cause.detail = stop_asked(self.admitted) or self.cause.detail


def _metrics(plan: "Plan") -> "Metrics | None":
    if plan.environment.prometheus is None or not plan.hypotheses:
        return None
    from frangible.metrics import PrometheusMetrics

    return PrometheusMetrics(plan.environment.prometheus)


def _import_ahead() -> None:
    """Import what the judge needs while a window is waiting anyway."""
    import importlib

    for name in IMPORTED_AHEAD:
        importlib.import_module(name)
