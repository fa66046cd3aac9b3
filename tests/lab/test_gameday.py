"""Several runs at once with real faults: Ctrl-C reverts all of them, and a game day's stop rule counts runs that really deviated."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from ..waiting import eventually
from .conftest import RunningLab
from .runs import hypothesis, orders, write_experiment
from .starting import LONDON, NEWYORK, Place, all_ready, processes

pytestmark = pytest.mark.timeout(900)
LIMIT = 400.0


@pytest.fixture
def place(running_lab: RunningLab, tmp_path: Path) -> Place:
    """A home of its own, beside both environments at rest."""
    for environment in (LONDON, NEWYORK):
        all_ready(running_lab, environment)
    return Place.new(running_lab, tmp_path)


def lose_an_execution_node(folder: Path, hold: float) -> Path:
    """An experiment that fits both environments."""
    path = write_experiment(folder / "experiment", hypothesis("flow", orders()))
    document = yaml.safe_load(path.read_text())
    document["method"][0]["provider"]["arguments"] = {"role": "execution", "count": 1, "hold": hold}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def begin(place: Place, *words: str) -> "subprocess.Popen[str]":
    """Start a command in a group of its own, as a shell does."""
    command = [sys.executable, "-m", "frangible.cli", *words]
    return subprocess.Popen(command, env=place.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def runs(place: Place) -> dict[str, Path]:
    """Folders of runs that tell something, by environment."""
    folders = [events.parent for events in place.home.runs.glob("*/events.jsonl")]
    return {json.loads(json.loads((folder / "plan.json").read_text())["environment_json"])["name"]: folder for folder in folders}


def proven(folder: Path) -> bool:
    """Whether the run's fault was seen."""
    return any('"proven"' in line for line in (folder / "events.jsonl").read_text().splitlines())


def ended(folder: Path) -> bool:
    """Whether both processes of a run have gone."""
    return not processes(folder)


def test_ctrl_c_reverts_the_faults_of_all_runs(place, tmp_path):
    """One key, two environments with a node without power: both get it back, nothing is left, and nothing is called held."""
    experiment = lose_an_execution_node(tmp_path, 90.0)
    run = begin(place, "run", str(experiment), "-e", LONDON, "-e", NEWYORK, "--at-most", "2")
    try:
        eventually(lambda: len(runs(place)) == 2 and all(map(proven, runs(place).values())), "both faults in force", within=LIMIT)
        assert [name for name in (LONDON, NEWYORK) if all(on for on, _ in place.nodes(name).values())] == []
        os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=LIMIT)
    finally:
        if run.poll() is None:
            run.kill()
    assert run.returncode in {1, 3}, err
    assert "stopping all runs" in err
    assert "HELD" not in out
    for name, folder in runs(place).items():
        eventually(partial(ended, folder), "the run's processes gone", within=LIMIT)
        assert place.left_over(name, folder) == []
        record = place.record(folder.name)
        assert record is not None
        assert record.ending == "aborted-by-operator", record.reasons
        assert [proof.reverted for proof in record.proofs] == [True]


def test_the_stop_rule_counts_runs_that_deviated_over_all_waves(place, tmp_path):
    """New York deviates in two waves; the third, in London, is not started, and the report says why and who follows it up."""
    experiment = lose_an_execution_node(tmp_path, 12.0)
    wave = {"experiments": [str(experiment)], "environments": [NEWYORK]}
    day = {"title": "Twice", "waves": [wave, wave, {**wave, "environments": [LONDON]}], "limits": {"pause": "8s"}, "stop": {"after-deviated": 2}}
    (tmp_path / "day.yaml").write_text(yaml.safe_dump(day, sort_keys=False))
    done = place.frangible("gameday", "run", str(tmp_path / "day.yaml"), "--report", str(tmp_path / "report.md"), "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert [(one["environment"], one["outcome"]) for one in document["runs"]] == [(NEWYORK, "deviated"), (NEWYORK, "deviated"), (LONDON, "not started")]
    assert document["stopped"] == "the stop rule: 2 runs deviated"
    assert all(check["ok"] for check in document["checks"])
    text = (tmp_path / "report.md").read_text()
    timeline = text.partition("## Timeline")[2].partition("\n## ")[0]
    assert timeline.count(" proven |") == timeline.count(" reverted |") == 2
    assert "## What was stopped, and why\n\nThe stop rule: 2 runs deviated. Not started:\n\n- node-loss on lab-london" in text
    followed = text.partition("## Follow-ups")[2]
    assert followed.count("deviated (") == 2
    for name, folder in runs(place).items():
        assert place.left_over(name, folder) == []
