"""Scores of environments and faults: the numbers, what is unknown, and the command that shows them."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from frangible.cli import completion
from frangible.cli.group import app
from frangible.fragility import Score, counted, faults_of, posterior, scores
from frangible.journal import Journal, RunRecord
from frangible.judge import FaultProof
from frangible.process import ProcessIdentity

INVENTORY = """
environments:
  - name: ny-1
    region: newyork
    tier: staging
    owner: {{team: env-ny, contact: env-ny@example.invalid}}
    platform:
      kind: hosts
      root: {root}/targets
      locks: {root}/locks
      power: {{driver: command, on: ["true", "{{node}}"], off: ["true", "{{node}}"], state: [sh, -c, "echo on", "{{node}}"]}}
    prometheus: {{url: "http://127.0.0.1:1", timeout: 1s, runs-on: outside}}
    nodes: [{{name: app-1, roles: [execution]}}]
  - {{name: ny-2, parent: ny-1}}
  - {{name: ln-1, parent: ny-1, region: london, owner: {{team: env-ln, contact: env-ln@example.invalid}}}}
"""
EMPTY = Score(environment="ny-1", fault="node-loss")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The journal of a home of this test's own, without an inventory."""
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'home' / 'journal.db'}"


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "inventory.yaml"
    path.write_text(INVENTORY.format(root=tmp_path))
    monkeypatch.setenv("FRANGIBLE_INVENTORY", str(path))
    return path


def proof(fault: str, *, injected: bool = True) -> FaultProof:
    return FaultProof(f"lease-{fault}", fault, "node app-1", injected, 1.0, 0.9, True)


def record(number: int, outcome: str, environment: str = "ny-1", fault: str = "node-loss") -> RunRecord:
    return RunRecord(
        id=f"run-{number}",
        experiment=fault,
        experiment_title="Orders flow on",
        experiment_digest="d1",
        environment=environment,
        region="newyork",
        tier="staging",
        owner="env-ny",
        note="",
        ticket="",
        actor="ada@box",
        supervisor=ProcessIdentity("box", "boot", 1, 1),
        started_at=1000.0 + number,
        ended_at=1060.0 + number,
        state="finished",
        outcome=outcome,
        ending="completed",
        keys=(),
        proofs=(proof(fault),),
    )


def keep(url: str, *records: RunRecord) -> None:
    with Journal.open(url) as journal:
        for each in records:
            journal.finish(each)


def call(*arguments: str):
    return CliRunner().invoke(app, ["fragility", *arguments], prog_name="frangible")


def shown(*arguments: str) -> list[tuple[str, str, int, bool]]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [(one["environment"], one["fault"], one["runs"], one["known"]) for one in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("held", "deviated", "mean", "low", "high"),
    [(0, 0, 0.5, 0.0015, 0.9985), (1, 0, 0.75, 0.1468, 0.9993), (10, 0, 0.9545, 0.7829, 0.99996), (8, 2, 0.7727, 0.497, 0.956)],
)
def test_the_interval_is_jeffreys(held, deviated, mean, low, high):
    found = posterior(held, deviated)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, low, high), abs=0.002)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_held_and_deviated_mirror_each_other(held, deviated):
    one, other = posterior(held, deviated), posterior(deviated, held)
    assert (one.mean, one.low, one.high) == pytest.approx((1 - other.mean, 1 - other.high, 1 - other.low), abs=1e-9)
    assert 0 <= one.low < one.high <= 1


def test_each_held_run_raises_the_interval():
    for before, after in pairwise(posterior(held, 3) for held in range(20)):
        assert before.low < after.low
        assert before.high < after.high


@given(st.permutations([("held", "r1", 1.0), ("deviated", "r2", 2.0), ("inconclusive", "r3", 3.0), ("held", "r4", 3.0)]))
def test_runs_may_be_counted_in_any_order(order):
    score = EMPTY
    for outcome, run, at in order:
        score = counted(score, outcome, run, at)
    assert (score.held, score.deviated, score.inconclusive, score.last_run, score.last_outcome) == (2, 1, 1, "r4", "held")
    assert score.holds == posterior(2, 1)


def test_inconclusive_runs_are_no_evidence():
    score = counted(EMPTY, "inconclusive", "r1", 1.0)
    assert (score.runs, score.known, score.holds) == (1, False, posterior(0, 0))


def test_a_run_is_evidence_about_what_it_injected():
    proofs = (proof("surge"), proof("node-loss"), proof("node-loss"), proof("placebo"), proof("pause", injected=False))
    assert faults_of(proofs) == ("node-loss", "surge")


def test_what_was_never_tested_is_there_and_unknown():
    tested = counted(Score(environment="gone", fault="x"), "held", "r1", 1.0)
    found = scores([tested], ["b", "a"], ["node-loss", "placebo"])
    assert [(score.environment, score.fault, score.known) for score in found] == [("a", "node-loss", False), ("b", "node-loss", False), ("gone", "x", True)]


def test_the_journal_alone_is_enough(journal):
    keep(journal, record(1, "held"), record(2, "deviated"))
    result = call()
    assert result.exit_code == 0, result.output
    assert "0.50 (0.06-0.94)" in result.stdout
    assert "run-2" in result.stdout
    assert shown() == [("ny-1", "node-loss", 2, True)]
    assert shown("--environment", "ln-*") == []


def test_an_empty_journal_without_inventory_says_what_to_do(journal):
    assert "frangible run" in call().stdout


def test_environments_of_the_inventory_are_unknown_until_they_are_tested(journal, inventory):
    keep(journal, record(1, "held"), record(2, "inconclusive", "ln-1"), record(3, "held", "gone"))
    assert shown("--fault", "node-loss") == [
        ("gone", "node-loss", 1, True),
        ("ln-1", "node-loss", 1, False),
        ("ny-1", "node-loss", 1, True),
        ("ny-2", "node-loss", 0, False),
    ]
    lines = {line.split()[0]: line.split()[2] for line in call("--fault", "node-loss").stdout.splitlines()[1:]}
    assert (lines["ln-1"], lines["ny-2"]) == ("unknown", "unknown")
    assert all(one["holds"] is None for one in json.loads(call("--json").stdout) if not one["known"])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--region", "newyork"), ["ny-1", "ny-2"]),
        (("--owner", "env-ln"), ["ln-1"]),
        (("-e", "ny-*"), ["ny-1", "ny-2"]),
        (("-e", "ln-1", "-e", "ny-2"), ["ln-1", "ny-2"]),
        (("-e", "gone"), ["gone"]),
        (("-e", "ny-*", "--region", "london"), []),
    ],
)
def test_environments_are_chosen_by_name_region_and_owner(journal, inventory, arguments, names):
    keep(journal, record(1, "held"), record(2, "held", "gone"))
    assert [name for name, *_ in shown("--fault", "node-loss", *arguments)] == names


def test_a_region_needs_an_inventory(journal):
    result = call("--region", "newyork")
    assert result.exit_code == 2
    assert "no inventory" in result.output


def test_an_unknown_fault_is_answered_with_the_nearest(journal):
    result = call("--fault", "node-los")
    assert result.exit_code == 2
    assert "did you mean `node-loss`?" in result.output


def test_the_command_needs_no_numerics(journal, inventory):
    keep(journal, record(1, "held"))
    script = (
        "import sys; from frangible.cli.group import app; app(['fragility'], standalone_mode=False); "
        "print(sorted({'scipy', 'numpy', 'alembic', 'chaoslib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_faults_are_completed():
    assert "node-loss" in completion.faults("node")
