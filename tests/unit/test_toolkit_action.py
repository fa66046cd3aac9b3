"""Actions of Chaos Toolkit extensions as faults: real activities in a process of their own, on real files."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from frangible.actions.toolkit_action import ToolkitAction, argument_problems, filled
from frangible.activities import play
from frangible.errors import FaultError, PlatformError, Refused
from frangible.fault import FaultRegistry, Target, fault_parameters
from frangible.platforms import Platform

from ..waiting import eventually

TARGET = Target("service", "app-1/gateway")
PLATFORM = cast("Platform", SimpleNamespace(variables=lambda: {"WHERE": "frankfurt"}))


def program(path: str, *arguments: str, **more: Any) -> dict[str, Any]:
    return {"provider": {"type": "process", "path": path, "arguments": list(arguments)}, **more}


def python(module: str, func: str, **arguments: Any) -> dict[str, Any]:
    return {"provider": {"type": "python", "module": module, "func": func, "arguments": arguments}}


@pytest.fixture
def fault(tmp_path: Path) -> ToolkitAction:
    """A file that is made, seen, and removed."""
    flag = str(tmp_path / "{node}-{service}")
    return ToolkitAction(program("touch", flag), program("test", "-e", flag, tolerance=0), program("rm", "-f", flag))


def test_an_action_is_proven_by_its_probe_and_undone_from_its_lease(fault: ToolkitAction, tmp_path: Path) -> None:
    """Real while the probe is within its tolerance; the fault is built again from what a lease holds."""
    prior = fault.capture(PLATFORM, TARGET)
    assert not fault.observe(PLATFORM, TARGET, prior).real
    fault.inject(PLATFORM, TARGET, prior)
    assert (tmp_path / "app-1-gateway").exists()
    assert fault.observe(PLATFORM, TARGET, prior).real
    assert not fault.observe_reverted(PLATFORM, TARGET, prior).real
    again = FaultRegistry().build("toolkit-action", fault_parameters(fault))
    for _ in range(2):
        again.revert(PLATFORM, TARGET, prior)
        assert again.observe_reverted(PLATFORM, TARGET, prior).real
    assert not (tmp_path / "app-1-gateway").exists()


def test_a_target_that_is_so_already_is_refused(fault: ToolkitAction, tmp_path: Path) -> None:
    """Nothing would be shown, and the revert would undo somebody else's work."""
    (tmp_path / "app-1-gateway").touch()
    with pytest.raises(Refused, match="already as the proof expects"):
        fault.capture(PLATFORM, TARGET)


def test_the_environment_is_reached_by_its_own_variables() -> None:
    """What the platform says is in the environment of the activity's process, and in nobody else's."""
    assert play(python("os", "getenv", key="WHERE"), PLATFORM.variables(), 20.0).value == "frankfurt"
    assert play(python("os", "getenv", key="WHERE"), {}, 20.0).value is None
    assert "WHERE" not in os.environ


def test_an_activity_that_fails_says_why() -> None:
    """The extension's own words, and which activity it was."""
    with pytest.raises(PlatformError, match=r"os\.listdir failed: .*no/such/folder"):
        play(python("os", "listdir", path="no/such/folder"), {}, 20.0)


def naps(seconds: str) -> list[psutil.Process]:
    """Programs that sleep for so long."""
    return [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[-1:] == [seconds]]


def test_an_activity_that_hangs_is_ended_with_its_programs() -> None:
    """The toolkit gives none a deadline."""
    with pytest.raises(PlatformError, match=r"the program sleep has not ended after 0\.5 s"):
        play(program("sleep", "1003.5"), {}, 0.5)
    eventually(lambda: not naps("1003.5"), "the program is gone")
    assert play(python("os", "getcwd"), {}, 20.0).value == str(Path.cwd())


def test_an_activity_does_not_outlive_whoever_asked_for_it() -> None:
    """Else it could take effect after everything was reverted."""
    code = "from frangible.activities import play; play({'provider': {'type': 'process', 'path': 'sleep', 'arguments': ['1004.5']}}, {}, 900)"
    asking = subprocess.Popen([sys.executable, "-c", code])
    try:
        eventually(lambda: naps("1004.5"), "the program runs")
    finally:
        asking.send_signal(signal.SIGKILL)
        asking.wait()
    eventually(lambda: not naps("1004.5"), "the program is gone")


GOOD: Mapping[str, Any] = {"action": program("true"), "proof": program("false", tolerance=0), "service": "gateway", "reverts": "none"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ()),
        ({"reverts": ""}, ("either `revert`",)),
        ({"revert": program("true")}, ("either `revert`",)),
        ({"action": "scale it down"}, ("expected `action` to be a mapping with a `provider`",)),
        ({"action": python("no_such_package", "f")}, ("Chaos Toolkit refuses `action`",)),
        ({"proof": program("false")}, ("Chaos Toolkit refuses `proof`",)),
        ({"action": {"provider": {"type": "http", "url": "http://localhost", "secrets": ["token"]}}}, ("`action` asks for `secrets`",)),
    ],
)  # fmt: skip
def test_what_the_toolkit_could_not_play_is_told_beforehand(change: Mapping[str, Any], said: tuple[str, ...]) -> None:
    """By `frangible validate`, and before anything is injected."""
    found = argument_problems({**GOOD, **change})
    assert len(found) == len(said)
    assert all(part in problem for part, problem in zip(said, found, strict=True))


def test_a_fault_is_not_even_built_from_what_cannot_be_played() -> None:
    with pytest.raises(FaultError, match="refuses `proof`"):
        ToolkitAction(program("true"), program("false"))


def test_the_targets_name_is_filled_in_everywhere() -> None:
    assert filled({"a": ["x-{node}", 1, {"b": "{service}"}], "c": None}, TARGET) == {"a": ["x-app-1", 1, {"b": "gateway"}], "c": None}
