"""Many runs at once: side by side where their resource keys allow it, one after the other where they do not.

One thread starts every run and each run is followed by a thread of its own. The threads are daemons, which those of a `ThreadPoolExecutor`
are not: whoever leaves in a hurry must not wait for runs that their supervisors end anyway.
"""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from frangible import launch
from frangible.errors import ExperimentError, FrangibleError, InputError, Problem
from frangible.request import Request

if TYPE_CHECKING:
    from frangible.home import Home
    from frangible.hypothesis import Hypothesis
    from frangible.inventory import Environment, Inventory
    from frangible.launch import RunHandle
    from frangible.plan import Plan
    from frangible.progress import Event

__all__ = ["Ended", "Fleet", "StopRule", "Wanted", "prepare_all", "startable", "worst"]

WORST_FIRST = (70, 4, 1, 3, 0)
"""Exit codes of runs: an internal error, a refusal, deviated, inconclusive, held."""
INTERNAL, INCONCLUSIVE = 70, 3

type State = Literal["verdict", "refused", "failed", "died", "not started"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One run that somebody wants."""

    experiment: Path
    environment: "Environment"


@dataclass(frozen=True, slots=True)
class StopRule:
    """When nothing more is started; runs in progress go on to their end. Zero means never."""

    deviated: int = 0
    """After this many runs that deviated."""
    refused: int = 0
    """After this many runs that a guard refused."""

    def broken_by(self, ended: "Iterable[Ended]") -> str:
        """Say which limit is reached, or nothing."""
        codes = [one.exit_code for one in ended]
        for limit, code, word in ((self.deviated, 1, "deviated"), (self.refused, 4, "refused")):
            if limit and codes.count(code) >= limit:
                return f"{codes.count(code)} run{'s' if codes.count(code) > 1 else ''} {word}"
        return ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one run ended."""

    plan: "Plan"
    state: State
    outcome: str
    """The verdict; for a run without one, its state."""
    reasons: tuple[str, ...]
    exit_code: int
    event: "Event | None" = None
    """The run's last event."""
    began: float | None = None
    """Seconds since the epoch; None for a run that was not started."""
    ended: float | None = None


def worst(codes: Iterable[int]) -> int:
    """Return the exit code that tells most: 70, 4, 1, 3, 0 in this order; a code that is not known here counts as 70."""
    rank = {code: number for number, code in enumerate(WORST_FIRST)}
    return min(codes, key=lambda code: rank.get(code, -1), default=0)


def startable(waiting: Sequence[Collection[str]], in_use: Iterable[str], room: int) -> tuple[int, ...]:
    """Return which of the waiting runs, given by their resource keys, may start now; `in_use` are the keys of those in progress.

    No two runs with a common key go on at once, and of two with a common key the earlier one always goes first: what is passed over keeps its
    keys from those behind it, so that nobody waits for ever.
    """
    taken = set(in_use)
    chosen: list[int] = []
    for number, keys in enumerate(waiting):
        if len(chosen) >= room:
            break
        if taken.isdisjoint(keys):
            chosen.append(number)
        taken.update(keys)
    return tuple(chosen)


def prepare_all(
    wanted: Sequence[Wanted],
    inventory: "Inventory",
    home: "Home",
    *,
    request: Request = Request(),
    hypotheses: "Mapping[Path, Mapping[str, Hypothesis]] | None" = None,
) -> "tuple[Plan, ...]":
    """Plan every run; raise `ExperimentError` with the problems of all of them before anything was started, and leave no plan behind then."""
    from frangible.validation import check

    known = hypotheses or {path: launch.hypotheses_for(path) for path in {one.experiment for one in wanted}}
    checked = cache(lambda path: check(path, known[path]))
    plans: list[Plan] = []
    problems: list[Problem] = []
    with contextlib.ExitStack() as otherwise:
        otherwise.callback(forget, plans)
        for one in wanted:
            try:
                file = one.experiment
                plan = launch.prepare(file, one.environment, inventory, home, request=request, hypotheses=known[file], checked=checked(file))
                plans.append(plan)
            except InputError as error:
                problems.extend(error.problems)
        if problems:
            raise ExperimentError(tuple(dict.fromkeys(problems)))
        otherwise.pop_all()
    return tuple(plans)


def forget(plans: "Iterable[Plan]") -> None:
    """Remove the folders of runs that were planned and never started."""
    for plan in plans:
        shutil.rmtree(plan.folder, ignore_errors=True)


@dataclass
class Fleet:
    """Runs that are planned, and what became of them. `run` once; `abort` and `stop` from a signal handler or any thread."""

    plans: "Sequence[Plan]"
    inventory: "Inventory"
    home: "Home"
    at_most: int
    rule: StopRule = field(default_factory=StopRule)
    start: "Callable[[Plan], RunHandle]" = launch.start
    on_event: "Callable[[Plan, Event], None]" = lambda _plan, _event: None
    """Called from the threads that follow the runs."""
    on_end: Callable[[Ended], None] = lambda _ended: None
    """Called from the thread that calls `run`."""
    before: tuple[Ended, ...] = ()
    """Runs that ended before these and count for the stop rule too."""
    stopping: str = ""
    """Why nothing more is started."""
    ended: dict[str, Ended] = field(default_factory=dict)
    """By run id."""
    aborted: str = ""
    """Why the runs in progress were asked to stop."""
    _waiting: "list[Plan]" = field(default_factory=list)
    _running: "dict[Future[Event | None], _Running]" = field(default_factory=dict)
    _deaf: bool = False

    def run(self) -> tuple[Ended, ...]:
        """Run all of them and return how each ended, in the order of the plans."""
        self._waiting = list(self.plans)
        try:
            while self._waiting or self._running:
                self._start_some()
                self._collect()
        except BaseException:
            self.abort("the command that started this run failed")
            raise
        return tuple(self.ended[plan.run_id] for plan in self.plans)

    def abort(self, reason: str) -> None:
        """Start nothing more, and ask every run in progress to stop and to revert."""
        self.aborted = self.stopping = reason
        for running in list(self._running.values()):
            running.abort(reason)

    def stop(self, reason: str) -> None:
        """Start nothing more; runs in progress go on to their end."""
        self.stopping = self.stopping or reason

    def in_progress(self) -> "Iterator[RunHandle]":
        """Yield the runs that have been started and have not ended."""
        yield from (running.handle for running in list(self._running.values()))

    def _start_some(self) -> None:
        if self.stopping:
            self._give_up()
            return
        keys = [key for running in self._running.values() for key in running.handle.plan.keys]
        numbers = startable([plan.keys for plan in self._waiting], keys, self.at_most - len(self._running))
        chosen = [self._waiting[number] for number in numbers]
        for plan in chosen:
            if self.stopping:  # a signal arrived meanwhile
                return
            self._waiting.remove(plan)
            self._start(plan)

    def _give_up(self) -> None:
        left, self._waiting = self._waiting, []
        forget(left)
        for plan in left:
            self._end(Ended(plan, "not started", "not started", (self.stopping,), INCONCLUSIVE))

    def _start(self, plan: "Plan") -> None:
        began = time.time()
        try:
            running = _Running(self.start(plan), began)
        except (FrangibleError, OSError) as error:
            self._end(Ended(plan, "failed", "failed", (f"the run could not be started: {error}",), INTERNAL, began=began, ended=time.time()))
            return
        future: Future[Event | None] = Future()
        self._running[future] = running
        if self.aborted:  # the signal arrived between the start and this line
            running.abort(self.aborted)
        threading.Thread(target=self._follow, args=(running.handle, future), name=f"follow {plan.run_id}", daemon=True).start()

    def _follow(self, handle: "RunHandle", future: "Future[Event | None]") -> None:
        last: Event | None = None
        try:
            for event in handle.events():
                if event["event"] in ("verdict", "refused", "failed"):
                    last = event
                self._tell(handle.plan, event)
        finally:
            future.set_result(last)

    def _tell(self, plan: "Plan", event: "Event") -> None:
        """Pass an event on; when nobody can be told any more, all runs are aborted and followed to their end in silence."""
        if self._deaf:
            return
        try:
            self.on_event(plan, event)
        except OSError as error:
            self._deaf = True
            self.abort(f"progress cannot be shown any more: {error}")

    def _collect(self) -> None:
        """Wait until at least one run has ended, and note how."""
        done, _ = wait(list(self._running), return_when=FIRST_COMPLETED)
        for future in [one for one in list(self._running) if one in done]:
            running = self._running[future]
            running.handle.channel.close()
            self._end(self._how(running, future.result()))
            del self._running[future]

    def _how(self, running: "_Running", event: "Event | None") -> Ended:
        plan = running.handle.plan
        if event is None:
            return Ended(plan, "died", "died", self._recover(plan), INCONCLUSIVE, None, running.began, time.time())
        kind = event["event"]
        state: State = "verdict" if kind == "verdict" else "refused" if kind == "refused" else "failed"
        reasons = tuple(event.get("reasons") or ([event["message"]] if event.get("message") else []))
        return Ended(plan, state, event.get("outcome") or state, reasons, event.get("exit_code", INCONCLUSIVE), event, running.began, time.time())

    def _recover(self, plan: "Plan") -> tuple[str, ...]:
        """Revert what a run left whose supervisor died, before the next run with its keys starts; return what is to be said about it."""
        from frangible.fault import FaultRegistry
        from frangible.recovery import recover

        report = recover(self.home, self.inventory, run_id=plan.run_id, registry=FaultRegistry())
        found = (("reverted", report.reverted), ("NOT reverted", report.failed), ("problem", report.problems))
        said = [f"{what}: {one}" for what, ones in found for one in ones]
        left = [] if report.clean else ["something is left in force; run `frangible recover --watch`"]
        return (f"its supervisor died; its log is {plan.folder / 'supervisor.log'}", *said, *left)

    def _end(self, ended: Ended) -> None:
        self.ended[ended.plan.run_id] = ended
        if not self.stopping and (reason := self.rule.broken_by([*self.before, *self.ended.values()])):
            self.stopping = f"the stop rule: {reason}"
        self.on_end(ended)


@dataclass
class _Running:
    handle: "RunHandle"
    began: float
    aborted: bool = False

    def abort(self, reason: str) -> None:
        if not self.aborted:
            self.aborted = True
            self.handle.abort(reason)
