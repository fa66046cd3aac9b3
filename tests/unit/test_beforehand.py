"""Processes of a run that are started before it is planned: they begin when they are told to, and leave no trace when they are not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from frangible import launch, toolkit
from frangible.beforehand import Beforehand, free_run_id, new_run_id, processes
from frangible.cli.early import asks_for_one_run
from frangible.home import Home
from frangible.inventory import Inventory
from frangible.plan import Plan
from frangible.progress import Event

from .conftest import at_home

BIN = Path(sys.executable).parent
LIMIT = 60.0
TRIVIAL = """\
title: trivial
description: one probe, no fault
method:
  - type: probe
    name: this-machine
    provider: {type: python, module: platform, func: node}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own, with an inventory and a trivial experiment in the working directory."""
    (tmp_path / "trivial.yaml").write_text(TRIVIAL)
    return at_home(tmp_path, monkeypatch, ["somewhere"])


@pytest.fixture
def started(home: Home) -> Iterator[Beforehand]:
    with processes() as beforehand:
        yield beforehand


def of(folder: Path) -> list[psutil.Process]:
    """Return the live processes that name a folder in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def planned(beforehand: Beforehand, home: Home, inventory: Inventory) -> Plan:
    return launch.prepare(Path("trivial.yaml"), inventory.get("somewhere"), inventory, home, beforehand=beforehand)


def told(handle: launch.RunHandle) -> list[Event]:
    """Follow a run to its end."""
    with contextlib.closing(handle.channel):
        return list(handle.events())


def verdict(handle: launch.RunHandle) -> str:
    return [event["outcome"] for event in told(handle) if event["event"] == "verdict"][-1]


def test_they_run_what_is_planned_while_they_import(started: Beforehand, home: Home, inventory: Inventory) -> None:
    plan = planned(started, home, inventory)
    handle = launch.start(plan, started)
    assert (handle.supervisor, plan.run_id) == (started.supervisor, started.run_id)
    assert verdict(handle) == "inconclusive"
    assert handle.supervisor.returncode == 3
    assert (plan.folder / "supervisor.log").exists()
    assert (plan.folder / "chaos.log").exists()


def test_an_abort_right_behind_the_word_to_begin_is_heard(started: Beforehand, home: Home, inventory: Inventory) -> None:
    """Both come in one piece: who waits for the first must not swallow the second."""
    handle = launch.start(planned(started, home, inventory), started)
    handle.abort("at once")
    assert any("at once" in str(event.get("reasons", event.get("message"))) for event in told(handle))


def test_a_run_begins_in_new_processes_where_these_have_died(started: Beforehand, home: Home, inventory: Inventory) -> None:
    plan = planned(started, home, inventory)
    os.killpg(started.supervisor.pid, signal.SIGKILL)
    started.supervisor.wait()
    handle = launch.start(plan, started)
    assert handle.supervisor is not started.supervisor
    assert verdict(handle) == "inconclusive"


def test_a_chaoslib_process_that_died_before_the_run_ends_it(started: Beforehand, home: Home, inventory: Inventory) -> None:
    folder = home.runs / started.run_id
    until(lambda: len(of(folder)) == 2, "the chaoslib process was not started")
    next(process for process in of(folder) if "frangible.runner" in process.cmdline()).kill()
    handle = launch.start(planned(started, home, inventory), started)
    assert any("the chaoslib process died" in str(event.get("reasons")) for event in told(handle))


def test_forgotten_they_are_gone_at_once_and_have_left_nothing(started: Beforehand, home: Home) -> None:
    folder = home.runs / started.run_id
    until(lambda: len(of(folder)) == 2, "the chaoslib process was not started")
    started.forget()
    until(lambda: not of(folder), "a process is left")
    assert not home.path.exists()


@pytest.mark.parametrize("after", ["at once", "when both are there"])
def test_they_end_with_the_command_that_started_them(home: Home, after: str) -> None:
    """`kill -9` of the command, before it has said anything."""
    code = "import time; from frangible.beforehand import processes\nwith processes() as p: print(p.run_id, flush=True); time.sleep(600)"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    folder = home.runs / command.stdout.readline().strip()
    if after != "at once":
        until(lambda: len(of(folder)) == 2, "the chaoslib process was not started")
    command.kill()
    command.communicate()
    until(lambda: not of(folder), "a process is left")
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        pytest.param(TRIVIAL.replace("platform", "no_such_module"), (), "no_such_module", id="an experiment that the toolkit refuses"),
        pytest.param(TRIVIAL, ("--note",), "--note", id="an option without its value"),
        pytest.param(TRIVIAL.replace("method", "metod"), (), "method", id="an experiment without a method"),
    ],
)
def test_a_command_that_cannot_run_says_so_and_leaves_no_folder_and_no_process(home: Home, text: str, arguments: tuple[str, ...], said: str) -> None:
    Path("trivial.yaml").write_text(text)
    command = [str(BIN / "frangible"), "run", "trivial.yaml", "--environment", "somewhere", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not home.path.exists()
    until(lambda: not of(home.path), "a process is left")


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param({"title": "t", "description": "d", "method": []}, id="nothing wrong"),
        pytest.param({"title": "t"}, id="parts missing"),
        pytest.param({"title": "t", "description": "d", "method": [{"type": "probe", "name": "n", "provider": "x"}]}, id="a wrong shape"),
        pytest.param({"title": "t", "description": "d", "method": [{("a", 1): "no key of JSON"}]}, id="what JSON cannot hold"),
    ],
)
def test_the_toolkit_says_the_same_there_as_here(started: Beforehand, experiment: object) -> None:
    assert started.complaints(experiment) == toolkit.complaints(experiment)


def test_modules_are_found_there_where_they_are_found_here(started: Beforehand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "own_probe.py").write_text("def look() -> bool:\n    return True\n")
    probe = {"type": "probe", "name": "n", "provider": {"type": "python", "module": "own_probe", "func": "look"}}
    experiment = {"title": "t", "description": "d", "method": [probe]}
    assert "own_probe" in started.complaints(experiment)[0]
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert started.complaints(experiment) == ()


def test_the_toolkit_is_asked_here_where_nobody_answers(started: Beforehand) -> None:
    os.killpg(started.supervisor.pid, signal.SIGKILL)
    started.supervisor.wait()
    assert started.complaints({"title": "t"}) == toolkit.complaints({"title": "t"})


@pytest.mark.parametrize(
    ("line", "one"),
    [
        ("run x -e a", True),
        ("run x --environment=a --quiet", True),
        ("run --environment a x", True),
        ("run x", False),
        ("run x -e a -e b", False),
        ("run x -e a --environment=b", False),
        ("run x -e a --repeat 2", False),
        ("run x -e a --select b", False),
        ("run x -e a --dry-run", False),
        ("run --help", False),
        ("status -e a", False),
        ("--config c run x -e a", False),
        ("", False),
    ],
)
def test_a_command_line_that_plainly_asks_for_one_run(line: str, one: bool) -> None:
    assert asks_for_one_run(line.split()) is one


def test_run_ids_sort_by_time_and_no_two_runs_have_the_same(tmp_path: Path) -> None:
    for _ in range(50):
        (tmp_path / free_run_id(tmp_path)).mkdir()
    assert len(list(tmp_path.iterdir())) == 50
    assert json.dumps(new_run_id()).isascii()
