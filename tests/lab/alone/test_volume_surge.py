"""Volume surge through the real rack: seen in Prometheus, reverted twice, recovered after everything was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from frangible.actions.volume_surge import VolumeSurge
from frangible.experiment import shipped_experiments
from frangible.fault import Target
from frangible.inventory import load_inventory
from frangible.platforms import open_platform

from ...waiting import eventually
from ..conftest import RunningLab

LONDON = "lab-london"
LOAD = Target("load", LONDON)
FRANGIBLE = str(Path(sys.executable).with_name("frangible"))


def test_a_surge_doubles_what_the_generator_offers_and_reverting_twice_restores_it(running_lab: RunningLab) -> None:
    """The generator's own gauge, scraped by Prometheus, follows the surge and its revert."""
    platform, fault = open_platform(load_inventory(running_lab.inventory).get(LONDON)), VolumeSurge()
    prior = fault.capture(platform, LOAD)
    fault.inject(platform, LOAD, prior)
    try:
        assert fault.observe(platform, LOAD, prior).real
        eventually(lambda: offered(running_lab) == 80, "the generator offers 80 a second")
    finally:
        fault.revert(platform, LOAD, prior)
    fault.revert(platform, LOAD, prior)
    assert fault.observe_reverted(platform, LOAD, prior).real
    eventually(lambda: offered(running_lab) == 40, "the generator offers 40 a second again")


def offered(lab: RunningLab) -> float:
    return sum(lab.query(f'generator_rate{{environment="{LONDON}"}}').values())


def test_after_everything_was_killed_recover_restores_the_load(running_lab: RunningLab, tmp_path: Path) -> None:
    """The lease is enough: command, supervisor and chaoslib process are gone, and `frangible recover` sets the rate that was recorded."""
    experiment = yaml.safe_load((shipped_experiments() / "volume-surge.yaml").read_text())
    experiment["method"][0]["provider"]["arguments"] = {"factor": 1.25, "hold": 100.0}
    file = tmp_path / "long.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    platform = open_platform(load_inventory(running_lab.inventory).get(LONDON))
    environment = {**os.environ, "FRANGIBLE_HOME": str(running_lab.home.path)}
    more = ["--inventory", str(running_lab.inventory)]
    with subprocess.Popen([FRANGIBLE, "run", str(file), "--environment", LONDON, *more], env=environment, stdout=subprocess.PIPE, text=True) as command:
        eventually(lambda: platform.load().rate == 50, "the surge is offered", within=120.0)
        doomed = [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]
        for process in doomed:
            process.send_signal(signal.SIGSTOP)  # so that none of them notices what becomes of the others
        for process in doomed:
            process.kill()
    assert platform.load().rate == 50
    done = subprocess.run([FRANGIBLE, "recover", *more], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert platform.load().rate == 40
