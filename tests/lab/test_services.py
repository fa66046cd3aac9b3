"""Faults on services of the lab: made through the real rack, seen in /proc, reverted, also by somebody else."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frangible.actions.middleware_restart import MiddlewareRestart
from frangible.actions.process_pause import ProcessPause
from frangible.errors import LabError, PlatformError, Refused
from frangible.fault import Target
from frangible.inventory import load_inventory
from frangible.lab.client import ask
from frangible.platforms import Platform, ServiceState, open_platform
from frangible.process import ProcessIdentity, host_processes

from ..waiting import eventually
from .conftest import RunningLab

LONDON = "lab-london"
PLACES = [("core-1", "nats"), ("core-1", "postgres"), ("app-1", "execution")]


@pytest.fixture
def platform(running_lab: RunningLab) -> Iterator[Platform]:
    """London's platform; all that was stopped or paused there is mended afterwards."""
    platform = open_platform(load_inventory(running_lab.inventory).get(LONDON))
    yield platform
    for node, service in PLACES:
        with contextlib.suppress(PlatformError):
            platform.resume_service(node, service, (), ())
        platform.start_service(node, service)
    for node in ("core-1", "app-1"):
        running_lab.wait_ready(LONDON, node)


def letters(state: ServiceState) -> set[str]:
    """The state letters that the kernel has for a service's processes; X where one is gone."""
    found = set()
    for process in host_processes(state.processes):
        try:
            found.add(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            found.add("X")
    return found


def ready(platform: Platform, node: str, service: str) -> Callable[[], ServiceState | None]:
    def look() -> ServiceState | None:
        state = platform.service(node, service)
        return state if state.ready else None

    return look


@pytest.mark.parametrize(("node", "service"), PLACES)
@pytest.mark.parametrize("grace", [0.0, 8.0], ids=["hard", "graceful"])
def test_a_stopped_service_stays_stopped_until_it_is_started(platform: Platform, node: str, service: str, grace: float) -> None:
    """The node's supervisord, which restarts what dies, leaves it down; PostgreSQL's children are gone too; the time to ready is measured."""
    before = eventually(ready(platform, node, service), f"{service} ready")
    assert host_processes(platform.service(node, service).processes)[0].is_alive()
    for _ in range(2):
        platform.stop_service(node, service, grace)
        assert platform.processes_gone(before.processes)
    down = platform.service(node, service)
    assert (down.running, down.ready, down.instance, down.processes) == (False, False, "", ())
    assert platform.node(node).powered
    for _ in range(2):
        platform.start_service(node, service)
    after = eventually(ready(platform, node, service), f"{service} ready again")
    assert after.instance != before.instance
    measured = eventually(lambda: platform.service(node, service).ready_after, "time to ready")
    assert 0 < measured < 60


@pytest.mark.parametrize(("node", "service"), PLACES)
def test_a_pause_stops_every_process_and_its_revert_lets_them_go_on(platform: Platform, node: str, service: str) -> None:
    """The kernel says T of each of its processes, the proof agrees, and after one revert or two nothing is stopped."""
    fault, target = ProcessPause(), Target("service", f"{node}/{service}")
    eventually(ready(platform, node, service), f"{service} ready")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    paused = platform.service(node, service)
    assert letters(paused) == {"T"}
    assert fault.observe(platform, target, prior).real
    assert not paused.ready
    for _ in range(2):
        fault.revert(platform, target, prior)
        assert fault.observe_reverted(platform, target, prior).real
        assert "T" not in letters(platform.service(node, service))
    assert platform.service(node, service).instance == prior["instance"]


def test_what_was_stopped_before_stays_stopped(platform: Platform) -> None:
    """A process that somebody else had stopped is not let go by our revert."""
    fault, target = ProcessPause(), Target("service", "core-1/postgres")
    state = eventually(ready(platform, "core-1", "postgres"), "postgres ready")
    theirs = host_processes(state.processes)[-1]
    ask_kill(theirs, "STOP")
    eventually(lambda: theirs in platform.service("core-1", "postgres").stopped, "stopped by another hand")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    assert fault.observe(platform, target, prior).real
    fault.revert(platform, target, prior)
    assert platform.service("core-1", "postgres").stopped == (theirs,)
    assert fault.observe_reverted(platform, target, prior).real
    ask_kill(theirs, "CONT")


def test_a_pause_that_the_supervisor_healed_is_not_proven(platform: Platform) -> None:
    """supervisord starts a killed service anew, and the new one is not paused."""
    fault, target = ProcessPause(), Target("service", "app-1/execution")
    eventually(ready(platform, "app-1", "execution"), "execution ready")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    ask_kill(host_processes(platform.service("app-1", "execution").processes)[0], "KILL")
    eventually(lambda: platform.service("app-1", "execution").instance not in {"", prior["instance"]}, "a new execution")
    seen = fault.observe(platform, target, prior)
    assert (seen.real, "started anew" in seen.detail) == (False, True)
    fault.revert(platform, target, prior)
    assert fault.observe_reverted(platform, target, prior).real


@pytest.mark.parametrize("graceful", [True, False], ids=["graceful", "hard"])
@pytest.mark.parametrize(("node", "service"), PLACES)
def test_a_restart_brings_a_new_instance_and_tells_its_time_to_ready(platform: Platform, node: str, service: str, graceful: bool) -> None:
    """The old processes are gone from /proc, the proof stays true, two reverts leave the new instance alone, and the time to ready is told."""
    fault, target = MiddlewareRestart(graceful=graceful), Target("service", f"{node}/{service}")
    before = eventually(ready(platform, node, service), f"{service} ready")
    prior = fault.capture(platform, target)
    assert not fault.observe(platform, target, prior).real
    fault.inject(platform, target, prior)
    assert letters(before) == {"X"}
    assert fault.observe(platform, target, prior).real
    measured = eventually(lambda: fault.observe(platform, target, prior).measured, "time to ready")
    instance = platform.service(node, service).instance
    for _ in range(2):
        fault.revert(platform, target, prior)
        assert fault.observe_reverted(platform, target, prior).real
    assert platform.service(node, service).instance == instance
    assert f"ready {measured:.2f} s after the stop" in fault.observe(platform, target, prior).detail


def test_what_is_down_is_refused(platform: Platform) -> None:
    """A service that was down before is no target: nothing would be shown, and the revert would start what somebody had stopped."""
    platform.stop_service("app-1", "execution", 0.0)
    with pytest.raises(Refused, match="does not run"):
        ProcessPause().capture(platform, Target("service", "app-1/execution"))
    with pytest.raises(Refused, match="does not run"):
        MiddlewareRestart().capture(platform, Target("service", "app-1/execution"))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"do": "service", "service": "risc"}, "no service 'risc' on lab-london/app-1; there are gateway, risk, execution"),
        ({"do": "service_stop", "service": "risk", "grace": -1}, "expected a grace from 0"),
        ({"do": "service_resume", "service": "risk", "leave": [7]}, 'expected "leave"'),
    ],
    ids=["service", "grace", "processes"],
)
def test_the_rack_refuses_what_it_does_not_know_of_services(running_lab: RunningLab, request_: dict[str, object], said: str) -> None:
    """A request that cannot be done changes nothing and is answered with what would be possible."""
    with pytest.raises(LabError, match=said):
        ask(running_lab.state.folder, {"environment": LONDON, "node": "app-1", **request_})


def ask_kill(process: ProcessIdentity, name: str) -> None:
    """Send a signal as an operator would."""
    assert process.is_alive()
    os.kill(process.pid, getattr(signal, f"SIG{name}"))
