"""What frangible reads in a Chaos Toolkit file."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from frangible.errors import ExperimentError
from frangible.experiment import Windows, load_experiment_file, shipped_experiments

TEXT = """\
title: t
description: d
configuration:
  hold: {type: env, key: TEST_HOLD, default: "2.5", env_var_type: float}
  hypothesis: order-flow
controls:
  - {name: frangible, provider: {type: python, module: frangible.control}}
extensions:
  - name: frangible
    baseline: 5s
  - {name: other, baseline: whatever}
steady-state-hypothesis:
  title: s
  probes:
    - type: probe
      name: steady
      tolerance: true
      provider: {type: python, module: frangible.probes.steady_state, func: steady_state, arguments: {hypothesis: "${hypothesis}"}}
method:
  - type: action
    name: lose
    provider: {type: python, module: frangible.actions.node_loss, func: lose_nodes, arguments: {role: execution, hold: "${hold}"}}
  - {ref: lose}
  - {type: probe, name: look, provider: {type: process, path: "true"}}
  - {type: action, name: shell, provider: {type: process, path: "true"}}
"""


def written(folder: Path, text: str, name: str = "my-experiment.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ExperimentError) as caught:
        load_experiment_file(written(folder, text))
    return str(caught.value)


def test_an_experiment_is_read_as_the_toolkit_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, TEXT)
    file = load_experiment_file(path)
    assert (file.name, file.title, file.path, file.digest) == ("my-experiment", "t", path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert file.hypotheses == ("order-flow",)
    assert file.has_control
    assert file.injects
    assert [(one.name, one.fault, one.arguments["hold"]) for one in file.injections] == [("lose", "node-loss", 2.5), ("lose", "node-loss", 2.5)]
    assert [one.name for one in file.foreign] == ["shell"]
    assert json.loads(json.dumps(file.document)) == yaml.safe_load(TEXT)
    monkeypatch.setenv("TEST_HOLD", "7")
    assert load_experiment_file(path).injections[0].arguments["hold"] == 7.0


def test_windows_have_defaults_that_follow_the_baseline(tmp_path: Path) -> None:
    windows = load_experiment_file(written(tmp_path, TEXT)).windows
    assert windows == Windows(baseline=5, baseline_limit=20, recovery_limit=None, observe_for=0, settle=1)
    assert Windows.model_validate_json(windows.model_dump_json(by_alias=True)) == windows
    without = load_experiment_file(written(tmp_path, "title: t\nmethod: []\n"))
    assert (without.windows, without.injects, without.has_control) == (Windows(), False, False)
    assert (without.windows.baseline, without.windows.baseline_limit) == (15, 60)


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        ("baseline: 5s", "basline: 5s", ":10: extensions[0].basline: unknown key `basline` (did you mean `baseline`?)"),
        ("baseline: 5s", "baseline: 5", ":10: extensions[0].baseline: expected a duration with its unit"),
        ("baseline: 5s", "baseline: 0s", "greater than 0"),
        ("baseline: 5s", "baseline-limit: 5s", "expected `baseline-limit` to be at least `baseline` (15 s), found 5 s"),
        ("name: other, baseline: whatever", "name: frangible", "expected one extension called 'frangible'"),
        ('default: "2.5", ', "", "configuration.hold: Configuration makes reference to an environment key that does not exist: TEST_HOLD"),
        ('default: "2.5"', "default: soon", "configuration.hold: the value is not of the type"),
        ("key: TEST_HOLD, ", "", "configuration.hold: `key` is missing"),
        ("{ref: lose}", "{ref: loose}", "method[1].ref: no activity is called 'loose'"),
        ("{ref: lose}", "nothing", "method[1]: expected an activity"),
    ],
)
def test_a_part_that_cannot_be_understood_is_a_problem_with_its_line(tmp_path: Path, found: str, replacement: str, expected: str) -> None:
    assert found in TEXT
    assert expected in refused(tmp_path, TEXT.replace(found, replacement))


@pytest.mark.parametrize(
    ("found", "replacement"),
    [
        ("{name: frangible, provider", "{name: frangible, scope: before, provider"),
        ("{name: frangible, provider", "{name: frangible, automatic: false, provider"),
        ("module: frangible.control", "module: frangible.contrl"),
        ("controls:", "other:"),
    ],
)
def test_a_control_that_does_not_cover_the_whole_experiment_does_not_count(tmp_path: Path, found: str, replacement: str) -> None:
    assert not load_experiment_file(written(tmp_path, TEXT.replace(found, replacement))).has_control


def test_json_is_read_too_and_other_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(yaml.safe_load(TEXT), indent="\t"), "e.json")
    assert load_experiment_file(path).hypotheses == ("order-flow",)
    with pytest.raises(ExperimentError, match=r"bad.json:2: not valid JSON"):
        load_experiment_file(written(tmp_path, '{\n"a": }', "bad.json"))
    with pytest.raises(ExperimentError, match=r"expected a file that ends in .yaml, .yml or .json"):
        load_experiment_file(written(tmp_path, TEXT, "e.txt"))
    with pytest.raises(ExperimentError, match="cannot be read"):
        load_experiment_file(tmp_path / "missing.yaml")
    assert "expected a Chaos Toolkit experiment" in refused(tmp_path, "- a\n")
    assert "not valid YAML" in refused(tmp_path, "a: [\n")


def test_a_file_is_read_as_yaml_1_1_since_the_toolkit_does(tmp_path: Path) -> None:
    assert load_experiment_file(written(tmp_path, TEXT + "tags: [on]\n")).document["tags"] == [True]


def test_the_shipped_experiments_load() -> None:
    found = {path.stem: load_experiment_file(path) for path in shipped_experiments().glob("*.yaml")}
    assert [one.fault for one in found["node-loss"].injections] == ["node-loss"]
    assert [one.fault for one in found["placebo"].injections] == ["placebo"]


def test_faults_in_force_together_are_injections_with_one_hold() -> None:
    file = load_experiment_file(shipped_experiments() / "surge-while-node-lost.yaml")
    assert [(one.fault, one.func, one.arguments["hold"]) for one in file.injections] == [
        ("node-loss", "lose_nodes", 20.0),
        ("volume-surge", "surge_volume", 20.0),
    ]
    assert [one.fault for one in file.holds] == ["node-loss"]
    assert file.foreign == ()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ("3", "method[0].provider.arguments.faults: expected a list of two or more faults"),
        ("[{module: frangible.actions.volume_surge, func: surge_volume}]", "expected a list of two or more faults"),
        ("[3, 4]", "faults[1]: expected a fault, a mapping with `module`, `func`"),
        ("[{module: os, func: getpid}, 4]", "faults[0]: os injects no fault that frangible can prove and revert"),
        ("[{module: frangible.actions.together, func: hold_together}, 4]", "frangible.actions.together injects no fault"),
        ("[{module: frangible.actions.volume_surge, func: surge_volume, arguments: {hold: 3.0}}, 4]", "have one `hold`, that of their action"),
        ("[{module: frangible.actions.volume_surge, func: surge_volume, arguments: 3}, 4]", "expected `arguments` to be a mapping"),
        ("[{module: frangible.actions.volume_surge, func: surge_volume, args: {}}, 4]", "unknown key `args`"),
    ],
)
def test_what_cannot_be_in_force_together_is_a_problem(tmp_path: Path, faults: str, expected: str) -> None:
    provider = f"{{type: python, module: frangible.actions.together, func: hold_together, arguments: {{faults: {faults}}}}}"
    text = TEXT.partition("method:")[0] + f"method:\n  - {{type: action, name: together, provider: {provider}}}\n"
    assert expected in refused(tmp_path, text)
