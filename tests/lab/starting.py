"""Runs as people start them: a process of `frangible run` or `chaos run`, followed through its events, stopped, and looked for in the target."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from frangible.home import Home
from frangible.inventory import load_inventory
from frangible.journal import Journal, RunRecord
from frangible.ledger import Ledger
from frangible.platforms import Platform, open_platform

from ..waiting import eventually
from .conftest import RunningLab
from .runs import Event, hypothesis, orders, write_experiment

__all__ = [
    "LONDON",
    "NEWYORK",
    "PATHS",
    "SPARE",
    "TARGET",
    "Estate",
    "Lanes",
    "Over",
    "Place",
    "Play",
    "Started",
    "looked_after",
    "playing",
    "plays",
    "processes",
    "proven",
    "seen",
]

LONDON, NEWYORK = "lab-london", "lab-newyork"
SPARE = "lab-spare"
"""The robust environment once more, with nodes that nobody powers off: for runs that are stopped before they inject."""
TARGET = {LONDON: "app-1", NEWYORK: "exec-1", SPARE: "app-1"}
PATHS = ("frangible run", "chaos run")
CHAOS = str(Path(sys.executable).with_name("chaos"))
ON_A_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes the terminal on standard input its own, so that Ctrl-C there reaches the foreground processes as it does for people."""
CTRL_C = b"\x03"
_making = threading.Lock()
LIMIT = 240.0
"""Seconds that any one wait may take, on a very busy machine."""


def seen(**wanted: object) -> Callable[[list[Event]], bool]:
    """Whether any event has these values."""
    return lambda events: any(wanted.items() <= event.items() for event in events)


proven = seen(event="fault", state="proven")


@dataclass(frozen=True)
class Place:
    """A home and an inventory: where a run keeps its things, and which environments it knows."""

    lab: RunningLab
    home: Home
    inventory: Path
    begun: "list[Started]" = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def new(cls, lab: RunningLab, folder: Path, inventory: Path | None = None) -> "Place":
        """Make a home of its own in a folder; its empty ledger and journal are there, so that no run has to make them."""
        pattern = lab.home.path / "empty-stores"
        with _making:
            if not pattern.exists():
                pattern.mkdir()
                Ledger.open(Home(pattern).ledger_url).close()
                Journal.open(Home(pattern).journal_url).close()
        return cls(lab, Home(shutil.copytree(pattern, folder / "home")), inventory or lab.inventory)

    def variables(self, **more: str) -> dict[str, str]:
        """Environment variables of a command that works here."""
        return {**os.environ, "FRANGIBLE_HOME": str(self.home.path), "FRANGIBLE_INVENTORY": str(self.inventory), **more}

    def frangible(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        command = [sys.executable, "-m", "frangible.cli", *words]
        return subprocess.run(command, env=self.variables(), capture_output=True, text=True, check=False, timeout=LIMIT, stdin=subprocess.DEVNULL)

    def start(self, path: str, experiment: Path, environment: str, *, terminal: bool = False, variables: Mapping[str, str | None] | None = None) -> "Started":
        """Start a run; on a terminal of its own where asked."""
        command = {
            "frangible run": [sys.executable, "-m", "frangible.cli", "run", str(experiment), "--environment", environment],
            "chaos run": [CHAOS, "--no-version-check", "--no-log-file", "run", str(experiment)],
        }[path]
        more = {"FRANGIBLE_ENVIRONMENT": environment, "TERM": "xterm", **(variables or {})}
        known = frozenset(self.home.runs.glob("*"))
        output = experiment.parent / f"output-{len(known)}-{time.monotonic_ns()}"
        chosen = {name: value for name, value in {**self.variables(), **more}.items() if value is not None}
        keyboard, process = _spawn(command, chosen, experiment.parent, output, terminal=terminal)
        self.begun.append(Started(self, environment, process, output, keyboard, known))
        return self.begun[-1]

    def platform(self, environment: str) -> Platform:
        """The environment's platform."""
        return open_platform(load_inventory(self.inventory).get(environment))

    def nodes(self, environment: str) -> dict[str, tuple[bool, str]]:
        """Power and instance of each node, from whoever switches them."""
        platform = self.platform(environment)
        states = [platform.node(node.name) for node in load_inventory(self.inventory).get(environment).nodes]
        return {state.name: (state.powered, state.instance) for state in states}

    def record(self, run_id: str) -> RunRecord | None:
        """The journal's row of a run; None where it never had one."""
        with contextlib.closing(Journal.open(self.home.journal_url)) as journal:
            return journal.get(run_id) if run_id in {record.id for record in journal.runs(limit=None)} else None

    def left_over(self, environment: str, folder: Path) -> list[str]:
        """What a run that has ended has left behind: in the target, among locks and processes, in the ledger and in the journal."""
        platform, run_id = self.platform(environment), folder.name
        found = [f"node {name} is off" for name, (powered, _) in self.nodes(environment).items() if not powered]
        found += [f"lease copy {name}" for name in platform.lease_copies() if name.startswith(run_id)]
        found += [f"lock {holder.key}" for holder in platform.locks().holders() if holder.run_id == run_id]
        found += [f"process {process.pid}: {' '.join(process.cmdline())}" for process in processes(folder)]
        with contextlib.closing(Ledger.open(self.home.ledger_url)) as ledger:
            found += [f"{lease} is {lease.state}" for lease in ledger.open_leases(run_id=run_id)]
        record = self.record(run_id)
        return found + (["the journal's row is open"] if record is not None and record.state != "finished" else [])


def processes(folder: Path, module: str = "") -> list[psutil.Process]:
    """Supervisor and chaoslib process of a run's folder, as far as they name it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if str(folder) in words and (not module or module in words) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _spawn(command: list[str], variables: dict[str, str], folder: Path, output: Path, *, terminal: bool) -> "tuple[int | None, subprocess.Popen[bytes]]":
    if not terminal:
        with output.open("wb") as file:
            out = {"stdout": file, "stderr": file, "stdin": subprocess.DEVNULL}
            return None, subprocess.Popen(command, env=variables, cwd=folder, start_new_session=True, **out)  # type: ignore[call-overload]
    keyboard, screen = os.openpty()
    try:
        through = [sys.executable, "-S", "-E", "-c", ON_A_TERMINAL, *command]
        process = subprocess.Popen(through, env=variables, cwd=folder, stdin=screen, stdout=screen, stderr=screen)
    finally:
        os.close(screen)

    def read() -> None:
        with output.open("wb") as file, contextlib.suppress(OSError):  # the last of its processes has gone
            while data := os.read(keyboard, 65536):
                file.write(data)
                file.flush()

    threading.Thread(target=read, daemon=True).start()
    return keyboard, process


@dataclass
class Started:
    """A run on its way."""

    place: Place
    environment: str
    process: "subprocess.Popen[bytes]"
    output: Path
    keyboard: int | None
    _known: frozenset[Path]

    @cached_property
    def folder(self) -> Path:
        """The run's folder, once there is one."""

        def look() -> Path | None:
            found = [path for path in self.place.home.runs.glob("*") if path not in self._known and (path / "events.jsonl").exists()]
            return found[0] if found else None

        return self._wait(look, "a run")

    @property
    def events(self) -> list[Event]:
        """What the run has told so far."""
        lines = (self.folder / "events.jsonl").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def said(self) -> str:
        """What the command has printed."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def reach(self, what: Callable[[list[Event]], bool]) -> "Started":
        """Wait until the events are such."""
        self._wait(lambda: what(self.events) or None, "the events that the test waits for")
        return self

    def stop(self, how: str) -> float:
        """Send SIGTERM, or press Ctrl-C; return when, in seconds since the epoch."""
        at = time.time()
        if how == "SIGTERM":
            self.process.send_signal(signal.SIGTERM)
        else:
            assert self.keyboard is not None
            os.write(self.keyboard, CTRL_C)
        return at

    def end(self) -> "Over":
        """Wait until command, chaoslib process and supervisor have ended."""
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"a run did not end within {LIMIT:g} s: {self.said}")
        folder: Path | None = vars(self).get("folder")  # known already; a later run in the same home has another
        if folder is None:
            folder = next((path for path in self.place.home.runs.glob("*") if path not in self._known), None)
        if folder is not None:
            eventually(lambda: not processes(folder) or None, f"the processes of run {folder.name} gone", within=LIMIT)
        if self.keyboard is not None:
            os.close(self.keyboard)
        return Over(self.place, self.environment, code, self.said, folder)

    def give_up(self) -> None:
        """End a run that its test has failed to end; its supervisor reverts, so that the next one finds its environment free."""
        if self.process.poll() is None:
            self.process.kill()
            self.end()

    def _wait[T](self, look: Callable[[], T | None], what: str) -> T:
        def found_or_ended() -> T | Exception | None:
            ended = self.process.poll() is not None
            found = look()
            return found if found is not None or not ended else AssertionError(f"the run ended without {what}: {self.said}")

        found = eventually(found_or_ended, what, within=LIMIT)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value] # what is not an exception is a T


@dataclass(frozen=True)
class Over:
    """A run that is over."""

    place: Place
    environment: str
    code: int
    """Exit code of the command; negative where a signal ended it."""
    said: str = field(repr=False)
    folder: Path | None
    """None where no run was ever planned."""

    @cached_property
    def events(self) -> list[Event]:
        """What the run told."""
        if self.folder is None or not (self.folder / "events.jsonl").exists():
            return []
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    @cached_property
    def record(self) -> RunRecord | None:
        """The journal's row."""
        return None if self.folder is None else self.place.record(self.folder.name)

    @property
    def why(self) -> str:
        """All reasons of the verdict in one text, and what the command printed."""
        return f"{'; '.join(self.record.reasons) if self.record else 'no record'}\n{self.said}"

    @property
    def outcome(self) -> str | None:
        """The verdict."""
        return self.record.outcome if self.record else None

    @property
    def injected(self) -> bool:
        """Whether any fault was ever begun."""
        return any(event["event"] == "fault" and event["state"] not in {"intended", "reverting", "reverted"} for event in self.events)

    @cached_property
    def left_over(self) -> list[str]:
        """What the run has left behind."""
        return [] if self.folder is None else self.place.left_over(self.environment, self.folder)

    def seconds_to_revert(self, since: float) -> float | None:
        """From a moment to the last revert that was observed; None when there was none after it."""
        after = [event["at"] - since for event in self.events if event["event"] == "fault" and event["state"] == "reverted" and event["at"] >= since]
        return max(after) if after else None


class Lanes:
    """Scenarios side by side, on each environment one after the other. A test waits for its own."""

    def __init__(self, *names: str) -> None:
        """Open a lane for each environment."""
        self._pools = {name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in names}

    def submit[T](self, lane: str, scenario: Callable[[], T]) -> "Future[T]":
        """Put a scenario at the end of a lane."""
        return self._pools[lane].submit(scenario)

    @classmethod
    @contextlib.contextmanager
    def open(cls, *names: str) -> "Iterator[Lanes]":
        """Drop what has not begun when nobody waits any more."""
        lanes = cls(*names)
        try:
            yield lanes
        finally:
            for pool in lanes._pools.values():
                pool.shutdown(cancel_futures=True)


def all_ready(lab: RunningLab, environment: str) -> None:
    """Power every node of an environment on, and wait until all are ready."""
    for node in load_inventory(lab.inventory).get(environment).nodes:
        lab.do("power_on", environment, node.name)
        lab.wait_ready(environment, node.name)


def looked_after(started: Started) -> Over:
    """Wait for the end, and look at once for what is left: the next run on this environment is about to begin."""
    over = started.end()
    assert isinstance(over.left_over, list)
    return over


class Estate:
    """The lab with one more name for its robust environment, and a folder for homes."""

    def __init__(self, lab: RunningLab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self._numbers = itertools.count()
        self._places: list[Place] = []
        declared = {entry["name"]: entry for entry in yaml.safe_load(lab.inventory.read_text())["environments"]}
        entry = deepcopy(declared[LONDON])
        entry["name"] = SPARE
        flag = f"{folder}/{{node}}.off"
        state = ["sh", "-c", 'if test -e "$0"; then echo off; else echo on; fi', flag]
        entry["platform"] |= {
            "root": str(folder / "targets"),
            "power": {"driver": "command", "on": ["rm", "-f", flag], "off": ["touch", flag, f"{flag}.once"], "state": state},
        }
        self.spare = folder / "spare.yaml"
        self.spare.write_text(yaml.safe_dump({"environments": [entry, declared[entry["parent"]]]}))

    def prepare(self, environment: str, hold: float = 6.5) -> tuple[Place, Path]:
        """Make a home of its own and write an experiment, for an environment that is at rest."""
        folder = self.folder / f"{environment}-{next(self._numbers)}"
        experiment = write_experiment(folder / "experiment", hypothesis("flow", orders()), node=TARGET[environment], hold=hold)
        self.rest(environment)
        place = Place.new(self.lab, folder, self.spare if environment == SPARE else None)
        self._places.append(place)
        return place, experiment

    def play(self, play: "Play") -> object:
        """Play a scenario, and leave its environment free whatever comes of it."""
        try:
            return play.scenario(self)
        finally:
            for started in [started for place in list(self._places) for started in place.begun if started.environment == play.environment]:
                started.give_up()

    def rest(self, environment: str) -> None:
        """Have every node of an environment powered and ready."""
        if environment != SPARE:
            all_ready(self.lab, environment)

    @property
    def touched(self) -> list[str]:
        """What was ever powered off on the spare environment."""
        return [path.name for path in self.folder.glob("*.once")]

    def begin(self, path: str, environment: str, *, hold: float = 6.5, terminal: bool = False) -> Started:
        """Start a run in a home of its own."""
        place, experiment = self.prepare(environment, hold)
        return place.start(path, experiment, environment, terminal=terminal)


@dataclass(frozen=True)
class Play:
    """What happens on an environment before a test looks at it."""

    environment: str
    scenario: Callable[[Estate], object]

    def __str__(self) -> str:
        if not isinstance(self.scenario, partial):
            return getattr(self.scenario, "__name__", str(self.scenario))
        return "-".join([self.scenario.func.__name__, *(str(word) for word in self.scenario.args if word)])


def plays(environment: str | None, *scenarios: Any) -> pytest.MarkDecorator:
    """Give a test, as `played`, what comes of a scenario; without an environment the scenario says on which it is.

    The scenarios of a module begin together, one after the other on each environment, so that tests wait for each other's windows only once.
    """
    return pytest.mark.parametrize("play", [Play(environment or scenario.environment, scenario) for scenario in scenarios], ids=str)


@contextlib.contextmanager
def playing(request: pytest.FixtureRequest, estate: Estate) -> "Iterator[Mapping[Play, Future[object]]]":
    """Begin the scenarios of all chosen tests of a module."""
    here = [item.callspec.params for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    chosen = dict.fromkeys(params["play"] for params in here if "play" in params)
    with Lanes.open(LONDON, NEWYORK, SPARE) as lanes:
        yield {play: lanes.submit(play.environment, partial(estate.play, play)) for play in chosen}
