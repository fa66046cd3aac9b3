"""However a run is stopped, and whatever fails meanwhile: the node has power again, nothing is left, and nothing is called held."""

import contextlib
import itertools
import resource
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from frangible.ledger import Ledger

from .runs import Event
from .starting import LONDON, NEWYORK, PATHS, SPARE, Estate, Over, Started, looked_after, plays, processes, proven, seen

pytestmark = pytest.mark.timeout(1200)  # the first test waits for what goes on side by side

EVIDENCE = 6
"""Readings of a broken bound after the first proof, which show beyond doubt what the loss of a role does."""


def shows_a_deviation(events: list[Event]) -> bool:
    """Whether the bound has been read as broken often enough; on a busy machine a reading may find no data."""
    after = itertools.dropwhile(lambda event: not (event["event"] == "fault" and event["state"] == "proven"), events)
    return sum(any(reading["state"] == "broken" for reading in event["readings"]) for event in after if event["event"] == "indicators") >= EVIDENCE


PHASES: Mapping[str, Callable[[list[Event]], bool]] = {
    "admission": seen(event="phase", phase="admission"),
    "baseline": seen(event="phase", phase="baseline"),
    "effect": proven,
    "recovery": seen(event="phase", phase="recovery"),
}


@dataclass(frozen=True)
class Stop:
    """Where a run is stopped, and how."""

    phase: str
    path: str
    how: str
    environment: str

    def __call__(self, estate: Estate) -> "Stopped":
        """Start a run, wait for the phase, stop the run, wait for its end."""
        hold = 30.0 if self.phase == "effect" else 6.5
        started = estate.begin(self.path, self.environment, hold=hold, terminal=self.how == "Ctrl-C")
        started.reach(PHASES[self.phase])
        if self.phase == "effect" and self.environment == NEWYORK:
            started.reach(shows_a_deviation)
        at = _stop(started, self.how)
        return Stopped(self, looked_after(started), at)

    def __str__(self) -> str:
        return f"{self.phase}-{self.path.split()[0]}-{self.how}-{self.environment.removeprefix('lab-')}"


def _environment(phase: str, number: int) -> str:
    return SPARE if phase in {"admission", "baseline"} else (LONDON, NEWYORK)[number % 2]


HOWS = ("SIGTERM", "Ctrl-C", "frangible abort", "frangible halt")
STOPS = [
    Stop(phase, path, how, _environment(phase, number + PATHS.index(path) + (phase == "recovery")))
    for phase in PHASES
    for path in PATHS
    for number, how in enumerate(HOWS)
    if how in {"SIGTERM", "Ctrl-C"} or (phase, path) == ("effect", "chaos run")  # a command reaches the supervisor, whoever started it
]


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped."""

    case: Stop
    over: Over
    at: float
    """When it was stopped, in seconds since the epoch."""


def _stop(started: Started, how: str) -> float:
    """Stop a run; return when that was asked for, in seconds since the epoch."""
    if how in {"SIGTERM", "Ctrl-C"}:
        return started.stop(how)
    run = started.folder.name
    words = {"frangible abort": ("abort", run, "--reason", "enough"), "frangible halt": ("halt", "on", "--reason", "incident 7")}[how]
    said = started.place.frangible(*words)
    assert said.returncode == 0, said.stderr
    with contextlib.closing(Ledger.open(started.place.home.ledger_url)) as ledger:
        asked = ledger.stop_for(run)
    assert asked is not None
    return asked.since


@plays(None, *STOPS)
def test_a_stopped_run_leaves_nothing_and_is_not_held(played):
    """Stopped in any phase, by any means, on either path: the node has power, no copy, lock, lease, process or open row is left, and it is no pass."""
    case, over = played.case, played.over
    assert over.left_over == [], over.why
    assert over.code != 0, over.why
    assert over.outcome != "held", over.why
    if case.phase in {"effect", "recovery"}:
        assert over.record is not None
        assert over.record.ending == "aborted-by-operator", over.why
        assert all(proof.injected and proof.reverted for proof in over.record.proofs)
        assert len(over.record.proofs) == 1
        assert over.outcome == ("deviated" if case.environment == NEWYORK else "inconclusive"), over.why
    else:
        assert not over.injected
    if case.how.startswith("frangible"):
        assert {"frangible abort": "the run was aborted: enough (", "frangible halt": "the run was aborted: the halt is on: incident 7 ("}[case.how] in over.why
    if case.phase == "effect":
        seconds = over.seconds_to_revert(played.at)
        assert seconds is not None
        print(f"{case}: {seconds:.3f} s from the stop to the revert")  # noqa: T201 - pytest shows it with -rP


# --- the halt ---------------------------------------------------------------------------------------------------------


def try_during_a_halt(estate: Estate) -> list[Over]:
    """Start runs on both paths while the halt is on, and one after it."""
    place, experiment = estate.prepare(SPARE)
    place.frangible("halt", "on", "--reason", "incident 7")
    ended = [place.start(path, experiment, SPARE).end() for path in PATHS]
    place.frangible("halt", "off")
    allowed = place.start("frangible run", experiment, SPARE).reach(seen(event="started"))
    allowed.stop("SIGTERM")
    return [*ended, allowed.end()]


@plays(SPARE, try_during_a_halt)
def test_while_the_halt_is_on_nothing_starts(played):
    """With the halt on, a new run is refused on both paths and says what would allow it; once it is off, runs are admitted again."""
    ours, theirs, allowed = played
    assert (ours.code, theirs.code) == (4, 1)
    for over in (ours, theirs):
        assert "not injecting: halt set by " in over.said
        assert "(incident 7); `frangible halt off` allows it again" in over.said
        assert over.record is None
        assert over.left_over == []
    assert allowed.record is not None


# --- ledger and journal that cannot be written ------------------------------------------------------------------------


@contextlib.contextmanager
def held_by_somebody(database: Path) -> Iterator[None]:
    """Another process in the middle of writing, for as long as this lasts: everybody else can read, and nobody can write."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def no_more_room(process: int, size: int) -> None:
    """Let files of a running process not grow beyond `size` bytes: to it the disk is full."""
    _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, most))


@dataclass(frozen=True)
class Lost:
    """A run that could not write down what it did."""

    over: Over
    powered: bool
    """Whether every node had power when the run had ended, and before anything was mended."""
    state: str
    """Of the journal's row at that time."""
    recover: int
    """Exit code of `frangible recover` afterwards."""
    left_over: list[str]
    """After that."""
    stopped_at: float = 0.0
    following: Over | None = None
    """A run that was tried before `frangible recover`."""

    @classmethod
    def of(cls, started: Started, stopped_at: float = 0.0, mend: Callable[[], None] = lambda: None) -> "Lost":
        """Wait for the end, look, mend what was broken, recover."""
        place, environment = started.place, started.environment
        over = started.end()
        powered = all(on for on, _ in place.nodes(environment).values())
        record = place.record(started.folder.name)
        mend()
        recover = place.frangible("recover").returncode
        return cls(over, powered, record.state if record else "", recover, over.left_over, stopped_at)


def lose_the_ledger_and_try_again(estate: Estate) -> Lost:
    """Keep everybody from writing the ledger from the proven fault on; when it can be written again, start the next run."""
    started = estate.begin("chaos run", LONDON).reach(proven)
    tried: list[Over] = []
    with contextlib.ExitStack() as holding:
        holding.enter_context(held_by_somebody(started.place.home.path / "ledger.db"))

        def mend() -> None:
            holding.close()
            tried.append(started.place.start("frangible run", started.output.parent / "node-loss.yaml", LONDON).end())

        return replace(Lost.of(started, mend=mend), following=tried[0])


@plays(LONDON, lose_the_ledger_and_try_again)
def test_a_revert_does_not_wait_for_the_ledger_and_says_that_it_was_not_recorded(played):
    """A ledger that nobody can write from the injection on: the node gets its power back, the run is no pass and says why, `recover` closes the lease."""
    assert played.powered
    over = played.over
    assert (over.outcome, over.code) == ("inconclusive", 1), over.why
    assert "reverted, but the ledger could not be told" in over.why
    assert "`frangible recover`" in over.why
    assert [proof.reverted for proof in over.record.proofs] == [True]
    assert (played.recover, played.left_over) == (0, [])


@plays(LONDON, lose_the_ledger_and_try_again)
def test_an_open_lease_keeps_the_next_run_out(played):
    """What was left open, and only `recover` closes, refuses the next run on the environment and says what to do."""
    following = played.following
    assert following.code == 4, following.said
    assert "other runs left lab-london with leases that are not reverted" in following.said
    assert "`frangible recover` reverts them" in following.said
    assert not following.injected


def stop_without_the_ledger(estate: Estate) -> Lost:
    """Keep everybody from writing the ledger once the effect has shown what it does, then stop the run."""
    started = estate.begin("frangible run", NEWYORK, hold=30.0).reach(shows_a_deviation)
    with contextlib.ExitStack() as holding:
        holding.enter_context(held_by_somebody(started.place.home.path / "ledger.db"))
        return Lost.of(started, started.stop("SIGTERM"), holding.close)


@plays(NEWYORK, stop_without_the_ledger)
def test_a_stop_does_not_wait_for_the_ledger_either(played):
    """SIGTERM while nobody can write the ledger: the node has power again all the same, and evidence that was there is not lost."""
    assert played.powered
    over = played.over
    assert (over.outcome, over.code) == ("deviated", 1), over.why
    assert "reverted, but the ledger could not be told" in over.why
    print(f"without the ledger: {over.seconds_to_revert(played.stopped_at)} s from the stop to the revert")  # noqa: T201 - pytest shows it with -rP
    assert (played.recover, played.left_over) == (0, [])


def lose_the_ledger_early(estate: Estate) -> tuple[Over, bool]:
    """Keep everybody from writing the ledger from the baseline on; return also whether the nodes stayed as they were."""
    started = estate.begin("frangible run", SPARE).reach(PHASES["baseline"])
    with held_by_somebody(started.place.home.path / "ledger.db"):
        over = started.end()
    return over, over.left_over == [] and estate.touched == []


@plays(SPARE, lose_the_ledger_early)
def test_a_ledger_that_cannot_be_written_keeps_everything_from_being_injected(played):
    """Lost before the injection, the ledger takes the injection with it: no lease, no fault."""
    over, untouched = played
    assert untouched
    assert not over.injected
    assert (over.outcome, over.code) == ("inconclusive", 3), over.why
    assert "ledger.db: was held by another process" in over.why


def fill_the_journal(estate: Estate) -> Lost:
    """Leave no room for the verdict in the journal, and a little elsewhere."""
    started = estate.begin("frangible run", NEWYORK, hold=10.0).reach(proven)  # a busy machine leaves a shorter one too little evidence
    [supervisor] = processes(started.folder, "frangible.supervisor")
    no_more_room(supervisor.pid, (started.place.home.path / "journal.db").stat().st_size // 3)
    return Lost.of(started)


@plays(NEWYORK, fill_the_journal)
def test_a_verdict_that_the_journal_has_no_room_for_is_spooled_and_recovered(played):
    """A full disk under the journal from the injection on: the verdict is told and lies beside the run, and `recover` brings it into the journal."""
    assert played.state == "started"
    assert played.over.code == 1, played.over.said
    assert "the journal could not be written" in played.over.said
    assert (played.recover, played.left_over) == (0, [])
    assert (played.over.outcome, played.over.record.ending) == ("deviated", "completed"), played.over.why


def fill_the_disk(path: str, estate: Estate) -> Lost:
    """Leave no process of the run any room at all from the proven fault on."""
    started = estate.begin(path, LONDON).reach(proven)
    for process in {started.process.pid, *(each.pid for each in processes(started.folder))}:
        no_more_room(process, 0)
    return Lost.of(started)


@plays(LONDON, *(partial(fill_the_disk, path) for path in PATHS))
def test_a_disk_without_any_room_stops_no_revert(played):
    """When no process of the run can write anything any more, the node gets its power back, nothing is a pass, and `recover` closes what is open."""
    assert played.powered
    assert played.over.code != 0
    assert (played.recover, played.left_over) == (0, [])
    assert played.over.outcome == "inconclusive", played.over.why
