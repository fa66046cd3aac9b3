"""A game day: the go/no-go checks, then the waves through the fleet, and what there is to tell of it afterwards.

The terminal is somebody else's: how a wave is shown and how time is waited for come in as functions.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from frangible import examining
from frangible.afteraction import DayReport, Looked, RunOutcome
from frangible.errors import FrangibleError, InputError, Refused
from frangible.fleet import Ended, Fleet, StopRule, Wanted, prepare_all, worst
from frangible.request import Request
from frangible.trials import Check, Trial, in_turn, tried

if TYPE_CHECKING:
    from frangible.agenda import Agenda, Step, Window
    from frangible.environment import Environment
    from frangible.experiment import ExperimentFile
    from frangible.home import Home
    from frangible.hypothesis import Hypothesis
    from frangible.inventory import Inventory
    from frangible.plan import Plan

__all__ = ["Conduct", "GameDay", "Interrupted", "checks"]

NO_GO, INCONCLUSIVE = 4, 3
AT_ONCE = 8
"""Environments that are examined side by side."""
TOLD = ("proven", "reverted", "revert-failed")
"""States of a fault that the report's timeline has."""


class Interrupted(Exception):
    """Somebody asked the day to end; may be raised by a signal handler at any time between two waves."""


@dataclass(frozen=True)
class GameDay:
    """What is to be run, with everything that it names."""

    agenda: "Agenda"
    plan: Path
    """The plan's file."""
    digest: str
    """SHA-256 of the file, hexadecimal."""
    steps: "tuple[Step, ...]"
    inventory: "Inventory"
    home: "Home"
    known: "Mapping[Path, Mapping[str, Hypothesis]]"
    """Hypotheses that each experiment may name."""

    def environments(self) -> "dict[str, Environment]":
        """Return the environments of the day, each once."""
        return {step.environment.name: step.environment for step in self.steps}

    def wave_name(self, number: int) -> str:
        """Return the name of a wave, else its number, from 1."""
        return self.agenda.waves[number].name or f"wave {number + 1}"


# --- go or no-go ------------------------------------------------------------------------------------------------------


def checks(day: GameDay, at: float) -> Iterator[Looked]:
    """Look at everything that keeps a run from giving a verdict; nothing is injected. `at`: when the day is to begin, seconds since the epoch."""
    yield Looked("", tried(Trial("time window", partial(_in_window, day.agenda.when, at), "wait with `--at`, or correct `when` of the plan")))
    for trial in (examining.halted(day.home), *examining.stores(day.home)):
        yield Looked("", tried(trial))
    fit: dict[str, list[ExperimentFile]] = {name: [] for name in day.environments()}
    for step in dict.fromkeys((step.experiment, step.environment.name) for step in day.steps):
        yield _validated(day, *step, fit)
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="examine")
    try:
        for looked in pool.map(lambda name: _examined(day, name, fit[name]), fit):
            yield from looked
    finally:
        pool.shutdown(cancel_futures=True)


def _in_window(window: "Window", at: float) -> str:
    now = datetime.fromtimestamp(at, UTC)
    if window.begins is not None and now < window.begins:
        raise Refused(f"the day is to begin at {window.from_}")
    if window.ends is not None and now >= window.ends:
        raise Refused(f"the day is to end before {window.until}")
    return "open" if window.from_ or window.until else "none is given: at any time"


def _validated(day: GameDay, experiment: Path, name: str, fit: "dict[str, list[ExperimentFile]]") -> Looked:
    """Say whether an experiment can run on an environment, and keep it in `fit` where it can."""
    from frangible.experiment import load_experiment_file
    from frangible.validation import validate

    what = f"experiment {experiment.stem}"
    try:
        problems = validate(experiment, day.inventory.get(name), day.inventory, day.known[experiment])
    except InputError as error:
        problems = error.problems
    if problems:
        said = "; ".join(str(problem) for problem in problems)
        return Looked(name, Check(what, ok=False, found=said, advice=f"`frangible validate {experiment} --environment {name}` shows it line by line"))
    file = load_experiment_file(experiment)
    fit[name].append(file)
    return Looked(name, Check(what, ok=True, found="can run here, and `held` can be reached" if file.injections else "can run here; it injects nothing"))


def _examined(day: GameDay, name: str, files: "list[ExperimentFile]") -> list[Looked]:
    """Try out one environment, with the hypotheses of the experiments that can run there."""
    from frangible import launch

    environment = day.inventory.get(name)
    hypotheses = {known: day.known[file.path][known] for file in files for known in file.hypotheses}
    keys = {key for file in files for key in day.inventory.resource_keys(name, launch.exclusive_parts(file))}
    trials = chain(
        [Trial("tier", partial(_tier, environment), "choose an environment whose tier is `staging`"), examining.left_over(day.home, name)],
        examining.observer(environment, hypotheses.values()) if hypotheses else (),
        examining.platform(environment),
        examining.told(environment),
        [examining.locks_free(environment, keys or day.inventory.resource_keys(name))],
    )
    return [Looked(name, check) for check in in_turn(trials)]


def _tier(environment: "Environment") -> str:
    from frangible.guard import ALLOWED_TIER

    if environment.tier != ALLOWED_TIER:
        raise Refused(f"tier {environment.tier}, where nothing is injected")
    return environment.tier


# --- the waves --------------------------------------------------------------------------------------------------------


@dataclass
class Conduct:
    """One game day on its way. `look`, then `run` where the answer is go; `report` at any time."""

    day: GameDay
    actor: str
    version: str
    show: Callable[[Fleet], None]
    """Runs a fleet to its end and shows it; may come back early when somebody is in a hurry."""
    wait: Callable[[float, str], None]
    """Waits until a moment, seconds since the epoch, and says for what; raises `Interrupted`."""
    say: Callable[[str], None] = lambda _text: None
    progress: Callable[[], None] = lambda: None
    """Called after each wave."""
    began: float = field(default_factory=time.time)
    stopped: str = ""
    looked: tuple[Looked, ...] = ()
    _outcomes: dict[int, RunOutcome] = field(default_factory=dict)
    """By number of the step."""
    _ended: list[Ended] = field(default_factory=list)
    _happened: list[tuple[float, str]] = field(default_factory=list)
    _refused: bool = False

    def look(self, at: float, tell: Callable[[Looked], None]) -> bool:
        """Make every check, and tell each; return whether the day may begin."""
        found: list[Looked] = []
        for one in checks(self.day, at):
            found.append(one)
            tell(one)
        self.looked = tuple(found)
        failed = sum(not one.check.ok for one in found)
        self._refused = bool(failed)
        self.stopped = f"no-go: {failed} of {len(found)} checks did not pass" if failed else ""
        self.happen(self.stopped or f"go: {len(found)} checks passed")
        return not failed

    def happen(self, what: str) -> None:
        """Put something into the timeline."""
        self._happened.append((time.time(), what))

    def stop(self, reason: str) -> None:
        """Let it end before it has begun."""
        self.stopped = reason
        self.happen(f"stopped: {reason}")

    def run(self) -> None:
        """Run the waves, one after the other, until all are through or the day is stopped."""
        for number in range(len(self.day.agenda.waves)):
            try:
                self._pause_before(number)
                if self._over():
                    self.stopped = f"the time window ended at {self.day.agenda.when.until}"
                else:
                    self._wave(number)
            except Interrupted as error:
                self.stopped = str(error)
            if self.stopped:
                self.happen(f"stopped: {self.stopped}")
                return

    def exit_code(self) -> int:
        """Return 4 for a no-go, else the worst of the runs; a run that was not started counts as inconclusive."""
        if self._refused:
            return NO_GO
        left = [INCONCLUSIVE] * (len(self.day.steps) - len(self._ended))
        return worst([*(one.exit_code for one in self._ended), *left])

    def report(self, *, over: bool) -> DayReport:
        """Return what there is to tell now."""
        return DayReport(
            agenda=self.day.agenda,
            plan=str(self.day.plan),
            digest=self.day.digest,
            actor=self.actor,
            version=self.version,
            began=self.began,
            ended=time.time() if over else None,
            looked=self.looked,
            runs=() if self._refused else tuple(self.outcomes()),
            happened=tuple(self._happened),
            stopped=self.stopped,
        )

    def outcomes(self) -> Iterator[RunOutcome]:
        """Yield what came of each step, in the order of the plan."""
        for number, step in enumerate(self.day.steps):
            yield self._outcomes.get(number) or self._outcome(step, "not started", (self.stopped or "still to come",))

    def _pause_before(self, number: int) -> None:
        pause = self.day.agenda.limits.pause
        if number and pause:
            self.happen(f"pause of {pause:g} s")
            self.wait(time.time() + pause, f"{self.day.wave_name(number)} begins")

    def _over(self) -> bool:
        """Whether the day's time window has ended."""
        ends = self.day.agenda.when.ends
        return ends is not None and time.time() >= ends.timestamp()

    def _wave(self, number: int) -> None:
        day = self.day
        numbers = [at for at, step in enumerate(day.steps) if step.wave == number]
        wanted = [Wanted(day.steps[at].experiment, day.steps[at].environment) for at in numbers]
        request = Request(f"game day: {day.agenda.title}, {day.wave_name(number)}", day.agenda.ticket)
        try:
            plans = prepare_all(wanted, day.inventory, day.home, request=request, hypotheses=day.known)
        except FrangibleError as error:
            self.stopped = f"{day.wave_name(number)} cannot be planned any more: {error}"
            return
        what = f"{day.wave_name(number)} ({number + 1} of {len(day.agenda.waves)}): {len(plans)} run{'' if len(plans) == 1 else 's'}"
        self.happen(f"{what} begin{'s' if len(plans) == 1 else ''}")
        self.say(what)
        stop = day.agenda.stop
        rule = StopRule(deviated=stop.after_deviated, refused=int(stop.on_refused))
        fleet = Fleet(plans, day.inventory, day.home, day.agenda.limits.at_once, rule, before=tuple(self._ended))
        done = threading.Event()
        threading.Thread(target=self._watch_window, args=(fleet, done), name="time window", daemon=True).start()
        try:
            self.show(fleet)
        finally:
            done.set()
            self._keep(fleet, numbers, plans)
            self.progress()

    def _watch_window(self, fleet: Fleet, done: threading.Event) -> None:
        while not done.wait(0.2):
            if self._over():
                fleet.stop(f"the time window ended at {self.day.agenda.when.until}")
                return

    def _keep(self, fleet: Fleet, numbers: "list[int]", plans: "Iterable[Plan]") -> None:
        """Note what came of a wave."""
        detections = _detections(self.day.home, fleet.ended.values())
        for number, plan in zip(numbers, plans, strict=True):
            ended = fleet.ended.get(plan.run_id)
            step = self.day.steps[number]
            if ended is None:
                left = self._outcome(step, "left", ("nobody waited for its end; its supervisor goes on reverting",))
                self._outcomes[number] = replace(left, run=plan.run_id)
                continue
            self._ended.append(ended)
            self._outcomes[number] = replace(
                self._outcome(step, ended.outcome, ended.reasons),
                run="" if ended.began is None else plan.run_id,
                began=ended.began,
                ended=ended.ended,
                happened=tuple(_happened(plan.events_path)),
                detections=detections.get(plan.run_id, ()),
            )
        going_on = [plan.run_id for plan in plans if plan.run_id not in fleet.ended]
        self.stopped = self.stopped or fleet.aborted or (f"the day was left while {', '.join(going_on)} went on" if going_on else "")
        if len([one for one in self._ended if one.state != "not started"]) < len(self.day.steps):  # else there was nothing left to stop
            self.stopped = self.stopped or fleet.stopping

    def _outcome(self, step: "Step", outcome: str, reasons: tuple[str, ...]) -> RunOutcome:
        owner = step.environment.owner
        return RunOutcome(self.day.wave_name(step.wave), step.experiment.stem, step.environment.name, owner.team, owner.contact, outcome, reasons)


def _happened(events: Path) -> Iterator[tuple[float, str]]:
    """Yield what the faults of a run did, each state of a fault once."""
    told: set[tuple[str, str]] = set()
    try:
        lines = events.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # a disk that was full
            continue
        mark = (event.get("lease", ""), event.get("state", ""))
        if event.get("event") == "fault" and mark[1] in TOLD and mark not in told:
            told.add(mark)
            yield event["at"], f"{event['fault']} on {event['target']} {mark[1]}"


def _detections(home: "Home", ended: Iterable[Ended]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return by run what our own alerts did, as far as the journal can be read."""
    from frangible.detections import PREFIX
    from frangible.journal import Journal

    found: dict[str, tuple[tuple[str, str], ...]] = {}
    wanted = [one.plan.run_id for one in ended if one.state == "verdict"]
    if not wanted:
        return found
    with contextlib.suppress(FrangibleError), contextlib.closing(Journal.open(home.journal_url)) as journal:
        for run_id in wanted:
            facts = journal.get(run_id).facts
            found[run_id] = tuple((name.removeprefix(PREFIX), told) for name, told in sorted(facts.items()) if name.startswith(PREFIX))
    return found
