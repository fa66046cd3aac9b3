"""One run, watched: a mailbox that everything which happens is put into, and one loop that acts on it."""

import contextlib
import json
import signal
import subprocess
import threading
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TextIO

from frangible.channel import Channel, ChannelClosed, Message
from frangible.clock import Clock, SystemClock
from frangible.errors import FrangibleError, LedgerError, LockHeld, Refused
from frangible.fault import FaultRegistry
from frangible.judge import Ending, FaultProof, Outcome
from frangible.process import ProcessIdentity
from frangible.reverting import Reverter
from frangible.supervisor.admitting import LOCK_TTL, Admitted, admit, guard_facts
from frangible.supervisor.measuring import Measuring

if TYPE_CHECKING:
    from frangible.ledger import Lease
    from frangible.metrics import Metrics
    from frangible.plan import Plan

__all__ = ["EXIT_CODES", "Supervisor"]

EXIT_CODES = {Outcome.HELD: 0, Outcome.DEVIATED: 1, Outcome.INCONCLUSIVE: 3}
STOP_POLL = 0.2
"""Seconds between two looks for a halt or an abort."""
UNCLAIMED_PATIENCE = 0.3
"""Seconds that an aborted chaoslib process has to begin reverting before it is killed and reverted for."""
LEAVE_PATIENCE = 5.0
"""Seconds that an aborted chaoslib process without faults in force has to end by itself."""
HUNG_AFTER = 15.0
"""Seconds without a sign of life after which the chaoslib process counts as hung."""
SLACK = 60.0
"""Seconds added to the sum of all windows for the run's deadline."""
NO_PROMETHEUS = "the inventory names no `prometheus` for this environment, so its hypotheses cannot be measured"
IMPORTED_AHEAD = ("frangible.judge", "frangible.observing", "scipy.special")


@dataclass
class Seen:
    """What was heard of one lease."""

    lease: "Lease"
    looks: int = 0
    proofs: int = 0
    injected: bool = False
    reverted: bool = False
    state: str = ""
    detail: str = ""
    doubt: str = ""
    """What was seen when the fault was not real."""


@dataclass
class Supervisor:
    """Watches one run. `run()` returns what the run's command should end with."""

    plan: "Plan"
    child: Channel
    child_process: "subprocess.Popen[bytes] | None" = None
    """The chaoslib process where we started it; None under `chaos run`, which started us."""
    starter: Channel | None = None
    clock: Clock = field(default_factory=SystemClock)
    registry: FaultRegistry = field(default_factory=FaultRegistry)

    def __post_init__(self) -> None:
        """Prepare; nothing happens before `run`."""
        self.mailbox: SimpleQueue[Message] = SimpleQueue()
        self.me = ProcessIdentity.current()
        self.injector: ProcessIdentity | None = None
        self.leases: dict[str, Seen] = {}
        self.ending: Ending | None = None
        self.ending_detail = ""
        self.aborted_at: float | None = None
        self.failures: list[str] = []
        self.chaos_journal: Message | None = None
        self._child_gone = False
        self._done = threading.Event()
        self._last_beat = self.clock.monotonic()
        self._waiting: dict[str, list[int]] = {}
        self._events: TextIO | None = None
        self._code = 70

    def run(self) -> int:
        """Admit, watch, revert, judge, journal."""
        self._events = self.plan.events_path.open("a", encoding="utf-8", buffering=1)
        self._catch_signals()
        self._listen(self.child, "child")
        if self.starter is not None:
            self._listen(self.starter, "starter")
        self.emit(event="phase", phase="admission", until=None)
        try:
            self.admitted = admit(self.plan)
        except Refused as refusal:
            return self._refuse(refusal)
        try:
            self._watch(self.admitted)
        except Exception as error:  # noqa: BLE001 - whatever went wrong here, what was injected has to be reverted
            self._last_resort(error)
        finally:
            self._done.set()
            self._end_child()
            self._release_locks()
        return self._code

    def _release_locks(self) -> None:
        """Free the keys; those that cannot be written are free anyway when this process has ended."""
        try:
            self.admitted.locks.release()
        except FrangibleError as error:
            self.emit(event="log", level="warning", message=f"not released before this process ends: {error}")

    def _last_resort(self, error: Exception) -> None:
        """Revert after an error of our own, and close the run's row without a verdict."""
        from frangible.supervisor.concluding import keep

        self._kill_child()
        self._revert_open()
        with contextlib.suppress(OSError):  # the disk may be what failed
            traceback.print_exception(error)  # into supervisor.log
        reason = f"runner died: the supervisor failed: {error!r}; see {self.plan.folder / 'supervisor.log'}"
        try:
            keep(self.admitted.journal, self.admitted.record.unjudged(reason, time.time()), self.plan)
        except FrangibleError as lost:
            reason = f"{reason}; {lost}"
        self.emit(event="failed", message=reason, exit_code=70)

    # --- what is told -------------------------------------------------------------------------------------------------

    def emit(self, **event: object) -> None:
        """Write one event to the run's file and to the starter."""
        message: Message = {"at": time.time(), "run": self.plan.run_id, **event}
        if self._events is not None:
            with contextlib.suppress(OSError):  # a full disk must not stop a revert
                self._events.write(json.dumps(message) + "\n")
        if self.starter is not None:
            with contextlib.suppress(ChannelClosed):
                self.starter.send(message)

    def _answer(self, number: int, **content: object) -> None:
        with contextlib.suppress(ChannelClosed):
            self.child.send({"type": "answer", "number": number, **content})

    def _refuse(self, refusal: Refused) -> int:
        with contextlib.suppress(ChannelClosed):
            self.child.send({"type": "refused", "reason": str(refusal)})
        self.emit(event="refused", reasons=list(refusal.reasons), message=str(refusal), exit_code=refusal.exit_code)
        self._end_child()
        return refusal.exit_code

    # --- what is heard ------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        def stop(number: int, _frame: object) -> None:
            self.mailbox.put({"type": "abort", "ending": Ending.ABORTED_BY_OPERATOR, "reason": f"stopped by {signal.Signals(number).name}"})

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)

    def _listen(self, channel: Channel, who: str) -> None:
        def read() -> None:
            for message in channel.messages():
                self.mailbox.put(message)
            self.mailbox.put({"type": "gone", "who": who})

        threading.Thread(target=read, name=f"from-{who}", daemon=True).start()

    def _watch_stops(self, admitted: Admitted) -> None:
        """Look for a halt or an abort, and keep the locks; a question without an answer stops the run."""
        failing_since: float | None = None
        renewed = self.clock.monotonic()
        while not self.clock.wait(self._done, STOP_POLL):
            try:
                stop = admitted.ledger.stop_for(self.plan.run_id)
                if stop is not None:
                    what = "the halt is on" if stop.scope == "*" else "aborted"
                    self._post_abort(Ending.ABORTED_BY_OPERATOR, f"{what}: {stop.reason or 'no reason given'} ({stop.by})")
                    return
                if self.clock.monotonic() - renewed > LOCK_TTL / 4:
                    admitted.locks.renew(LOCK_TTL)
                    renewed = self.clock.monotonic()
                failing_since = None
            except (FrangibleError, OSError) as error:
                failing_since = failing_since or self.clock.monotonic()
                if isinstance(error, LockHeld) or self.clock.monotonic() - failing_since > 3.0:
                    self._post_abort(Ending.ABORTED_BY_OPERATOR, f"halt and locks cannot be read any more: {error}")
                    return

    def _post_abort(self, ending: Ending, reason: str) -> None:
        self.mailbox.put({"type": "abort", "ending": ending, "reason": reason})

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _watch(self, admitted: Admitted) -> None:
        self.measuring = Measuring(self.plan, _metrics(self.plan), self.mailbox.put, self.clock)
        self.measuring.start()
        threading.Thread(target=self._watch_stops, args=(admitted,), name="stops", daemon=True).start()
        self.deadline = self.clock.monotonic() + self._longest()
        self._last_beat = self.clock.monotonic()
        self.emit(event="started")
        while not self._done.is_set():
            try:
                message = self.mailbox.get(timeout=0.05 if self.aborted_at is not None else 0.5)
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
                self.injector = ProcessIdentity.from_json(message["process"])
                with contextlib.suppress(ChannelClosed):
                    self.child.send({"type": "ready", "run_id": self.plan.run_id})
                threading.Thread(target=_import_ahead, name="import-ahead", daemon=True).start()
            case "beat":
                self._last_beat = self.clock.monotonic()
            case "ask":
                self._asked(message)
            case "fault":
                self._fault(message)
            case "failed":
                self.failures.append(message["message"])
                self._note_ending(Ending.REFUSED if message["refused"] else Ending.ACTION_FAILED, message["message"])
            case "finished":
                self._finished(message)
            case "interrupted" | "abort":
                self.abort(Ending(message.get("ending", Ending.ABORTED_BY_OPERATOR)), message["reason"])
            case "condition":
                self.abort(Ending.ABORTED_BY_CONDITION, f"{message['indicator']} was {message['value']:g}: {message['condition']}")
            case "readings":
                self.emit(event="indicators", readings=message["readings"], load=message["load"])
            case "observer-failed":
                self.emit(event="log", level="warning", message=message["reason"])
            case "baseline":
                self._baseline_ended(message)
            case "provisional":
                self._answer(message["number"], steady=message["steady"], reason="")
            case "broken":
                raise message["error"]
            case "recovery":
                self._reply("recovery", recovered=message["recovered"])
            case "gone":
                self._gone(message["who"])

    def _asked(self, message: Message) -> None:
        number = message["number"]
        match message["what"]:
            case "baseline":
                self._ask_baseline(number)
            case "hypothesis":
                self._ask_hypothesis(number)
            case "inject":
                self._ask_inject(message)
            case "recovery":
                self._ask_recovery(number)
            case "verdict":
                self._conclude()
                self._answer(number, **self._told_verdict)
                self._done.set()

    def _wait_for(self, what: str, number: int) -> bool:
        """Note who waits for an answer; return whether it is the first to ask."""
        waiting = self._waiting.setdefault(what, [])
        waiting.append(number)
        return len(waiting) == 1

    def _reply(self, what: str, **content: object) -> None:
        for number in self._waiting.pop(what, []):
            self._answer(number, **content)

    def _ask_baseline(self, number: int) -> None:
        timeline = self.measuring.timeline
        if timeline.baseline is not None or timeline.baseline_problem or not self.plan.hypotheses:
            self._answer(number, steady=not timeline.baseline_problem, reason=timeline.baseline_problem)
        elif self.measuring.metrics is None:
            self._note_ending(Ending.NO_BASELINE, NO_PROMETHEUS)
            self._answer(number, steady=False, reason=NO_PROMETHEUS)
        elif self._wait_for("baseline", number):
            self.emit(event="phase", phase="baseline", until=time.time() + self.plan.windows.baseline)
            self.measuring.begin_baseline()

    def _baseline_ended(self, message: Message) -> None:
        if not message["steady"]:
            self._note_ending(Ending.NO_BASELINE, message["reason"])
        self._reply("baseline", steady=message["steady"], reason=message["reason"])

    def _ask_hypothesis(self, number: int) -> None:
        """Before anything was injected: the baseline. Afterwards: has the effect shown a deviation so far?"""
        if self.measuring.timeline.first_proof is None:
            self._ask_baseline(number)
            return
        # In a thread of its own: an observer that hangs must not keep the supervisor from looking after the run.
        threading.Thread(target=self._judge_so_far, args=(number, self._proofs()), name="provisional", daemon=True).start()

    def _judge_so_far(self, number: int, proofs: tuple[FaultProof, ...]) -> None:
        from frangible.supervisor.concluding import provisional

        steady = False
        try:
            steady = provisional(self.measuring, proofs)
        finally:
            self.mailbox.put({"type": "provisional", "number": number, "steady": steady})

    def _ask_inject(self, message: Message) -> None:
        reasons: tuple[str, ...] = ()
        if self.plan.hypotheses and self.measuring.timeline.baseline is None:
            reasons = ("no steady baseline was seen in this run; the experiment needs its control and a hypothesis that holds",)
        elif self.aborted_at is not None or self.ending is not None:
            reasons = (f"this run has ended already: {self.ending_detail or self.ending}",)
        elif problem := self.measuring.clock_problem():
            reasons = (problem,)
        else:
            from frangible.guard import decide

            decision = decide(guard_facts(self.plan, self.admitted.ledger, self.admitted.platform, tuple(message["targets"])))
            reasons = decision.reasons
        if not reasons:
            self.emit(event="phase", phase="effect", until=time.time() + self.plan.longest_hold)
            self.measuring.begin_effect()
        self._answer(message["number"], allowed=not reasons, reasons=list(reasons))

    def _ask_recovery(self, number: int) -> None:
        timeline = self.measuring.timeline
        if not self.plan.hypotheses or timeline.first_proof is None or self.aborted_at is not None or timeline.recovery_ended is not None:
            self._answer(number, recovered=timeline.recovered_at is not None)
        elif self._wait_for("recovery", number):
            self.emit(event="phase", phase="recovery", until=time.time() + self.measuring.recovery_limit)
            self.measuring.begin_recovery()

    def _fault(self, message: Message) -> None:
        from frangible.ledger import Lease

        if "copy" in message:
            self.leases[message["lease"]] = Seen(Lease.from_json(message["copy"]))
        seen = self.leases[message["lease"]]
        news = (message["state"], message["detail"]) != (seen.state, seen.detail)
        seen.state, seen.detail = message["state"], message["detail"]
        match message["state"]:
            case "injected":
                seen.injected = True
            case "proven" | "not-proven":
                seen.looks += 1
                seen.proofs += message["state"] == "proven"
                if message["state"] == "proven":
                    self.measuring.proven()
                else:
                    seen.doubt = message["detail"]
            case "reverted":
                self._reverted(seen)
            case "revert-failed":
                self.failures.append(message["detail"])
        if news:  # a fault that is proven twice a second is told once
            told = ("lease", "fault", "target", "state", "detail")
            self.emit(event="fault", **{key: message[key] for key in told})

    def _reverted(self, seen: Seen) -> None:
        if not seen.reverted:
            seen.reverted = True
            self.measuring.reverted()

    def _finished(self, message: Message) -> None:
        """Keep Chaos Toolkit's journal; an activity that failed there is never a pass here."""
        journal = self.chaos_journal = message["journal"]
        if message["status"] not in {"completed", "failed"}:
            self._note_ending(Ending.ABORTED_BY_OPERATOR, f"Chaos Toolkit was {message['status']}")
        for run in [*journal.get("run", ()), *journal.get("rollbacks", ())]:
            if run.get("status") == "failed":
                name = run.get("activity", {}).get("name", "?")
                why = (run.get("exception") or ["no reason given"])[-1].strip()
                self._note_ending(Ending.ACTION_FAILED, f"activity {name!r} failed: {why}")

    def _note_ending(self, ending: Ending, detail: str) -> None:
        """Keep the first cause: what follows from it explains nothing."""
        if self.ending is None:
            self.ending, self.ending_detail = ending, detail

    # --- stopping -----------------------------------------------------------------------------------------------------

    def abort(self, ending: Ending, reason: str) -> None:
        """Have the chaoslib process revert and end; it is killed and reverted for when it does not begin at once."""
        if self.aborted_at is not None:
            return
        self._note_ending(ending, reason)
        self.aborted_at = self.clock.monotonic()
        self.measuring.cut_recovery()
        self.emit(event="log", level="warning", message=f"stopping: {reason}")
        with contextlib.suppress(ChannelClosed):
            self.child.send({"type": "abort", "reason": reason})

    def _gone(self, who: str) -> None:
        if who == "starter":
            self.starter = None
            self.abort(Ending.ABORTED_BY_OPERATOR, "the command that started this run is gone")
            return
        self._child_gone = True
        if self._done.is_set():
            return
        self._note_ending(Ending.RUNNER_DIED, "the chaoslib process died")
        self.aborted_at = self.aborted_at or self.clock.monotonic()
        self._kill_child()
        self._revert_open()
        self._conclude()
        self._done.set()

    def _look_after_child(self) -> None:
        """Deadline, signs of life, and an aborted process that does not end."""
        now = self.clock.monotonic()
        if self._done.is_set() or self._child_gone:
            return
        if self.aborted_at is None:
            if now > self.deadline:
                self.abort(Ending.DEADLINE, f"the run took longer than the {self._longest():.0f} s that its windows add up to")
            elif self.injector is not None and now - self._last_beat > HUNG_AFTER:
                self._note_ending(Ending.RUNNER_DIED, f"the chaoslib process gave no sign of life for {HUNG_AFTER:.0f} s")
                self._kill_child()
            return
        waited = now - self.aborted_at
        unclaimed = [lease for lease in self._open_leases() if lease.claimed_by is None and not self._is_reverted(lease)]
        if (unclaimed and waited > UNCLAIMED_PATIENCE) or (waited > LEAVE_PATIENCE and not self._child_reverts()):
            self._kill_child()

    def _child_reverts(self) -> bool:
        return any(lease.claimed_by == self.injector for lease in self._open_leases())

    def _kill_child(self) -> None:
        """End the chaoslib process for good; its end of the channel closes, and `gone` follows."""
        if self.injector is not None:
            self.injector.kill()
        elif self.child_process is not None:
            self.child_process.kill()

    def _end_child(self) -> None:
        """Let a child of ours leave, then make sure; `chaos run` is not ours to end."""
        if self.child_process is None:
            return
        try:
            self.child_process.wait(timeout=LEAVE_PATIENCE)
        except subprocess.TimeoutExpired:
            self.child_process.kill()
            self.child_process.wait()

    # --- reverting ----------------------------------------------------------------------------------------------------

    def _open_leases(self) -> "tuple[Lease, ...]":
        """Leases of this run that are not reverted: from the ledger, or from memory when it does not answer."""
        try:
            return self.admitted.ledger.open_leases(run_id=self.plan.run_id)
        except LedgerError:
            return tuple(seen.lease for seen in self.leases.values() if not seen.reverted)

    def _is_reverted(self, lease: "Lease") -> bool:
        """Whether its revert was observed, whatever the ledger has been told."""
        return lease.id in self.leases and self.leases[lease.id].reverted

    def _revert_open(self) -> None:
        """Revert what is in force; record what was reverted while the ledger could not be told."""
        for lease in self._open_leases():
            seen = self.leases.setdefault(lease.id, Seen(lease))
            report = partial(self._report_revert, seen)
            reverter = Reverter(self.admitted.platform, self.admitted.ledger, self.me, settle=self.plan.windows.settle, report=report)
            try:
                if seen.reverted:
                    reverter.record(lease, seen.detail)
                else:
                    reverter.revert(lease, self.registry.build(lease.fault, lease.parameters))
            except FrangibleError as error:
                self.failures.append(str(error))
                self.emit(event="log", level="error", message=str(error))

    def _unrecorded(self) -> str:
        """Say which reverts the ledger does not know of; empty when it knows all. A lease that stays open keeps every other run out."""
        reverted = [seen.lease for seen in self.leases.values() if seen.reverted]
        why = "it cannot be written"
        try:
            still_open = {lease.id for lease in self.admitted.ledger.open_leases(run_id=self.plan.run_id)}
        except LedgerError as error:
            still_open, why = {lease.id for lease in reverted}, str(error)
        left = [str(lease) for lease in reverted if lease.id in still_open]
        return f"{', '.join(left)}: reverted, but the ledger could not be told ({why}); run `frangible recover` when it can be" if left else ""

    def _report_revert(self, seen: Seen, lease: str, state: str, detail: str) -> None:
        if state == "reverted":
            self._reverted(seen)
        self.emit(event="fault", lease=lease, fault=seen.lease.fault, target=str(seen.lease.target), state=state, detail=detail)

    # --- concluding ---------------------------------------------------------------------------------------------------

    def _proofs(self) -> tuple[FaultProof, ...]:
        proofs = []
        for seen in self.leases.values():
            lease = seen.lease
            least = self.registry.load(lease.fault).least_proven
            share = seen.proofs / seen.looks if seen.looks else 0.0
            detail = seen.doubt if seen.doubt and seen.reverted and share < least else seen.detail
            proofs.append(FaultProof(lease.id, lease.fault, str(lease.target), seen.injected, share, least, seen.reverted, detail))
        return tuple(proofs)

    def _conclude(self) -> None:
        from frangible.supervisor.concluding import conclude, keep

        self.emit(event="phase", phase="judging", until=None)
        self._revert_open()
        if unrecorded := self._unrecorded():
            self.failures.append(unrecorded)
            self._note_ending(Ending.ACTION_FAILED, unrecorded)
        self.measuring.cut_recovery()
        ending = self.ending or Ending.COMPLETED
        detail = "; ".join(dict.fromkeys([*([self.ending_detail] if self.ending_detail else []), *self.failures]))
        record = conclude(self.measuring, self.admitted.record, self._proofs(), ending, detail, self.chaos_journal)
        self.measuring.stop()
        journalled = keep(self.admitted.journal, record, self.plan)
        outcome = Outcome(record.outcome or Outcome.INCONCLUSIVE)
        self._code = EXIT_CODES[outcome]
        self._told_verdict = {"outcome": str(outcome), "reasons": list(record.reasons), "exit_code": self._code, "journalled": journalled}
        self.emit(event="verdict", **self._told_verdict)


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
