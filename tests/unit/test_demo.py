"""The demonstration: what it runs, what it states, and when it says that something came out differently."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from frangible.cli.demo import POLICY, Result, Stated, _evident, planned, report
from frangible.cli.group import app
from frangible.experiment import shipped_experiments
from frangible.home import Home
from frangible.lab.layout import ESTATE
from frangible.policy import load_policy

CHECKOUT = Path(__file__).parents[2]
SHIPPED = {path.stem for path in shipped_experiments().glob("*.yaml")}
ELSEWHERE = {"node-cut", "node-drain"}
"""Experiments whose faults the lab's platform has no primitives for: they need Kubernetes."""
HELD, DEVIATED, INCONCLUSIVE, REFUSED = "held", "deviated", "inconclusive", "refused"


def test_each_experiment_is_run_on_a_robust_and_on_a_fragile_environment() -> None:
    """Four experiments that are shipped, eight runs on environments that the lab has; the last deviates, since it is explained."""
    runs = planned()
    found = {experiment: [run.outcome for run in runs if run.experiment == experiment] for experiment in dict.fromkeys(run.experiment for run in runs)}
    assert found == {name: ["held", "deviated"] for name in ("node-loss", "middleware-restart", "cpu-saturation", "volume-surge")}
    assert {run.environment for run in runs} <= {environment.name for environment in ESTATE}
    assert [run.experiment for run in planned(quick=True)] == ["node-loss", "node-loss"]
    assert runs[-1].outcome == planned(quick=True)[-1].outcome == "deviated"


def test_the_matrix_has_every_experiment_on_every_environment() -> None:
    """Only the placebo, which is no fault, and what needs Kubernetes are left out; what the demonstration states, the matrix states too."""
    runs = planned(everything=True)
    assert len(set(runs)) == len(runs) == len(ESTATE) * len(SHIPPED - {"placebo"} - ELSEWHERE)
    assert set(planned()) <= set(runs)
    assert {run.experiment for run in runs} == SHIPPED - {"placebo"} - ELSEWHERE


@pytest.mark.parametrize(
    ("outcomes", "asked", "as_stated", "said"),
    [
        pytest.param([HELD, DEVIATED, DEVIATED], 1, True, "gate                    fail     as stated", id="as stated"),
        pytest.param([HELD, HELD, HELD], 1, False, "held      NOT as stated: deviated", id="stood what it should not"),
        pytest.param([DEVIATED, DEVIATED, HELD], 1, False, "deviated  NOT as stated: held", id="broke what it should stand"),
        pytest.param([HELD, INCONCLUSIVE, HELD], 1, False, "inconclusive  NOT as stated: deviated", id="inconclusive"),
        pytest.param([HELD, DEVIATED, REFUSED], None, True, "c           z            refused   -", id="nothing is stated"),
        pytest.param([HELD, DEVIATED, HELD], 0, False, "exit code 0  NOT as stated: fail", id="the gate lets it pass"),
        pytest.param([HELD, "exit code 70", HELD], None, False, "exit code 70  NOT as stated: deviated", id="broke down"),
    ],
)
def test_what_came_out_is_told_beside_what_was_stated(capsys, outcomes, asked, as_stated, said) -> None:
    runs = (Stated("a", "x", "held"), Stated("a", "y", "deviated"), Stated("c", "z"))
    result = Result(runs, tuple(outcomes), asked, 61.04)
    report(result)
    assert result.as_stated is as_stated
    out = capsys.readouterr().out
    assert " ".join(said.split()) in " ".join(out.split()), out


def test_the_matrix_asks_once_for_all_environments_and_once_more_for_what_is_stated_and_inconclusive(monkeypatch, tmp_path) -> None:
    """One command an experiment, so that resource keys decide what goes side by side; a run that left no record is told by the exit code."""
    answers = [[("x", INCONCLUSIVE), ("z", INCONCLUSIVE)], [("x", HELD), ("y", DEVIATED)]]
    asked: list[list[str]] = []

    def command(_home, *words, output):
        asked.append([words[number + 1] for number, word in enumerate(words) if word == "--environment"])
        json.dump([{"environment": environment, "outcome": outcome} for environment, outcome in answers[len(asked) - 1]], output)
        return 3

    monkeypatch.setattr("frangible.cli.demo._command", command)
    runs = (Stated("a", "x", "held"), Stated("a", "y", "deviated"), Stated("a", "z"))
    assert _evident(Home(tmp_path), runs) == [HELD, DEVIATED, INCONCLUSIVE]
    assert asked == [["x", "y", "z"], ["x", "y"]]


def test_the_policy_of_the_demonstration_asks_for_what_it_runs() -> None:
    policy, _ = load_policy(POLICY)
    assert {experiment for rule in policy.rules for experiment in rule.experiments} == {run.experiment for run in planned()}


def test_one_form_of_the_demonstration_at_a_time() -> None:
    result = CliRunner().invoke(app, ["demo", "--quick", "--all"])
    assert result.exit_code == 2


def test_the_document_has_what_the_table_has() -> None:
    """One entry a run with its outcome in words and what was stated of it; the gate's answer is null where it was not asked."""
    runs = (Stated("a", "x", "held"), Stated("c", "z"))
    assert Result(runs, (HELD, REFUSED), None, 61.04).to_json() == {
        "runs": [
            {"experiment": "a", "environment": "x", "outcome": "held", "stated": "held"},
            {"experiment": "c", "environment": "z", "outcome": "refused", "stated": ""},
        ],
        "gate": None,
        "as-stated": True,
        "seconds": 61.0,
    }


def matrix(*outcomes: str, seconds: float = 60.0, gate: str = "fail") -> str:
    """A result of `frangible demo --all --json` with two experiments on two environments."""
    places = [("node-loss", "lab-a"), ("node-loss", "lab-b"), ("surge", "lab-a"), ("surge", "lab-b")]
    runs = [{"experiment": e, "environment": w, "outcome": o, "stated": ""} for (e, w), o in zip(places, outcomes, strict=True)]
    return json.dumps({"runs": runs, "gate": gate, "as-stated": True, "seconds": seconds})


def compare(folder: Path, *documents: str) -> subprocess.CompletedProcess[str]:
    for number, text in enumerate(documents):
        (folder / f"{number}.json").write_text(text)
    files = [str(folder / f"{number}.json") for number in range(len(documents))]
    return subprocess.run([sys.executable, "-m", "benchmarks.demos", *files], cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.mark.checkout
def test_equal_demonstrations_are_one_table(tmp_path) -> None:
    """Experiments down, environments across; how long each took is told and not compared."""
    done = compare(tmp_path, matrix("held", "deviated", "held", "held", seconds=60), matrix("held", "deviated", "held", "held", seconds=62))
    assert done.returncode == 0, done.stderr
    assert "| `node-loss` | held | **deviated** |" in done.stdout
    assert "4 of 4 verdicts are the same in all 2 runs" in done.stdout
    assert "60 s, 62 s" in done.stdout


@pytest.mark.checkout
@pytest.mark.parametrize(
    ("second", "said"),
    [
        pytest.param(matrix("held", "held", "held", "held"), "| `node-loss` | held | deviated, held |", id="another verdict"),
        pytest.param(matrix("held", "deviated", "held", "held", gate="exit code 0"), "gate: fail, exit code 0", id="another answer of the gate"),
        pytest.param(json.dumps({"runs": [], "gate": "fail", "seconds": 1}), "| `surge` | held, not run | held, not run |", id="runs that are missing"),
    ],
)
def test_what_differs_is_shown_and_is_exit_code_1(tmp_path, second, said) -> None:
    done = compare(tmp_path, matrix("held", "deviated", "held", "held"), second)
    assert done.returncode == 1
    assert said in done.stdout


@pytest.mark.checkout
def test_what_is_no_result_is_named(tmp_path) -> None:
    done = compare(tmp_path, matrix("held", "deviated", "held", "held"), "{}")
    assert done.returncode == 2
    assert "1.json" in done.stderr
