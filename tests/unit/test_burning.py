"""Burners as real processes, and CPU saturation on this very host."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frangible import burner
from frangible.actions.cpu_saturation import CpuSaturation
from frangible.errors import FaultError, PlatformError, Refused
from frangible.fault import Target
from frangible.inventory import Environment
from frangible.platforms import BurnerState
from frangible.platforms.burning import BurnerFolder, HostBurners
from frangible.platforms.hosts import HostsPlatform

from ..waiting import eventually

pytestmark = pytest.mark.once

LONG = 120.0
"""Seconds; ends burners that a failed test left."""


@pytest.fixture
def burners(tmp_path: Path) -> Iterator[HostBurners]:
    driver = HostBurners(lambda node: tmp_path / node)
    yield driver
    for name in driver.running("app-1"):
        driver.stop("app-1", name)


def working(burners: HostBurners, name: str = "cpu-1") -> BurnerState:
    """Wait until a burner has all its processes."""
    wanted = 1 + len(os.sched_getaffinity(0))
    eventually(lambda: len(burners.look("app-1", name).processes) == wanted, "all processes of the burner live")
    return burners.look("app-1", name)


def alive(pids: tuple[int, ...]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_burner_has_a_pinned_process_for_each_cpu(burners: HostBurners) -> None:
    burners.start("app-1", "cpu-1", 0.05, LONG)
    main, *workers = working(burners).processes
    eventually(
        lambda: sorted(map(tuple, map(os.sched_getaffinity, workers))) == [(cpu,) for cpu in sorted(os.sched_getaffinity(main))],
        "each worker on a CPU of its own",
    )


def test_a_burner_ends_by_itself_at_its_deadline(burners: HostBurners) -> None:
    burners.start("app-1", "cpu-1", 0.05, 2.0)
    pids = working(burners).processes
    eventually(lambda: not alive(pids), "every process ended by itself")


def test_workers_die_with_the_main_process(burners: HostBurners) -> None:
    burners.start("app-1", "cpu-1", 0.05, LONG)
    main, *workers = working(burners).processes
    os.kill(main, signal.SIGKILL)
    eventually(lambda: not alive(tuple(workers)), "no worker is left")
    assert not burners.look("app-1", "cpu-1").alive


def test_a_burner_with_a_cpu_less_ends(burners: HostBurners) -> None:
    burners.start("app-1", "cpu-1", 0.05, LONG)
    pids = working(burners).processes
    os.kill(pids[-1], signal.SIGKILL)
    eventually(lambda: not alive(pids), "the rest ended")


def test_a_burner_dies_with_its_parent(tmp_path: Path) -> None:
    folder = BurnerFolder(tmp_path)
    start = "import os, subprocess, sys; subprocess.Popen([*sys.argv[1:], '--parent', str(os.getpid())]).wait()"
    with subprocess.Popen([sys.executable, "-c", start, *folder.command("cpu-1", 0.05, LONG)]) as parent:
        eventually(lambda: folder.look("cpu-1").alive, "the burner lives")
        parent.kill()
    eventually(lambda: not folder.running(), "the burner died with its parent")


def test_stopping_twice_is_stopping_once_and_the_name_is_never_started_again(burners: HostBurners) -> None:
    burners.start("app-1", "cpu-1", 0.05, LONG)
    pids = working(burners).processes
    assert burners.running("app-1") == ("cpu-1",)
    for _ in range(2):
        burners.stop("app-1", "cpu-1")
        assert not alive(pids)
    burners.start("app-1", "cpu-1", 0.05, LONG)
    assert burners.running("app-1") == ()


def test_a_burner_whose_end_was_asked_for_before_it_started_ends_at_once(tmp_path: Path) -> None:
    folder = BurnerFolder(tmp_path)
    command = folder.command("cpu-1", 0.05, LONG)
    folder.stop("cpu-1")
    assert subprocess.run(command, check=False, timeout=30).returncode == 0


def test_it_runs_from_standard_input_where_there_is_only_python(tmp_path: Path) -> None:
    text = Path(burner.__file__).read_text()
    command = [sys.executable, "-I", "-S", "-", "--state", str(tmp_path / "state"), "--utilisation", "0.05", "--seconds", "0.5"]
    done = subprocess.run(command, input=text, text=True, check=False, timeout=30, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"requested": 0.05' in (tmp_path / "state").read_text()


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x"])
def test_a_burner_cannot_be_named_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlatformError, match="cannot name a burner"):
        BurnerFolder(tmp_path).look(name)


# --- the fault --------------------------------------------------------------------------------------------------------

NODE = Target("node", "app-1")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[HostsPlatform]:
    platform = {"kind": "hosts", "root": str(tmp_path / "root"), "locks": str(tmp_path / "locks"), "cpu": {"driver": "host"}}
    found = {"name": "nyc-1", "region": "nyc", "tier": "staging", "owner": {"team": "t"}, "platform": platform, "nodes": [{"name": "app-1"}]}
    hosts = HostsPlatform(Environment.model_validate(found, strict=False))
    yield hosts
    for name in hosts.burners("app-1"):
        hosts.stop_burner("app-1", name)


def test_a_saturated_host_is_seen_by_the_kernel_and_reverted_twice(hosts: HostsPlatform) -> None:
    """99 %, because whatever else runs on the machine of this test can only help to get there."""
    assert hosts.primitives == {"cpu"}
    fault = CpuSaturation(99.0, deadline=LONG)
    prior = fault.capture(hosts, NODE)
    fault.inject(hosts, NODE, prior)
    eventually(lambda: fault.observe(hosts, NODE, prior).measured is not None, "the utilisation is measured")
    processes = hosts.burner("app-1", str(prior["burner"])).processes
    before = sum(_cpu_ticks(pid) for pid in processes)
    eventually(lambda: sum(_cpu_ticks(pid) for pid in processes) > before + 20, "the kernel accounts time to its processes")
    with pytest.raises(Refused, match="saturated already"):
        fault.capture(hosts, NODE)
    for _ in range(2):
        fault.revert(hosts, NODE, prior)
        gone = fault.observe_reverted(hosts, NODE, prior)
        assert gone.real, gone
        assert "on average, asked for 99 %" in gone.detail
    assert not alive(processes)
    assert fault.observe(hosts, NODE, prior).detail == "the burner is gone"


def test_a_node_that_is_not_declared_has_no_burners(hosts: HostsPlatform) -> None:
    with pytest.raises(PlatformError, match="declare the node"):
        hosts.burners("app-9")


@pytest.mark.parametrize(
    ("burner", "real", "said"),
    [
        (BurnerState("b", alive=True, achieved=0.81, duty=0.7), True, "CPUs at 81%, asked for 80 %"),
        (BurnerState("b", alive=True, achieved=0.83, duty=0.7), False, "CPUs at 83%"),
        (BurnerState("b", alive=True, achieved=0.77, duty=1.0), False, "CPUs at 77%"),
        (BurnerState("b", alive=True, achieved=0.80, duty=0.0), False, "adds nothing"),
        (BurnerState("b", alive=True), False, "measured nothing"),
        (BurnerState("b", alive=False, achieved=0.80, duty=0.7), False, "is gone"),
    ],
    ids=["within 2 points", "above", "below", "others do it", "silent", "gone"],
)
def test_what_counts_as_proof(burner: BurnerState, real: bool, said: str) -> None:
    seen = CpuSaturation(80.0)._seen(burner)
    assert (seen.real, said in seen.detail) == (real, True), seen


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.1, float("nan")])
def test_a_utilisation_is_a_percentage(percent: float) -> None:
    with pytest.raises(FaultError, match="at most 100 percent"):
        CpuSaturation(percent)


def _cpu_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
