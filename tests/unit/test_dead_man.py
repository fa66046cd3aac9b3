"""A chaoslib process whose supervisor was killed: it ends at once whatever it is in, and what is not ours to interrupt goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from frangible import admission
from frangible.admission import Link, RunAborted
from frangible.channel import Channel

BIN = Path(sys.executable).parent
LIMIT = 120.0
INVENTORY = """\
environments:
  - name: somewhere
    region: london
    tier: staging
    owner: {team: benchmarks, contact: nobody}
    platform: {kind: hosts, transport: local, root: targets, locks: locks}
"""
PROBES = '''\
"""Somebody else's probes."""

import pathlib
import time


def wait(began):
    pathlib.Path(began).touch()
    time.sleep(600)


def stubborn(began):
    try:
        wait(began)
    except Exception:
        pathlib.Path(began + "-again").touch()
        time.sleep(600)
'''


def until[T](look: Callable[[], T | None], what: str) -> T:
    end = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def of(folder: Path, module: str = "") -> list[psutil.Process]:
    """Live processes that name a folder, or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            named = any(str(folder) in word for word in words) or Path(process.cwd()).is_relative_to(folder)
            if named and process.status() != psutil.STATUS_ZOMBIE and (not module or module in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


def probe(kind: str) -> dict[str, object]:
    """A probe that takes ten minutes."""
    if kind == "a command":
        return {"type": "process", "path": "sh", "arguments": ["-c", "touch began; exec sleep 600"]}
    return {"type": "python", "module": "their_probes", "func": kind, "arguments": {"began": "began"}}


def experiment(kind: str) -> str:
    undo = {"type": "process", "path": "touch", "arguments": "undone"}
    return yaml.safe_dump(
        {
            "title": "slow",
            "description": "A probe that takes long, and somebody else's rollback.",
            "controls": [{"name": "frangible", "provider": {"type": "python", "module": "frangible.control"}}],
            "runtime": {"rollbacks": {"strategy": "always"}},
            "method": [{"type": "probe", "name": "slow", "provider": probe(kind)}],
            "rollbacks": [{"type": "action", "name": "undo", "provider": undo}],
        },
        sort_keys=False,
    )


@pytest.mark.parametrize(("path", "kind"), [("frangible run", "a command"), ("frangible run", "stubborn"), ("chaos run", "wait")])
def test_somebody_elses_long_probe_ends_when_the_supervisor_was_killed(tmp_path: Path, path: str, kind: str) -> None:
    """Interrupted as by SIGTERM, again where the probe has swallowed that: rollbacks are played, and no process is left."""
    (tmp_path / "their_probes.py").write_text(PROBES)
    (tmp_path / "slow.yaml").write_text(experiment(kind))
    (tmp_path / "frangible-inventory.yaml").write_text(INVENTORY)
    command = {
        "frangible run": [str(BIN / "frangible"), "run", "slow.yaml", "--environment", "somewhere"],
        "chaos run": [str(BIN / "chaos"), "--no-version-check", "--no-log-file", "run", "slow.yaml"],
    }[path]
    ours = {"FRANGIBLE_HOME": str(tmp_path / "home"), "FRANGIBLE_ENVIRONMENT": "somewhere", "PYTHONPATH": str(tmp_path)}
    output = tmp_path / "output"
    with output.open("w") as file:
        started = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **ours}, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "began").exists() or started.poll() is not None, "the probe was not begun")
        assert started.poll() is None, output.read_text()
        [supervisor] = of(tmp_path / "home", "frangible.supervisor")
        supervisor.kill()
        until(lambda: not of(tmp_path), "a process is left")
        assert started.wait(LIMIT) != 0
    finally:
        started.kill()
        started.wait()
    assert (tmp_path / "undone").exists()
    assert (tmp_path / "began-again").exists() == (kind == "stubborn")


class Watch(threading.Event):
    """The end of an experiment, and how often the dead-man's switch has looked for it."""

    looks = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.looks += 1
        return super().wait(timeout)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Signals that this process has been sent."""
    monkeypatch.setattr(admission, "UNHEARD", 0.005)
    monkeypatch.setattr(admission, "INTERRUPT_EVERY", 0.005)
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def line(watch: Watch) -> Iterator[tuple[Link, Channel]]:
    """The link of an admitted run, and the supervisor's end of it."""
    ours, theirs = Channel.pair()
    link = Link(ours)
    theirs.send({"type": "ready"})
    link._over = watch
    link.hello()
    yield link, theirs
    link.close()
    theirs.close()


def test_an_action_of_ours_is_not_interrupted(line: tuple[Link, Channel], watch: Watch, interrupted: list[int]) -> None:
    """It looks at `stop`, and reverts; what comes after it is interrupted."""
    link, theirs = line
    with link.at_work():
        theirs.close()
        until(lambda: watch.looks > 9, "the switch does not look")
        assert link.stop.is_set()
        assert interrupted == []
    until(lambda: interrupted, "it was not interrupted")


def test_nothing_of_ours_begins_any_more(line: tuple[Link, Channel], interrupted: list[int]) -> None:
    link, theirs = line
    theirs.close()
    until(link.stop.is_set, "the end was not noticed")
    with pytest.raises(RunAborted, match="supervisor of this run is gone"), link.at_work():
        pytest.fail("an action began")


def test_rollbacks_and_what_comes_after_them_are_not_interrupted(line: tuple[Link, Channel], interrupted: list[int]) -> None:
    link, theirs = line
    [switch] = [thread for thread in threading.enumerate() if thread.name == "supervisor-link"]
    link.method_over()
    theirs.close()
    switch.join(LIMIT)
    assert not switch.is_alive()
    assert interrupted == []
