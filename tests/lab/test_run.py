"""One run, as people start it: the same on both paths, alone on its environment, and refused with nothing done where it must be."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from frangible.journal import RunRecord

from .starting import LONDON, NEWYORK, PATHS, SPARE, TARGET, Estate, Over, Place, plays, seen

pytestmark = pytest.mark.timeout(1200)  # the first test waits for what goes on side by side

OURS, THEIRS = PATHS

# --- both outcomes, on both paths -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """The same experiment on one environment, started on both paths."""

    ours: Over
    theirs: Over
    second: Over | None
    """A run that somebody tried to start while the first was under way."""
    said: Mapping[str, str]
    """What the commands print about the runs."""


@dataclass(frozen=True)
class BothPaths:
    """Run the experiment on both paths, and ask every command about it."""

    environment: str

    def __str__(self) -> str:
        return self.environment

    def __call__(self, estate: Estate) -> Judged:
        place, experiment = estate.prepare(self.environment, hold=8.0)
        started = place.start(OURS, experiment, self.environment)
        second = None
        if self.environment == LONDON:
            started.reach(seen(event="started"))  # not later: on a busy machine the second takes longer to begin than an effect lasts
            second = place.start(OURS, experiment, self.environment).end()
        ours = started.end()
        assert ours.left_over == []
        estate.rest(self.environment)
        theirs = place.start(THEIRS, experiment, self.environment).end()
        assert theirs.left_over == []
        estate.rest(self.environment)
        return Judged(ours, theirs, second, self._commands(place, ours))

    def _commands(self, place: Place, over: Over) -> dict[str, str]:
        """Ask each command about the runs of a home; all of them must succeed."""
        run = record_of(over).id
        exported = place.home.path / "chaos-journal.json"
        commands: dict[str, tuple[str, ...]] = {
            "list": ("journal", "list", "--json"),
            "show": ("journal", "show", run, "--json"),
            "export": ("journal", "export", run, "--chaos-journal", str(exported)),
            "explain": ("explain", run),
            "status": ("status", "--json"),
            "doctor": ("doctor", "--environment", self.environment),
        }
        said = {}
        for name, words in commands.items():
            done = place.frangible(*words)
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
            said[name] = done.stdout
        return {**said, "export": exported.read_text()}


def record_of(over: Over) -> RunRecord:
    """The journal's row, which there must be."""
    assert over.record is not None, over.why
    return over.record


def words(record: RunRecord) -> list[str]:
    """The reasons without their numbers."""
    return [re.sub(r"\d+(\.\d+)?", "#", reason.partition(":")[0]) for reason in record.reasons]


@plays(None, BothPaths(LONDON), BothPaths(NEWYORK))
def test_a_lost_node_is_judged_the_same_on_both_paths(played: Judged, play):
    """The robust environment holds (0 and 0), the fragile one deviates (1 and 1), and the journal says the same of both runs in the same words."""
    ours, theirs = record_of(played.ours), record_of(played.theirs)
    outcome, codes = ("held", (0, 0)) if play.environment == LONDON else ("deviated", (1, 1))
    assert (ours.outcome, theirs.outcome) == (outcome, outcome), played.ours.why + played.theirs.why
    assert (played.ours.code, played.theirs.code) == codes
    assert words(ours) == words(theirs)
    for record in (ours, theirs):
        assert (record.ending, record.state, record.environment) == ("completed", "finished", play.environment)
        assert [str(window.name) for window in record.windows] == ["baseline", "effect", "recovery"]
        [proof] = record.proofs
        assert (proof.target, proof.injected, proof.reverted, proof.proven_share) == (f"node {TARGET[play.environment]}", True, True, 1.0)
        assert record.recovered_after is not None
        assert record.chaos_journal is not None
    assert ours.fingerprint == theirs.fingerprint
    assert ours.fingerprint["kernel.release"] == os.uname().release
    assert ours.facts.keys() == theirs.facts.keys()
    assert [(one.indicator, one.window, one.bound) for one in ours.indicators] == [(one.indicator, one.window, one.bound) for one in theirs.indicators]


@plays(None, BothPaths(LONDON), BothPaths(NEWYORK))
def test_every_command_knows_the_runs(played: Judged, play):
    """`journal list|show|export`, `explain`, `status` and `doctor` tell of runs that people started."""
    ours, theirs = record_of(played.ours), record_of(played.theirs)
    assert [listed["id"] for listed in json.loads(played.said["list"])] == [theirs.id, ours.id]
    assert json.loads(played.said["show"])["reasons"] == list(ours.reasons)
    assert json.loads(played.said["export"])["experiment"]["title"] == ours.experiment_title
    assert f"{str(ours.outcome).upper()}" in played.said["explain"].upper()
    assert "orders" in played.said["explain"]
    assert TARGET[play.environment] in played.said["explain"]
    status = json.loads(played.said["status"])
    assert (status["halt"], status["runs"], status["leases"]) == (None, [], [])
    assert ours.id not in {lock["run"] for lock in status["locks"]}
    assert "FAILED" not in played.said["doctor"]


@plays(None, BothPaths(LONDON))
def test_a_second_run_is_refused_and_the_first_goes_on(played: Judged):
    """Whoever comes second is told who holds the environment and until when, and changes nothing for the first."""
    second = played.second
    assert second is not None
    assert second.code == 4, second.said
    assert re.search(rf"not injecting: key \S+ is held by \S+ for run {record_of(played.ours).id} .* until \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", second.said)
    assert second.record is None
    assert played.ours.outcome == "held"


# --- refused, with nothing done ---------------------------------------------------------------------------------------

BREAKING = """\
import importlib.util, os, sys

what = os.environ["BREAK"]
if what == "supervisor" and "frangible.supervisor" in sys.orig_argv:
    os.write(2, b"broken on purpose\\n")
    os._exit(9)


class Control:
    def find_spec(self, name, path=None, target=None):
        if name != "frangible.control":
            return None
        if what == "import":
            raise ImportError("broken on purpose")
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_break(module):
            execute(module)
            module.before_experiment_control = raising

        spec.loader.exec_module = execute_and_break
        return spec


def raising(context, **_):
    raise RuntimeError("broken on purpose")


if what in ("import", "raise"):
    sys.meta_path.insert(0, Control())
"""
"""A `sitecustomize` that breaks a part of frangible in every process that finds it."""

type Document = dict[str, Any]


def untouched(_: Document) -> None:
    """As it is."""


def without_control(experiment: Document) -> None:
    """Declare nothing."""
    del experiment["controls"]


def without_control_and_hypothesis(experiment: Document) -> None:
    """Leave nobody but the action."""
    del experiment["controls"], experiment["steady-state-hypothesis"]


def with_misspelt_control(experiment: Document) -> None:
    """Declare a module that is not there."""
    experiment["controls"][0]["provider"]["module"] = "frangible.controll"


def with_unknown_role(experiment: Document) -> None:
    """Ask for a role that nobody has."""
    experiment["method"][0]["provider"]["arguments"] = {"role": "executoin", "hold": 5.0}


def in_production(inventory: Document) -> None:
    """Declare the environment to be production."""
    inventory["environments"][0]["tier"] = "production"


@dataclass(frozen=True)
class Refusal:
    """A run that must not inject: what is wrong, and what people are told."""

    name: str
    path: str
    code: int
    says: str
    experiment: Callable[[Document], None] = untouched
    inventory: Callable[[Document], None] = untouched
    breaks: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict, hash=False)
    environment: str = SPARE

    def __str__(self) -> str:
        return f"{self.name}-{self.path.split()[0]}"

    def __call__(self, estate: Estate) -> tuple["Refusal", Over, list[str]]:
        place, experiment = estate.prepare(SPARE)
        folder = experiment.parent
        document, inventory = yaml.safe_load(experiment.read_text()), yaml.safe_load(place.inventory.read_text())
        self.experiment(document)
        self.inventory(inventory)
        experiment.write_text(yaml.safe_dump(document, sort_keys=False))
        (folder / "inventory.yaml").write_text(yaml.safe_dump(inventory))
        (folder / "breaking").mkdir()
        (folder / "breaking" / "sitecustomize.py").write_text(BREAKING)
        (folder / "no-folder").write_text("")
        variables: dict[str, str | None] = {"FRANGIBLE_INVENTORY": str(folder / "inventory.yaml")}
        if self.breaks:
            variables |= {"BREAK": self.breaks, "PYTHONPATH": str(folder / "breaking")}
        variables |= {name: value and value.format(folder=folder) for name, value in self.variables.items()}
        over = place.start(self.path, experiment, SPARE, variables=variables).end()
        assert over.left_over == []
        return self, over, estate.touched


def on_both_paths(name: str, ours: tuple[int, str], theirs: tuple[int, str], **wrong: Any) -> list[Refusal]:
    """The same thing wrong on both paths."""
    return [Refusal(name, OURS, *ours, **wrong), Refusal(name, THEIRS, *theirs, **wrong)]


NO_RUN = "not injecting: no admitted run"
IN_PRODUCTION = "not injecting: environment lab-spare is production, where nothing is ever injected"
UNDECLARED = "the experiment injects and does not declare the control frangible.control"
REFUSALS = [
    *on_both_paths("no-control", (2, UNDECLARED), (1, NO_RUN), experiment=without_control),
    Refusal("no-control-nor-hypothesis", THEIRS, 0, NO_RUN, experiment=without_control_and_hypothesis),
    *on_both_paths("misspelt-control", (2, UNDECLARED), (1, NO_RUN), experiment=with_misspelt_control),
    *on_both_paths("control-that-cannot-be-imported", (3, "the chaoslib process died"), (1, NO_RUN), breaks="import"),
    *on_both_paths("control-that-raises", (3, "the chaoslib process died"), (1, NO_RUN), breaks="raise"),
    *on_both_paths("supervisor-that-dies", (3, "supervisor.log"), (1, "the supervisor of this run is gone"), breaks="supervisor"),
    Refusal("no-environment", THEIRS, 1, "FRANGIBLE_ENVIRONMENT is not set", variables={"FRANGIBLE_ENVIRONMENT": None}),
    *on_both_paths(
        "no-inventory",
        (2, "FRANGIBLE_INVENTORY names"),
        (1, "FRANGIBLE_INVENTORY names"),
        variables={"FRANGIBLE_INVENTORY": "{folder}/missing.yaml"},
    ),
    *on_both_paths(
        "home-that-is-a-file",
        (70, "the run's plan cannot be written"),
        (1, "the run's plan cannot be written"),
        variables={"FRANGIBLE_HOME": "{folder}/no-folder"},
    ),
    *on_both_paths(
        "ledger-that-cannot-be",
        (4, "not injecting: ledger"),
        (1, "not injecting: ledger"),
        variables={"FRANGIBLE_LEDGER": "sqlite:///{folder}/missing/ledger.db"},
    ),
    *on_both_paths("production", (4, IN_PRODUCTION), (1, IN_PRODUCTION), inventory=in_production),
    *on_both_paths("unknown-role", (2, "has the role 'executoin'"), (1, "has the role 'executoin'"), experiment=with_unknown_role),
]


@plays(None, *REFUSALS)
def test_what_must_not_run_does_not_inject(played):
    """Whatever is wrong with experiment, control, supervisor, home or inventory: one clear message, an exit code that is no pass, and no node touched."""
    case, over, touched = played
    assert touched == []
    assert not over.injected
    assert case.says in over.why
    assert over.code == case.code, over.why
    assert over.outcome in {None, "inconclusive"}


def lose_a_node_that_is_off(estate: Estate) -> tuple[Over, Mapping[str, tuple[bool, str]], Mapping[str, tuple[bool, str]]]:
    """Switch a node off by hand, then run the experiment that wants to lose it."""
    place, experiment = estate.prepare(LONDON)
    estate.lab.do("power_off", LONDON, TARGET[LONDON])
    try:
        before = place.nodes(LONDON)
        over = place.start(OURS, experiment, LONDON).end()
        assert over.left_over == [f"node {TARGET[LONDON]} is off"]
        return over, before, place.nodes(LONDON)
    finally:
        estate.rest(LONDON)


@plays(LONDON, lose_a_node_that_is_off)
def test_a_node_that_is_off_already_is_refused_and_stays_off(played):
    """We did not switch it off, so we neither count it as lost nor switch it on."""
    over, before, after = played
    assert before[TARGET[LONDON]] == (False, "")
    assert after == before
    assert not over.injected
    assert (over.outcome, over.code) == ("inconclusive", 3), over.why
    assert f"not injecting: node {TARGET[LONDON]} is already off" in over.why
