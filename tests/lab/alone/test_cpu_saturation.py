"""CPU saturation through the real rack: seen by another tool, reverted twice, dead with its node, recovered after everything was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from frangible.actions.cpu_saturation import CpuSaturation
from frangible.experiment import shipped_experiments
from frangible.fault import Target
from frangible.inventory import load_inventory
from frangible.platforms import Platform, open_platform
from frangible.process import host_processes

from ...waiting import eventually
from ..conftest import RunningLab

LONDON = "lab-london"
NODE = Target("node", "app-2")
FRANGIBLE = str(Path(sys.executable).with_name("frangible"))


def platform_of(lab: RunningLab) -> Platform:
    return open_platform(load_inventory(lab.inventory).get(LONDON))


def test_a_saturated_node_burns_and_reverting_twice_leaves_nothing(running_lab: RunningLab) -> None:
    """99 %, because whatever else runs on the machine of this test can only help to get there."""
    platform, fault = platform_of(running_lab), CpuSaturation(99.0, deadline=120.0)
    prior = fault.capture(platform, NODE)
    fault.inject(platform, NODE, prior)
    eventually(lambda: fault.observe(platform, NODE, prior).measured is not None, "the utilisation is measured")
    processes = [psutil.Process(pid) for pid in platform.burner(NODE.name, str(prior["burner"])).processes]
    burned = sum(process.cpu_times().user for process in processes)
    eventually(lambda: sum(process.cpu_times().user for process in processes) > burned + 0.3, "it burns")
    assert {process.pid for process in processes} <= {process.pid for process in host_processes(platform.node(NODE.name).processes)}
    for _ in range(2):
        fault.revert(platform, NODE, prior)
        assert fault.observe_reverted(platform, NODE, prior).real
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_burner_goes_with_its_node(running_lab: RunningLab) -> None:
    """A node that loses its power loses its burner, and nothing burns on a node that is off."""
    platform, fault = platform_of(running_lab), CpuSaturation(5.0, deadline=120.0)
    prior = fault.capture(platform, NODE)
    platform.start_burner(NODE.name, str(prior["burner"]), 0.05, 120.0)
    eventually(lambda: platform.burners(NODE.name), "the burner lives")
    try:
        platform.power_off(NODE.name)
        assert fault.observe_reverted(platform, NODE, prior).real
        fault.revert(platform, NODE, prior)
    finally:
        platform.power_on(NODE.name)
        running_lab.wait_ready(LONDON, NODE.name)


def test_after_everything_was_killed_recover_ends_the_burner(running_lab: RunningLab, tmp_path: Path) -> None:
    """The lease is enough: command, supervisor and chaoslib process are gone, and `frangible recover` leaves no burner."""
    experiment = yaml.safe_load((shipped_experiments() / "cpu-saturation.yaml").read_text())
    experiment["method"][0]["provider"]["arguments"] |= {"utilisation": 30.0, "hold": 100.0}
    file = tmp_path / "long.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    platform = platform_of(running_lab)
    environment = {**os.environ, "FRANGIBLE_HOME": str(running_lab.home.path)}
    more = ["--inventory", str(running_lab.inventory)]
    with subprocess.Popen([FRANGIBLE, "run", str(file), "--environment", LONDON, *more], env=environment, stdout=subprocess.PIPE, text=True) as command:
        eventually(lambda: platform.burners("app-1") + platform.burners("app-2"), "a burner lives", within=120.0)
        doomed = [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]
        for process in doomed:
            process.send_signal(signal.SIGSTOP)  # so that none of them notices what becomes of the others
        for process in doomed:
            process.kill()
    assert platform.burners("app-1") + platform.burners("app-2")
    done = subprocess.run([FRANGIBLE, "recover", *more], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert platform.burners("app-1") + platform.burners("app-2") == ()
