"""What a node loss comes to in a robust and in a fragile environment, on both start paths."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.runs import hypothesis, orders, write_experiment

pytestmark = pytest.mark.lab

ROBUST = ("lab-london", "app-1", "held", 0)
FRAGILE = ("lab-newyork", "exec-1", "deviated", 1)


def command(running_lab, path: str, experiment: Path, environment: str) -> "subprocess.CompletedProcess[str]":
    run = {
        "frangible run": [sys.executable, "-m", "frangible.cli", "run", str(experiment), "--environment", environment],
        "chaos run": [str(Path(sys.executable).with_name("chaos")), "--no-version-check", "--no-log-file", "run", str(experiment)],
    }[path]
    variables = {**os.environ, "FRANGIBLE_HOME": str(running_lab.home.path), "FRANGIBLE_ENVIRONMENT": environment}
    return subprocess.run(run, env=variables, cwd=experiment.parent, capture_output=True, text=True, check=False)


def frangible(running_lab, *words: str) -> str:
    variables = {**os.environ, "FRANGIBLE_HOME": str(running_lab.home.path)}
    return subprocess.run([sys.executable, "-m", "frangible.cli", *words], env=variables, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", ["frangible run", "chaos run"])
@pytest.mark.parametrize(("environment", "node", "outcome", "code"), [ROBUST, FRAGILE], ids=["robust", "fragile"])
def test_a_lost_node_is_judged_the_same_on_both_paths(running_lab, tmp_path, path, environment, node, outcome, code):
    """The exit code is the verdict's, and the journal has windows, proof and fingerprint, whoever started the run."""
    experiment = write_experiment(tmp_path / "experiment", hypothesis("flow", orders()), node=node, hold=6.0)
    running_lab.wait_ready(environment, node)
    done = command(running_lab, path, experiment, environment)
    assert done.returncode == code, done.stdout + done.stderr
    [listed] = json.loads(frangible(running_lab, "journal", "list", "--environment", environment, "--limit", "1", "--json"))
    record = json.loads(frangible(running_lab, "journal", "show", listed["id"], "--json"))
    assert record["outcome"] == outcome
    assert [window["name"] for window in record["windows"]] == ["baseline", "effect", "recovery"]
    assert [(proof["target"], proof["injected"], proof["reverted"], proof["proven_share"]) for proof in record["proofs"]] == [(f"node {node}", True, True, 1.0)]
    assert record["fingerprint"]["kernel.release"] == os.uname().release
    assert "orders" in frangible(running_lab, "explain", listed["id"])
    running_lab.wait_ready(environment, node)
