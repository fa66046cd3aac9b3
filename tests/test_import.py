"""The installed package: what it offers to Python and to Chaos Toolkit."""

import importlib.resources
import json
import subprocess
import sys
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest
from chaoslib.experiment import ensure_experiment_is_valid
from chaoslib.loader import load_experiment
from chaoslib.types import Activity

import frangible

HEAVY = {"chaoslib", "numpy", "pydantic", "requests", "rich", "scipy", "sqlalchemy", "typer", "importlib.metadata"}
ACTIVITIES = frangible.discover()["activities"]
EXPERIMENTS = [path for path in importlib.resources.files("frangible.experiments").iterdir() if path.name.endswith((".yaml", ".json"))]


def test_the_bare_import_loads_nothing_heavy() -> None:
    code = "import frangible, json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(json.loads(run.stdout)) == set()


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert frangible.__version__ == version("frangible")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        frangible.nonsense  # type: ignore[attr-defined]  # noqa: B018 - the access is what is tried


def test_discovery_labels_each_activity_by_its_folder() -> None:
    labels = {(activity["mod"].split(".")[1], activity["type"]) for activity in ACTIVITIES}
    assert labels == {("actions", "action"), ("probes", "probe")}


def test_the_toolkit_discovers_every_activity_without_installing(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file", "discover", "--no-install", "--discovery-path", str(found), "frangible"],
        capture_output=True,
        check=True,
    )
    discovery = json.loads(found.read_text())
    assert {activity["name"] for activity in discovery["activities"]} == {activity["name"] for activity in ACTIVITIES}
    assert discovery["extension"] == {"name": "frangible", "version": frangible.__version__}


@pytest.mark.parametrize("activity", ACTIVITIES, ids=lambda activity: activity["name"])
def test_every_argument_of_an_activity_has_a_type_that_the_toolkit_can_show(activity: Activity) -> None:
    assert activity["doc"]
    assert [argument["name"] for argument in activity["arguments"] if argument.get("type") in (None, "object")] == []


def test_experiments_are_shipped() -> None:
    assert EXPERIMENTS


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_shipped_experiment_is_valid_for_the_toolkit(path: Traversable) -> None:
    ensure_experiment_is_valid(load_experiment(str(path)))


@pytest.mark.parametrize(
    ("package", "name"),
    [("frangible", "py.typed"), ("frangible.journal.migrations", "env.py"), ("frangible.hypotheses", ".yaml"), ("frangible.experiments", ".yaml")],
)
def test_files_that_are_read_at_run_time_are_installed(package: str, name: str) -> None:
    assert [path for path in importlib.resources.files(package).iterdir() if path.name.endswith(name)]
