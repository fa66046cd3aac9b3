"""The folder of somebody's own estate: written by `init`, found from below, and what its names hide."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from frangible import launch
from frangible.cli.group import app
from frangible.errors import InputError, UsageError
from frangible.estate import find_estate, load_estate
from frangible.home import Home
from frangible.hypothesis import shipped_hypotheses
from frangible.inventory import find_inventory


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRANGIBLE_CONFIG", "FRANGIBLE_INVENTORY", "FRANGIBLE_JOURNAL", "FRANGIBLE_LEDGER"):
        monkeypatch.setenv(name, "")  # so that what a command sets is undone too
        monkeypatch.delenv(name)
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def frangible(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    folder = tmp_path / "estate"
    assert frangible("init", str(folder)).exit_code == 0
    return folder


def test_everything_that_init_writes_passes_validate(estate: Path) -> None:
    written = sorted(str(path.relative_to(estate)) for path in estate.rglob("*") if path.is_file())
    assert written == [
        "README.md",
        "experiments/lose-a-gateway.yaml",
        "frangible.yaml",
        "hypotheses/example-orders.yaml",
        "inventory/environments.yaml",
    ]
    result = frangible("validate", str(estate))
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("environment", ["example-parent", "example-child"])
def test_the_starter_experiment_can_run_in_both_example_environments(estate: Path, environment: str) -> None:
    result = frangible("--config", str(estate), "validate", "lose-a-gateway", "--environment", environment)
    assert (result.exit_code, result.stderr) == (0, "")


def test_init_overwrites_nothing_and_then_writes_nothing_at_all(tmp_path: Path) -> None:
    mine = tmp_path / "hypotheses" / "example-orders.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    result = frangible("init")
    assert result.exit_code == UsageError.exit_code
    assert "example-orders.yaml: there already" in str(result.stderr)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"


def test_init_tells_what_it_wrote_as_json(tmp_path: Path) -> None:
    told = json.loads(frangible("init", "new", "--json").stdout)
    assert told["folder"] == str(tmp_path / "new")
    assert all(Path(path).is_file() for path in told["files"])


def test_the_configuration_is_found_from_below_and_the_variable_wins(estate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_estate() is None
    deep = estate / "experiments"
    monkeypatch.chdir(deep)
    found = find_estate()
    assert found is not None
    assert found.folder == estate
    assert find_inventory(None, Home.find()) == estate / "inventory"
    other = tmp_path / "other"
    other.mkdir()
    (other / "inv.yaml").write_text("")
    (other / "frangible.yaml").write_text("inventory: inv.yaml\njournal: runs.db\n")
    for named in (other, other / "frangible.yaml"):
        monkeypatch.setenv("FRANGIBLE_CONFIG", str(named))
        assert find_inventory(None, Home.find()) == other / "inv.yaml"
        assert Home.find().journal_url == f"sqlite:///{other / 'runs.db'}"
        assert Home.find().ledger_url == f"sqlite:///{tmp_path / 'home' / 'ledger.db'}"
    monkeypatch.setenv("FRANGIBLE_JOURNAL", "sqlite:///elsewhere.db")
    assert Home.find().journal_url == "sqlite:///elsewhere.db"
    monkeypatch.setenv("FRANGIBLE_CONFIG", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"FRANGIBLE_CONFIG names .*missing, where there is no frangible\.yaml; `frangible init"):
        find_estate()


def test_the_inventory_that_is_nearer_counts(estate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nearer = estate / "sub"
    nearer.mkdir()
    (nearer / "frangible-inventory.yaml").write_text("")
    monkeypatch.chdir(nearer)
    assert find_inventory(None, Home.find()) == nearer / "frangible-inventory.yaml"


def test_hypotheses_of_the_estate_are_known_wherever_the_experiment_lies(estate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere" / "deep" / "deeper" / "e.yaml"
    assert "example-orders" not in launch.hypotheses_for(elsewhere)
    monkeypatch.chdir(estate)
    assert {"example-orders", "order-flow"} <= launch.hypotheses_for(elsewhere).keys()


def test_a_name_that_hides_a_shipped_one_is_used_and_reported(estate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(estate)
    (estate / "experiments" / "node-loss.yaml").write_text((estate / "experiments" / "lose-a-gateway.yaml").read_text())
    own = (shipped_hypotheses() / "order-flow.yaml").read_text().replace("title: Orders are", "title: Ours are")
    (estate / "hypotheses" / "order-flow.yaml").write_text(own)
    result = frangible("validate", ".", "--json")
    assert result.exit_code == UsageError.exit_code
    problems = json.loads(result.stdout)["problems"]
    assert [(Path(problem["file"]).name, problem["kind"]) for problem in problems] == [
        ("order-flow.yaml", "hides-shipped"),
        ("node-loss.yaml", "hides-shipped"),
    ]
    assert launch.hypotheses_for(None)["order-flow"].title.startswith("Ours are")
    result = frangible("run", "node-loss", "--environment", "example-child", "--dry-run")
    assert "experiment 'node-loss' is your own" in result.stderr
    assert "hypothesis 'order-flow' is your own" in result.stderr
    assert "lose-a-gateway" in result.output or "Orders flow on when a gateway's node is lost" in result.output


def test_every_problem_of_a_configuration_comes_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "frangible.yaml"
    file.write_text("inventory: nowhere\nhypotheses: [nothing]\njournal: postgresql://me:secret@db/frangible\n")
    with pytest.raises(InputError) as caught:
        load_estate(file)
    assert [(problem.line, problem.where) for problem in caught.value.problems] == [(1, "inventory"), (2, "hypotheses[0]"), (3, "journal")]
    assert "secret" not in str(caught.value)
    file.write_text("inventry: x\n")
    with pytest.raises(InputError, match="did you mean `inventory`"):
        load_estate(file)


def test_an_empty_configuration_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "frangible.yaml").write_text("")
    home = Home.find()
    assert home.journal_url == f"sqlite:///{tmp_path / 'home' / 'journal.db'}"
    found = find_estate()
    assert found is not None
    assert found.own_experiments() == {}
    assert os.environ.get("FRANGIBLE_CONFIG") is None
