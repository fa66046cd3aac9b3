"""The command driver of services, on real processes that real commands start, stop and pause."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frangible.actions.middleware_restart import MiddlewareRestart
from frangible.actions.process_pause import ProcessPause
from frangible.errors import FaultError, PlatformError, Refused
from frangible.fault import Target
from frangible.inventory import Environment
from frangible.platforms import open_platform
from frangible.platforms.services import CommandServices
from frangible.validation import primitives_of

pytestmark = pytest.mark.once

CONTROL = """
import os, signal, subprocess, sys, time
from pathlib import Path

folder, verb, node, service = Path(sys.argv[1]), *sys.argv[2:5]
file = folder / f"{node}.{service}.pid"


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


pid = int(file.read_text()) if file.exists() else 0
there = pid and state(pid) not in "XZ"
if verb == "start":
    if there:
        sys.exit("it runs already")
    ignoring = "trap '' TERM; " if service == "stubborn" else ""
    started = subprocess.Popen(["sh", "-c", f"{ignoring}while :; do read x < {folder}/never; done"], start_new_session=True)
    file.write_text(str(started.pid))
elif verb == "state":
    print("stopped" if not there else f"{'paused' if state(pid) == 'T' else 'active'}\\n{pid}")
else:
    if not there:
        sys.exit("it does not run")
    os.kill(pid, getattr(signal, {"stop": "SIGTERM", "kill": "SIGKILL", "pause": "SIGSTOP", "resume": "SIGCONT"}[verb]))
    while verb in ("pause", "kill") and state(pid) not in "TXZ":
        time.sleep(0.005)
"""
"""What an init system does, in small: `control.py FOLDER VERB NODE SERVICE`."""

VERBS = ("start", "stop", "kill", "state", "pause", "resume")
type Declare = Callable[..., Environment]


@pytest.fixture
def declare(tmp_path: Path) -> Iterator[Declare]:
    """An environment whose services are real shells behind real commands; all are killed afterwards."""
    os.mkfifo(tmp_path / "never")
    (tmp_path / "control.py").write_text(CONTROL)

    def build(**commands: list[str]) -> Environment:
        listed = {verb: [sys.executable, str(tmp_path / "control.py"), str(tmp_path), verb, "{node}", "{service}"] for verb in VERBS} | commands
        services = {"driver": "command", **{verb: command for verb, command in listed.items() if command}}
        platform = {"kind": "hosts", "root": str(tmp_path / "root"), "locks": str(tmp_path / "locks"), "services": services}
        entry = {"name": "nyc-1", "region": "nyc", "tier": "staging", "owner": {"team": "equities"}, "platform": platform, "nodes": [{"name": "app-1"}]}
        return Environment.model_validate(entry, strict=False)

    yield build
    for file in tmp_path.glob("*.pid"):
        subprocess.run(["kill", "-KILL", "--", f"-{file.read_text()}"], check=False, capture_output=True)


def status(tmp_path: Path, service: str) -> str:
    """The state letter of a service's process, from the kernel."""
    try:
        return Path(f"/proc/{(tmp_path / f'app-1.{service}.pid').read_text()}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def test_a_service_is_started_stopped_and_killed_by_the_users_commands(declare: Declare, tmp_path: Path) -> None:
    """Each request happens in the process table, and asking twice changes nothing."""
    platform = open_platform(declare())
    platform.start_service("app-1", "risk")
    first = platform.service("app-1", "risk")
    assert (first.running, first.ready, first.paused) == (True, True, False)
    assert first.instance == (tmp_path / "app-1.risk.pid").read_text()
    platform.start_service("app-1", "risk")
    assert platform.service("app-1", "risk").instance == first.instance
    for _ in range(2):
        platform.stop_service("app-1", "risk", 5.0)
        assert status(tmp_path, "risk") in "XZ"
    down = platform.service("app-1", "risk")
    assert (down.running, down.instance, down.ready_after) == (False, "", None)
    platform.start_service("app-1", "risk")
    again = platform.service("app-1", "risk")
    assert again.instance != first.instance
    assert again.ready_after is not None
    assert platform.service("app-1", "risk").ready_after == again.ready_after
    for _ in range(2):
        platform.stop_service("app-1", "risk", 0.0)
        assert status(tmp_path, "risk") in "XZ"


def test_what_does_not_stop_within_its_grace_is_killed(declare: Declare, tmp_path: Path) -> None:
    """A service that ignores SIGTERM is gone all the same when `stop_service` returns."""
    platform = open_platform(declare())
    platform.start_service("app-1", "stubborn")
    assert status(tmp_path, "stubborn") not in "XZ"
    platform.stop_service("app-1", "stubborn", 0.3)
    assert status(tmp_path, "stubborn") in "XZ"


def test_a_pause_is_injected_seen_and_reverted(declare: Declare, tmp_path: Path) -> None:
    """The fault stops the real process, its proof follows what the kernel says, and its revert may come twice."""
    platform, fault, target = open_platform(declare()), ProcessPause(), Target("service", "app-1/risk")
    platform.start_service("app-1", "risk")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    assert status(tmp_path, "risk") == "T"
    assert fault.observe(platform, target, prior).real
    assert not fault.observe_reverted(platform, target, prior).real
    with pytest.raises(Refused, match="paused already"):
        fault.capture(platform, target)
    os.kill(int(prior["instance"]), signal.SIGCONT)  # type: ignore[arg-type]
    assert not fault.observe(platform, target, prior).real
    fault.inject(platform, target, prior)
    for _ in range(2):
        fault.revert(platform, target, prior)
        assert fault.observe_reverted(platform, target, prior).real
        assert status(tmp_path, "risk") != "T"


def test_a_pause_of_what_was_started_anew_is_not_proven(declare: Declare) -> None:
    """A supervisor that replaces the paused process has healed the fault."""
    platform, fault, target = open_platform(declare()), ProcessPause(), Target("service", "app-1/risk")
    with pytest.raises(Refused, match="does not run"):
        fault.capture(platform, target)
    platform.start_service("app-1", "risk")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    platform.stop_service("app-1", "risk", 0.0)
    assert "does not run" in fault.observe(platform, target, prior).detail
    platform.start_service("app-1", "risk")
    platform.pause_service("app-1", "risk", 60.0)
    seen = fault.observe(platform, target, prior)
    assert (seen.real, "started anew" in seen.detail) == (False, True)


@pytest.mark.parametrize(
    ("commands", "primitives"),
    [({}, {"services", "pause"}), ({"pause": [], "resume": []}, {"services"})],
    ids=["all", "no-pause"],
)
def test_the_inventory_tells_which_primitives_there_are(declare: Declare, commands: dict[str, list[str]], primitives: set[str]) -> None:
    """What validation promises is what the platform has."""
    environment = declare(**commands)
    assert open_platform(environment).primitives == primitives_of(environment) == primitives


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ({"stop": []}, "`stop` for the driver 'command'"),
        ({"pause": []}, "`pause`, `resume`"),
        ({"kill": ["kill-it", "{service}"]}, r"expected `\{node\}` in an argument of `kill`"),
        ({"state": ["ask", "{node}"]}, r"expected `\{service\}` in an argument of `state`"),
    ],
    ids=["no-stop", "half-a-pause", "every-node", "every-service"],
)
def test_commands_that_would_hit_the_wrong_thing_are_refused(declare: Declare, commands: dict[str, list[str]], said: str) -> None:
    """An incomplete or careless declaration is an error of the inventory."""
    with pytest.raises(ValueError, match=said):
        declare(**commands)


@pytest.mark.parametrize(
    ("printed", "running", "ready", "instance"),
    [
        ("active\n4711\n", True, True, "4711"),
        ("activating 12", True, False, "12"),
        ("inactive\n0\n", False, False, ""),
        ("failed", False, False, ""),
        ("running", True, True, ""),
    ],
)
def test_systemds_own_words_are_understood(printed: str, running: bool, ready: bool, instance: str) -> None:
    """`systemctl show --property ActiveState,MainPID --value` needs no wrapper."""
    nothing = ("true", "{node}", "{service}")
    driver = CommandServices("nyc-1", nothing, nothing, nothing, (sys.executable, "-c", f"print({printed!r})", "{node}", "{service}"))
    seen = driver.state("app-1", "risk")
    assert (seen.running, seen.ready, seen.instance) == (running, ready, instance)


@pytest.mark.parametrize("printed", ["", "perhaps", "running 1 2"])
def test_other_words_are_refused_and_shown(printed: str) -> None:
    """A state that nobody understands is never taken for one."""
    nothing = ("true", "{node}", "{service}")
    driver = CommandServices("nyc-1", nothing, nothing, nothing, (sys.executable, "-c", f"print({printed!r})", "{node}", "{service}"))
    with pytest.raises(PlatformError, match="service risk on app-1: command `state`: expected `running`"):
        driver.state("app-1", "risk")


def test_without_a_driver_the_error_says_what_to_declare(declare: Declare) -> None:
    """A missing primitive tells how to get it."""
    environment = declare()
    bare = environment.model_copy(update={"platform": environment.platform.model_copy(update={"services": None})})
    with pytest.raises(PlatformError, match=r"declare `platform\.services`"):
        open_platform(bare).service("app-1", "risk")
    with pytest.raises(PlatformError, match="has no node 'app-9'"):
        open_platform(environment).stop_service("app-9", "risk", 0.0)


@pytest.mark.parametrize("graceful", [True, False])
def test_a_restart_is_proven_by_a_new_instance_and_stays_proven(declare: Declare, graceful: bool) -> None:
    """The same instance is no proof, a stopped service is one, and so is the new instance for ever; the time to ready is measured."""
    platform, target = open_platform(declare()), Target("service", "app-1/risk")
    fault = MiddlewareRestart(graceful=graceful, grace=5.0)
    with pytest.raises(Refused, match="does not run"):
        fault.capture(platform, target)
    platform.start_service("app-1", "risk")
    prior = fault.capture(platform, target)
    assert not fault.observe(platform, target, prior).real
    fault.inject(platform, target, prior)
    first, second = (fault.observe(platform, target, prior) for _ in range(2))
    assert first.real
    assert first == second
    assert first.measured is not None
    assert f"ready {first.measured:.2f} s after the stop" in first.detail


def test_a_restart_that_was_cut_short_is_completed_by_its_revert_once(declare: Declare) -> None:
    """Killed between stop and start, the service is down; each revert leaves the same one instance running."""
    platform, fault, target = open_platform(declare()), MiddlewareRestart(), Target("service", "app-1/risk")
    platform.start_service("app-1", "risk")
    prior = fault.capture(platform, target)
    platform.stop_service("app-1", "risk", 5.0)
    assert fault.observe(platform, target, prior).real
    assert not fault.observe_reverted(platform, target, prior).real
    fault.revert(platform, target, prior)
    instance = platform.service("app-1", "risk").instance
    fault.revert(platform, target, prior)
    assert fault.observe_reverted(platform, target, prior).real
    assert platform.service("app-1", "risk").instance == instance != prior["instance"]


def test_a_restart_that_could_not_be_proven_is_refused(declare: Declare) -> None:
    """A platform that cannot tell instances apart, and a graceful restart without grace, are refused before anything is done."""
    silent = open_platform(declare(state=[sys.executable, "-c", "print('running')", "{node}", "{service}"]))
    with pytest.raises(Refused, match="which instance"):
        MiddlewareRestart().capture(silent, Target("service", "app-1/risk"))
    with pytest.raises(FaultError, match="`grace` of more than 0"):
        MiddlewareRestart(graceful=True, grace=0.0)
