"""The demonstration: what it runs, what it states, and when it says that something came out differently."""

import pytest
from typer.testing import CliRunner

from frangible.cli.demo import POLICY, Stated, planned, report
from frangible.cli.group import app
from frangible.experiment import shipped_experiments
from frangible.lab.layout import ESTATE
from frangible.policy import load_policy

SHIPPED = {path.stem for path in shipped_experiments().glob("*.yaml")}
HELD, DEVIATED, INCONCLUSIVE, REFUSED = 0, 1, 3, 4


def test_each_experiment_is_run_on_a_robust_and_on_a_fragile_environment() -> None:
    """Four experiments that are shipped, eight runs on environments that the lab has; the last deviates, since it is explained."""
    runs = planned()
    found = {experiment: [run.outcome for run in runs if run.experiment == experiment] for experiment in dict.fromkeys(run.experiment for run in runs)}
    assert found == {name: ["held", "deviated"] for name in ("node-loss", "middleware-restart", "cpu-saturation", "volume-surge")}
    assert {run.environment for run in runs} <= {environment.name for environment in ESTATE}
    assert [run.experiment for run in planned(quick=True)] == ["node-loss", "node-loss"]
    assert runs[-1].outcome == planned(quick=True)[-1].outcome == "deviated"


def test_the_matrix_has_every_experiment_on_every_environment() -> None:
    """Only the placebo, which is no fault, is left out; what the demonstration states, the matrix states too."""
    runs = planned(everything=True)
    assert len({run.where for run in runs}) == len(runs) == len(ESTATE) * len(SHIPPED - {"placebo"})
    assert set(planned()) <= set(runs)
    assert {run.experiment for run in runs} == SHIPPED - {"placebo"}


@pytest.mark.parametrize(
    ("codes", "asked", "as_stated", "said"),
    [
        pytest.param([HELD, DEVIATED, DEVIATED], 1, True, "gate                    fail     as stated", id="as stated"),
        pytest.param([HELD, HELD, HELD], 1, False, "held      NOT as stated: deviated", id="stood what it should not"),
        pytest.param([DEVIATED, DEVIATED, HELD], 1, False, "deviated  NOT as stated: held", id="broke what it should stand"),
        pytest.param([HELD, INCONCLUSIVE, HELD], 1, False, "inconclusive  NOT as stated: deviated", id="inconclusive"),
        pytest.param([HELD, DEVIATED, REFUSED], None, True, "c           z            refused   -", id="nothing is stated"),
        pytest.param([HELD, DEVIATED, HELD], 0, False, "exit code 0  NOT as stated: fail", id="the gate lets it pass"),
        pytest.param([HELD, 70, HELD], None, False, "exit code 70  NOT as stated: deviated", id="broke down"),
    ],
)
def test_what_came_out_is_told_beside_what_was_stated(capsys, codes, asked, as_stated, said) -> None:
    runs = (Stated("a", "x", "held"), Stated("a", "y", "deviated"), Stated("c", "z"))
    assert report(runs, codes, asked) is as_stated
    out = capsys.readouterr().out
    assert " ".join(said.split()) in " ".join(out.split()), out


def test_the_policy_of_the_demonstration_asks_for_what_it_runs() -> None:
    policy, _ = load_policy(POLICY)
    assert {experiment for rule in policy.rules for experiment in rule.experiments} == {run.experiment for run in planned()}


def test_one_form_of_the_demonstration_at_a_time() -> None:
    result = CliRunner().invoke(app, ["demo", "--quick", "--all"])
    assert result.exit_code == 2
