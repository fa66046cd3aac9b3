"""The example package of docs/example-fault on the lab: its experiment, from its own installation, with proof, revert and verdict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from frangible.inventory import load_inventory
from frangible.platforms import open_platform
from tests.example_fault import EXPERIMENT, installed_variables

from .conftest import RunningLab
from .runs import hypothesis, orders
from .starting import LONDON, Place, all_ready

pytestmark = [pytest.mark.checkout, pytest.mark.timeout(400)]


@pytest.fixture
def place(running_lab: RunningLab, tmp_path: Path) -> Place:
    """A home of its own, beside an environment at rest."""
    all_ready(running_lab, LONDON)
    return Place.new(running_lab, tmp_path)


def shortened(folder: Path) -> Path:
    """The example's experiment with short windows and a hypothesis that a busy machine keeps."""
    document = yaml.safe_load(EXPERIMENT.read_text())
    document["extensions"] = [{"name": "frangible", "baseline": "3s", "baseline-limit": "45s", "settle": "300ms"}]
    document["steady-state-hypothesis"]["probes"][0]["provider"]["arguments"]["hypothesis"] = "flow"
    document["method"][0]["provider"]["arguments"]["hold"] = 8.0
    (folder / "hypotheses").mkdir()
    (folder / "hypotheses" / "flow.yaml").write_text(yaml.safe_dump(hypothesis("flow", orders())))
    path = folder / "service-stop.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def test_the_example_fault_is_injected_proven_reverted_and_judged(place: Place, running_lab: RunningLab, tmp_path: Path) -> None:
    """The robust environment goes on with one risk check less; the other's processes are new, and no lease is left open."""
    variables = {**installed_variables(tmp_path / "example"), **place.variables()} | {"PYTHONPATH": str(tmp_path / "example" / "installed")}
    platform = open_platform(load_inventory(running_lab.inventory).get(LONDON))
    before = {node: platform.service(node, "risk").instance for node in ("app-1", "app-2")}
    words = ("run", str(shortened(tmp_path)), "--environment", LONDON, "--json", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "frangible.cli", *words], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    record = json.loads(done.stdout)
    assert (done.returncode, record["outcome"]) == (0, "held"), (record["reasons"], done.stderr)
    (proof,) = record["proofs"]
    assert (proof["fault"], proof["reverted"]) == ("service-stop", True)
    assert proof["proven_share"] >= 0.95
    after = {node: platform.service(node, "risk") for node in before}
    assert all(service.running for service in after.values())
    assert sum(after[node].instance != before[node] for node in before) == 1
    assert place.left_over(LONDON, place.home.runs / record["id"]) == []
