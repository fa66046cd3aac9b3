"""Runs whose processes are forked from one warm server: the same roles as when they are started directly, and nothing shared that must not be."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from frangible import ahead, forkserver, launch
from frangible.channel import Channel
from frangible.cli.early import asks_for_many_runs
from frangible.forkserver import Forked, ForkServer, fork_server
from frangible.home import Home
from frangible.inventory import Inventory
from frangible.journal import Journal
from frangible.launch import RunHandle

from .conftest import at_home

LIMIT = 100.0
PROBE = """\
title: trivial
description: one probe, no fault
method:
  - type: probe
    name: looked-at
    provider: {PROVIDER}
"""
TRIVIAL = "{type: python, module: platform, func: node}"
SLOW = "{type: process, path: sleep, arguments: '120', timeout: 120}"
A_MOMENT = SLOW.replace("'120'", "'2'")
NAMES = ("one", "two", "three")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own, with an inventory of three environments in the working directory."""
    return at_home(tmp_path, monkeypatch, NAMES)


@pytest.fixture
def server(home: Home) -> Iterator[ForkServer]:
    with fork_server() as server:
        yield server


class Starting:
    """Starts runs by the server, and ends what is left of them."""

    def __init__(self, server: ForkServer, home: Home, inventory: Inventory) -> None:
        self.server, self.home, self.inventory = server, home, inventory
        self.handles: list[RunHandle] = []

    def __call__(self, provider: str = TRIVIAL, environment: str = "one") -> RunHandle:
        Path("experiment.yaml").write_text(PROBE.replace("{PROVIDER}", provider))
        plan = launch.prepare(Path("experiment.yaml"), self.inventory.get(environment), self.inventory, self.home)
        self.handles.append(launch.start_forked(plan, self.server))
        return self.handles[-1]

    def output(self, provider: str) -> object:
        """Run a probe and return what it gave, by the journal."""
        handle = self(provider)
        assert verdict(handle) == "inconclusive"
        with contextlib.closing(Journal.open(self.home.journal_url)) as journal:
            kept = journal.get(handle.run_id).chaos_journal
        assert isinstance(kept, dict)
        return kept["run"][0]["output"]  # type: ignore[index,call-overload]


@pytest.fixture
def start(server: ForkServer, home: Home, inventory: Inventory) -> Iterator[Starting]:
    starting = Starting(server, home, inventory)
    yield starting
    for handle in starting.handles:
        handle.channel.close()
        handle.supervisor.wait()
    until(lambda: not of(home.path), "a process is left")


def of(folder: Path, module: str = "") -> list[psutil.Process]:
    """Return the live processes that name a folder, or something inside it, in their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in words) and (not module or module in words):
                found.append(process)
    return found


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def verdict(handle: RunHandle) -> str:
    """Follow a run to its end."""
    with contextlib.closing(handle.channel):
        return [event["outcome"] for event in handle.events() if event["event"] == "verdict"][-1]


def admitted(handle: RunHandle) -> None:
    """Wait until the run has begun."""
    next(event for event in handle.events() if event["event"] == "started")


def roles(handle: RunHandle) -> tuple[psutil.Process, psutil.Process]:
    """Return supervisor and chaoslib process of a run in progress, found as `ps` shows them."""
    folder = handle.plan.folder
    return of(folder, "frangible.supervisor")[0], of(folder, "frangible.runner")[0]


def sockets(process: psutil.Process) -> set[str]:
    """Return the sockets that a process holds."""
    links = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(entry.readlink()))
    return {link for link in links if link.startswith("socket:")}


def test_a_run_is_the_same_as_one_that_is_started_directly(start: Starting) -> None:
    handle = start()
    assert isinstance(handle.supervisor, Forked)
    assert verdict(handle) == "inconclusive"
    assert handle.supervisor.returncode == 3, "the exit code comes through the server"
    assert (handle.plan.folder / "supervisor.log").read_text() == ""
    assert (handle.plan.folder / "chaos.log").exists()


def test_roles_sessions_and_names_are_those_of_processes_that_are_started_directly(start: Starting, server: ForkServer) -> None:
    handle = start(SLOW)
    admitted(handle)
    supervisor, runner = roles(handle)
    assert supervisor.pid == handle.supervisor.pid
    assert runner.ppid() == supervisor.pid, "the supervisor can kill it and wait for it"
    assert supervisor.ppid() == server.process.pid
    assert os.getsid(supervisor.pid) == supervisor.pid == os.getsid(runner.pid)
    assert os.getsid(server.process.pid) == server.process.pid != os.getsid(0), "Ctrl-C on a terminal reaches neither"


def test_no_process_holds_an_end_of_another_runs_channel(start: Starting, server: ForkServer) -> None:
    """Else the end of the stream would never come: the dead-man's switch."""
    handles = [start(SLOW, name) for name in NAMES]
    for handle in handles:
        admitted(handle)
    held = [sockets(process) for handle in handles for process in roles(handle)]
    held.append(sockets(psutil.Process(server.process.pid)))
    assert all(held)
    for number, one in enumerate(held):
        for other in held[number + 1 :]:
            assert one.isdisjoint(other)
    assert sorted(map(len, held)) == [1, 1, 1, 2, 2, 2, 4], "one channel between the two, one to the starter; the server: who asks, and three to tell"
    assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) == 1, "who forks has one thread"


def test_the_end_of_a_supervisor_is_seen_by_its_chaoslib_process_although_later_runs_live(start: Starting) -> None:
    first, second = start(A_MOMENT, "one"), start(SLOW, "two")
    admitted(first)
    admitted(second)
    supervisor, runner = roles(first)
    supervisor.kill()
    until(lambda: not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE, "the chaoslib process did not notice")
    assert first.supervisor.wait() == -signal.SIGKILL
    assert len(of(second.plan.folder)) == 2, "the other run goes on"


def test_the_end_of_a_chaoslib_process_is_seen_by_its_supervisor_although_later_runs_live(start: Starting) -> None:
    first, second = start(SLOW, "one"), start(SLOW, "two")
    admitted(first)
    admitted(second)
    roles(first)[1].kill()
    reasons = next(event["reasons"] for event in first.events() if event["event"] == "verdict")
    assert any("the chaoslib process died" in reason for reason in reasons)
    assert len(of(second.plan.folder)) == 2


def test_kill_9_of_the_command_ends_the_server_and_all_runs_safely(home: Home) -> None:
    """Nobody is told, everybody notices: both runs are journalled, and no process is left."""
    Path("slow.yaml").write_text(PROBE.replace("{PROVIDER}", SLOW))
    words = [sys.executable, "-m", "frangible.cli", "run", "slow.yaml", "-e", "one", "-e", "two", "--at-most", "2", "--quiet"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as command:
        until(lambda: len(of(home.path, "frangible.runner")) == 2 and len(begun(home)) == 2, "two runs in progress")
        server = next(process for process in psutil.Process(command.pid).children() if "frangible.warm" in process.cmdline())
        command.kill()
    until(lambda: not of(home.path), "a process is left")
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "the server is left")
    with contextlib.closing(Journal.open(home.journal_url)) as journal:
        records = journal.runs()
    assert [(one.state, one.ending) for one in records] == [("finished", "aborted-by-operator")] * 2


def begun(home: Home) -> list[Path]:
    """Return the runs that were admitted."""
    return [events for events in home.runs.glob("*/events.jsonl") if '"started"' in events.read_text()]


def test_without_the_server_runs_go_on_and_the_next_one_starts_directly(start: Starting, server: ForkServer) -> None:
    handle = start(A_MOMENT)
    admitted(handle)
    server.process.kill()
    server.process.wait()
    assert verdict(handle) == "inconclusive"
    assert handle.supervisor.wait() is None, "nobody can tell its exit code"
    later = start(environment="two")
    assert isinstance(later.supervisor, subprocess.Popen)
    assert verdict(later) == "inconclusive"


def test_a_server_that_hangs_is_not_waited_for_and_what_it_forks_too_late_leaves_no_trace(
    start: Starting, server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver, "PATIENCE", 0.2)
    os.kill(server.process.pid, signal.SIGSTOP)
    handle = start()
    assert isinstance(handle.supervisor, subprocess.Popen)
    os.kill(server.process.pid, signal.SIGCONT)
    assert verdict(handle) == "inconclusive"
    until(lambda: not psutil.Process(server.process.pid).children(recursive=True), "what was forked too late is still there")


def test_a_process_that_is_not_told_to_begin_ends_without_a_trace(server: ForkServer, home: Home) -> None:
    ours, theirs = Channel.pair()
    forked = server.fork(home.runs / "never", theirs)
    theirs.close_here()
    assert forked is not None
    ours.close()
    assert forked.wait() == 0
    assert not home.path.exists()


def test_numerics_are_imported_before_the_fork_and_with_one_thread(start: Starting, server: ForkServer) -> None:
    server.imports(ahead.JUDGING)
    handle = start(A_MOMENT)
    admitted(handle)
    for process in (psutil.Process(server.process.pid), *roles(handle)):
        assert "/scipy/" in Path(f"/proc/{process.pid}/maps").read_text()
    assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) == 1, "who forks has one thread"
    assert verdict(handle) == "inconclusive"


def test_what_cannot_be_imported_does_not_end_the_server(start: Starting, server: ForkServer) -> None:
    server.imports(["no.such.module"])
    handle = start()
    assert isinstance(handle.supervisor, Forked)
    assert verdict(handle) == "inconclusive"


def test_variables_are_those_of_whoever_starts_the_run(start: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN_BY_PROBES", "set after the server was started")
    assert start.output("{type: python, module: os, func: getenv, arguments: {key: SEEN_BY_PROBES}}") == "set after the server was started"
    monkeypatch.delenv("SEEN_BY_PROBES")
    assert start.output("{type: python, module: os, func: getenv, arguments: {key: SEEN_BY_PROBES}}") is None


@pytest.mark.parametrize("provider", ["{type: python, module: random, func: random}", "{type: python, module: uuid, func: uuid4}"])
def test_chance_is_not_shared(start: Starting, provider: str) -> None:
    first, second = start.output(provider), start.output(provider)
    assert first
    assert first != second


def test_where_modules_are_looked_for_is_the_working_directory_of_the_command(start: Starting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_probe.py").write_text("def look() -> str:\n    return 'mine'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert start.output("{type: python, module: own_probe, func: look}") == "mine"


@pytest.mark.parametrize(
    ("line", "many"),
    [
        ("run x -e a -e b", True),
        ("run x -e a --environment=b", True),
        ("run x -e a --repeat 2", True),
        ("run x --select=b", True),
        ("run x -e a", False),
        ("run x", False),
        ("run x --select b --dry-run", False),
        ("run x --select b --help", False),
        ("gate --select b", False),
        ("", False),
    ],
)
def test_a_command_line_that_plainly_asks_for_many_runs(line: str, many: bool) -> None:
    assert asks_for_many_runs(line.split()) is many


def test_a_command_that_cannot_run_leaves_no_server(home: Home) -> None:
    Path("bad.yaml").write_text(PROBE.replace("{PROVIDER}", "{type: python, module: nowhere.at.all, func: node}"))
    command = [sys.executable, "-m", "frangible.cli", "run", "bad.yaml", "-e", "one", "-e", "two"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, env={**os.environ, "MARK": str(home.path)})
    assert done.returncode == 2, done.stderr
    assert "nowhere.at.all" in done.stderr
    assert not [process for process in psutil.process_iter() if "frangible.warm" in _words(process) and _variable(process, "MARK") == str(home.path)]
    assert not home.path.exists()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None
