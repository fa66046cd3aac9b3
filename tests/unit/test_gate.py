"""The gate: what is a pass and what never is, the policy's problems, and what a pipeline gets."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from frangible.cli.group import app
from frangible.cli.validate import Kind, kind_of
from frangible.errors import PolicyError
from frangible.gate import Answer, Decision, Evidence, Requirement, decide, overall, strictest
from frangible.journal import Journal, RunRecord
from frangible.judge import IndicatorVerdict, Outcome, WindowName
from frangible.policy import load_policy, requirements
from frangible.process import ProcessIdentity

EXAMPLE = Path(__file__).parents[2] / "ci" / "gate.yaml"
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
  - {{name: ln-1, parent: ny-1, region: london}}
"""
POLICY = "name: release\nrules:\n  - experiments: [node-loss]\n    environments: {names: [ny-1, ln-1]}\n    within: 7d\n"
DAY = 86400.0
NOW = 100 * DAY
WANTED = Requirement("ny-1", "node-loss", 7 * DAY)


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


def record(number: int, outcome: str, environment: str = "ny-1", age: float = 1.0) -> RunRecord:
    """A run that started `age` days ago."""
    at = time.time() - age * DAY
    return RunRecord(
        id=f"run-{number}",
        experiment="node-loss",
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
        started_at=at,
        ended_at=at + 60,
        state="finished",
        outcome=outcome,
        ending="completed",
        reasons=(f"why it is {outcome}\x01",),
        keys=(),
        indicators=(
            IndicatorVerdict("lag", WindowName.EFFECT, Outcome(outcome), "too late", "at most 5", 1.0, 1.0, 1.0, 1.0, 1.0, 9),
            IndicatorVerdict("acknowledged", WindowName.EFFECT, Outcome.HELD, "", "at least 0.99", 1.0, 1.0, 1.0, 1.0, 1.0, 9),
        ),
    )


def keep(url: str, *records: RunRecord) -> None:
    with Journal.open(url) as journal:
        for each in records:
            journal.finish(each)


def call(tmp_path: Path, *arguments: str, policy: str = POLICY):
    path = tmp_path / "policy.yaml"
    path.write_text(policy)
    return CliRunner().invoke(app, ["gate", "--policy", str(path), *arguments], prog_name="frangible")


def history(*outcomes: str, age: float = 1.0) -> list[Evidence]:
    """Runs, newest first, an hour apart."""
    return [Evidence(f"r{number}", outcome, NOW - age * DAY - number * 3600, "why") for number, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("runs", "in_a_row", "answer", "reason"),
    [
        pytest.param([], 1, Answer.UNKNOWN, "never run", id="never run"),
        pytest.param(history("held"), 1, Answer.PASS, "held", id="held"),
        pytest.param(history("held", age=8), 1, Answer.UNKNOWN, "8 d old", id="stale"),
        pytest.param(history("deviated", age=8), 1, Answer.UNKNOWN, "8 d old", id="stale deviation"),
        pytest.param(history("held", age=-1), 1, Answer.UNKNOWN, "from the future", id="from the future"),
        pytest.param(history("deviated", "held"), 1, Answer.FAIL, "deviated: why", id="deviated"),
        pytest.param(history("held", "deviated"), 1, Answer.PASS, "held", id="mended"),
        pytest.param(history("inconclusive", "held"), 1, Answer.UNKNOWN, "inconclusive: why", id="inconclusive"),
        pytest.param(history("inconclusive", "deviated"), 1, Answer.FAIL, "deviated: why", id="an inconclusive run refutes nothing"),
        pytest.param(history("held", "held"), 2, Answer.PASS, "held 2 in a row", id="two in a row"),
        pytest.param(history("held", "deviated"), 2, Answer.UNKNOWN, "held 1 in a row", id="one in a row"),
        pytest.param(history("held", "inconclusive", "held"), 2, Answer.UNKNOWN, "held 1 in a row", id="a row broken"),
        pytest.param([*history("held"), *history("held", age=8)], 2, Answer.UNKNOWN, "held 1 in a row", id="a stale one in the row"),
    ],
)
def test_only_fresh_runs_that_held_are_a_pass(runs, in_a_row, answer, reason):
    decision = decide(replace(WANTED, held_in_a_row=in_a_row), runs, NOW)
    assert decision.answer is answer
    assert reason in decision.reason


@given(st.lists(st.tuples(st.sampled_from(["held", "deviated", "inconclusive"]), st.floats(0, 20)), max_size=8), st.integers(1, 4))
def test_a_pass_has_the_evidence_that_it_needs(found, in_a_row):
    runs = [Evidence(f"r{number}", outcome, NOW - age * DAY) for number, (outcome, age) in enumerate(sorted(found, key=lambda each: each[1]))]
    decision = decide(replace(WANTED, held_in_a_row=in_a_row), runs, NOW)
    needed = runs[:in_a_row]
    passes = len(needed) == in_a_row and all(run.outcome == "held" and NOW - run.started_at <= WANTED.within for run in needed)
    assert (decision.answer is Answer.PASS) == passes


@given(st.lists(st.sampled_from(list(Answer))))
def test_a_fail_wins_over_unknown_and_unknown_over_a_pass(answers):
    worst = overall(Decision(WANTED, answer, "") for answer in answers)
    assert worst is (Answer.FAIL if Answer.FAIL in answers else Answer.UNKNOWN if Answer.UNKNOWN in answers or not answers else Answer.PASS)


def test_where_rules_overlap_the_strictest_counts():
    assert strictest([WANTED, replace(WANTED, within=DAY), replace(WANTED, held_in_a_row=3)]) == (replace(WANTED, within=DAY, held_in_a_row=3),)


@pytest.mark.parametrize(
    ("records", "code", "answer"),
    [
        ((record(1, "held"), record(2, "held", "ln-1")), 0, "PASS"),
        ((record(1, "deviated"), record(2, "held", "ln-1")), 1, "FAIL"),
        ((record(1, "held"),), 3, "UNKNOWN"),
        ((record(1, "deviated"),), 1, "FAIL"),
        ((record(1, "held"), record(2, "held", "ln-1", age=9)), 3, "UNKNOWN"),
        ((record(1, "held"), record(2, "inconclusive", "ln-1")), 3, "UNKNOWN"),
    ],
    ids=["pass", "fail", "missing", "fail wins", "stale", "inconclusive"],
)
def test_the_exit_code_is_the_answer(journal, tmp_path, records, code, answer):
    keep(journal, *records)
    result = call(tmp_path)
    assert result.exit_code == code, result.output
    assert f"{answer}: release" in result.stdout


def test_a_deviation_is_found_behind_inconclusive_runs(journal, tmp_path):
    keep(journal, record(0, "held", "ln-1"), record(1, "deviated", age=3), *(record(number, "inconclusive", age=2 - number / 10) for number in range(2, 9)))
    assert call(tmp_path).exit_code == 1


def test_a_run_in_progress_is_no_evidence(journal, tmp_path):
    keep(journal, record(1, "held"), record(2, "held", "ln-1"))
    with Journal.open(journal) as opened:
        opened.start(replace(record(3, "held", age=0), state="started", outcome=None, ended_at=None, ending="", reasons=(), indicators=()))
    assert call(tmp_path).exit_code == 0


def test_junit_shows_a_deviation_as_failure_and_what_is_unknown_as_error(journal, tmp_path):
    keep(journal, record(1, "deviated"), record(2, "held", "ln-1", age=9))
    assert call(tmp_path, "--junit", str(tmp_path / "gate.xml")).exit_code == 1
    root = ElementTree.parse(tmp_path / "gate.xml").getroot()
    found = {(case.get("classname"), case.get("name")): [child.tag for child in case] for case in root.iter("testcase")}
    assert found == {
        ("ny-1.node-loss", "verdict"): ["failure"],
        ("ny-1.node-loss", "lag"): ["failure"],
        ("ny-1.node-loss", "acknowledged"): [],
        ("ln-1.node-loss", "verdict"): ["error"],
        ("ln-1.node-loss", "lag"): ["error"],
        ("ln-1.node-loss", "acknowledged"): ["error"],
    }
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("6", "2", "3")


def test_json_has_each_decision_with_its_evidence(journal, tmp_path):
    keep(journal, record(1, "held"))
    document = json.loads(call(tmp_path, "--json").stdout)
    assert document["answer"] == "unknown"
    assert [(one["environment"], one["answer"], one["evidence"] and one["evidence"]["run"]) for one in document["decisions"]] == [
        ("ln-1", "unknown", None),
        ("ny-1", "pass", "run-1"),
    ]
    assert {one["name"] for one in document["decisions"][1]["indicators"]} == {"lag", "acknowledged"}


@pytest.mark.checkout
def test_the_policy_of_the_pipeline_is_answered(journal, tmp_path, inventory):
    keep(journal, *(record(number, "held", name) for number, name in enumerate(["ny-1", "ny-1", "ln-1", "ln-1"])))
    result = CliRunner().invoke(app, ["gate", "--policy", str(EXAMPLE)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("policy", "problems"),
    [
        (POLICY.replace("7d", "soon"), ["5: rules[0].within: expected a duration"]),
        (POLICY.replace("within", "wthin"), ["5: rules[0].wthin: unknown key `wthin` (did you mean `within`?)", "`within` is missing"]),
        (POLICY.replace("ln-1", "ln-2"), ["4: rules[0].environments.names[1]: the inventory", "did you mean `ln-1`?"]),
        (POLICY.replace("names: [ny-1, ln-1]", "region: mars"), ["4: rules[0].environments: no environment of the inventory matches"]),
        ("name: x\nrules: []\n", ["2: rules"]),
        ("- a list\n", ["expected a mapping with `name` and `rules`"]),
    ],
    ids=["duration", "key", "name", "nothing selected", "no rule", "no mapping"],
)
def test_a_policy_that_cannot_be_used_is_explained(journal, tmp_path, inventory, policy, problems):
    result = call(tmp_path, policy=policy)
    assert result.exit_code == 2
    assert all(problem in result.output for problem in problems), result.output


def test_globs_need_an_inventory(journal, tmp_path):
    result = call(tmp_path, policy=POLICY.replace("ny-1, ln-1", '"ny-*"'))
    assert result.exit_code == 2
    assert "an inventory is needed" in result.output


def test_a_policy_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_globs_and_filters_choose_environments(tmp_path, inventory):
    from frangible.inventory import load_inventory

    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("names: [ny-1, ln-1]", 'names: ["*-1"], region: london'))
    assert [one.environment for one in requirements(*load_policy(path), load_inventory(inventory))] == ["ln-1"]


def test_validate_knows_a_policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("7d", "7"))
    assert kind_of(path) is Kind.POLICY
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 2
    assert "5: rules[0].within" in result.output


def test_the_gate_needs_no_numerics(journal, tmp_path, inventory):
    keep(journal, record(1, "held"), record(2, "held", "ln-1"))
    (tmp_path / "policy.yaml").write_text(POLICY)
    script = (
        "import sys; from frangible.cli.group import app; app(['gate', '--policy', 'policy.yaml', '--junit', 'gate.xml'], standalone_mode=False); "
        "print(sorted({'scipy', 'numpy', 'alembic', 'chaoslib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=dict(os.environ))
    assert done.stdout.splitlines()[-1] == "[]"
