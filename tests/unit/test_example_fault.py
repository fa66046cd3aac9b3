"""The example package of docs/example-fault: built, installed away from the source, and found by its entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example_fault import EXPERIMENT, installed_variables

pytestmark = pytest.mark.checkout

INVENTORY = """
environments:
  - name: ny-1
    region: newyork
    tier: staging
    owner: {team: env-ny, contact: env-ny@example.invalid}
    labels: {environment: ny-1}
    platform:
      kind: hosts
      root: targets
      locks: locks
      SERVICES
    prometheus: {url: "http://127.0.0.1:1", timeout: 1s, runs-on: outside, scrape-interval: 1s}
    nodes:
      - {name: app-1, roles: [risk]}
      - {name: app-2, roles: [risk]}
    services:
      - {name: risk, role: risk, version: "1", nodes: [app-1, app-2]}
"""
COMMAND = '["true", "{node}", "{service}"]'
SERVICES = f"services: {{driver: command, start: {COMMAND}, stop: {COMMAND}, kill: {COMMAND}, state: {COMMAND}}}"


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which Python finds the installed example."""
    return installed_variables(tmp_path_factory.mktemp("example"))


def command(variables: dict[str, str], folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_the_toolkit_discovers_the_activity_of_the_installed_package(variables, tmp_path):
    """`chaos discover` shows the function with all of its plain-typed parameters."""
    words = ("-m", "chaostoolkit", "--no-version-check", "--no-log-file", "discover", "--no-install", "--discovery-path", "found.json", "our_faults")
    done = command(variables, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    (activity,) = json.loads((tmp_path / "found.json").read_text())["activities"]
    assert (activity["name"], activity["mod"], activity["type"]) == ("stop_services", "our_faults.service_stop", "action")
    assert {argument["name"]: argument["type"] for argument in activity["arguments"]} == {
        "service": "string", "role": "string", "name": "string", "count": "integer", "share": "number", "grace": "number", "hold": "number", "seed": "integer",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("services", "code", "said"),
    [
        pytest.param(SERVICES, 0, "", id="offered"),
        pytest.param("", 2, "the fault service-stop needs services, which the platform of ny-1 does not offer", id="not offered"),
    ],
)
def test_validation_knows_the_fault_and_what_it_needs(variables, tmp_path, services, code, said):
    """The experiment is valid where the platform has the primitive; where it has not, the message names the fault."""
    (tmp_path / "inventory.yaml").write_text(INVENTORY.replace("SERVICES", services))
    done = command(variables, tmp_path, "-m", "frangible.cli", "validate", str(EXPERIMENT), "--environment", "ny-1", "--inventory", "inventory.yaml")
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_without_the_package_its_experiment_is_a_problem_and_not_a_run_without_fault(tmp_path):
    """An experiment whose package is not installed is named as what cannot be imported."""
    done = command(dict(os.environ), tmp_path, "-m", "frangible.cli", "validate", str(EXPERIMENT))
    assert done.returncode == 2
    assert "our_faults.service_stop" in done.stdout + done.stderr


def test_the_registry_builds_the_fault_of_a_lease_again(variables, tmp_path):
    """By its kind and recorded parameters, from the installed copy and not from the checkout."""
    code = "import our_faults; from frangible.fault import FaultRegistry as R; print(R().build('service-stop', {'grace': 2.0}), our_faults.__file__)"
    done = command(variables, tmp_path, "-c", code)
    assert done.stdout.startswith("ServiceStop(grace=2.0) "), done.stderr
    assert "docs" not in Path(done.stdout.split()[-1]).parts


def test_the_pages_show_the_example_as_it_is():
    """docs/faults.md links the package and shows its entry point."""
    page = (EXPERIMENT.parents[2] / "faults.md").read_text()
    assert "(example-fault/README.md)" in page
    assert 'service-stop = "our_faults.service_stop:ServiceStop"' in page
