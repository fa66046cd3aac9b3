"""Validation: an experiment that cannot be judged, proven or reverted is refused before anything starts."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml

from frangible.agenda import load_agenda
from frangible.estate import Configuration
from frangible.experiment import shipped_experiments
from frangible.hypothesis import Hypothesis, load_hypotheses, shipped_hypotheses
from frangible.inventory import Inventory, load_inventory
from frangible.policy import load_policy
from frangible.schemas import schemas
from frangible.validation import validate

INVENTORY = """\
environments:
  - name: robust
    region: london
    tier: staging
    owner: {team: t}
    platform:
      kind: hosts
      root: /r
      locks: /l
      power: {driver: rack, socket: /s}
      services: {driver: rack, socket: /s}
      cpu: {driver: rack, socket: /s}
      load: {driver: rack, socket: /s}
    services: [{name: execution, role: execution}]
    middleware: [{name: nats, nodes: [core-1]}]
    prometheus: {url: "http://127.0.0.1:9", scrape-interval: 1s}
    labels: {environment: robust}
    nodes:
      - {name: app-1, roles: [gateway, risk, execution]}
      - {name: app-2, roles: [gateway, risk, execution]}
      - {name: core-1, roles: [nats]}
  - {name: powerless, parent: robust, platform: {kind: hosts, root: /r, locks: /l}, labels: {environment: powerless}}
  - {name: blind, parent: robust, prometheus: ~}
  - {name: empty, parent: robust, nodes: [], services: [], middleware: [], labels: {environment: empty}}
"""
NODE_LOSS = shipped_experiments() / "node-loss.yaml"


@pytest.fixture(scope="module")
def hypotheses() -> Mapping[str, Hypothesis]:
    return load_hypotheses([shipped_hypotheses()])


@pytest.fixture
def estate(tmp_path: Path) -> Inventory:
    path = tmp_path / "inventory.yaml"
    path.write_text(INVENTORY)
    return load_inventory(path)


def changed(folder: Path, *replacements: tuple[str, str]) -> Path:
    """Write the shipped node loss with changes; each must apply."""
    text = NODE_LOSS.read_text()
    for found, replacement in replacements:
        assert found in text, found
        text = text.replace(found, replacement)
    path = folder / "changed.yaml"
    path.write_text(text)
    return path


def messages(path: Path, hypotheses: Mapping[str, Hypothesis], estate: Inventory | None = None, environment: str = "robust") -> list[str]:
    found = validate(path, estate.get(environment) if estate else None, estate, hypotheses)
    return [str(problem).removeprefix(f"{path}:") for problem in found]


@pytest.mark.parametrize("path", sorted(shipped_experiments().glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_experiment_has_no_problem_here_or_in_the_toolkit(
    path: Path, hypotheses: Mapping[str, Hypothesis], estate: Inventory, tmp_path: Path
) -> None:
    expected = {"node-drain": "needs drain", "node-cut": "needs cut"}.get(path.stem, "")  # only Kubernetes has these
    found = messages(path, hypotheses, estate)
    assert [expected in message and "add `kind: kubernetes`" in message for message in found] == [True] * bool(expected)
    command = [str(Path(sys.executable).with_name("chaos")), "--no-version-check", "--no-log-file", "validate", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


CONTROL = "controls:\n  - name: frangible\n    provider:\n      type: python\n      module: frangible.control\n"
PROBE_ARGUMENT = "          hypothesis: order-flow\n"
FOREIGN = "rollbacks: [] # the fault carries its own revert"
SHELL = "  - {type: action, name: shell, provider: {type: process, path: echo}}\n"


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        pytest.param(CONTROL, "", "1: the experiment injects and does not declare the control frangible.control", id="no control"),
        pytest.param(CONTROL, CONTROL + CONTROL.partition("\n")[2], "declared twice", id="control twice"),
        pytest.param("  - name: frangible\n    provider", "  - name: frangible\n    scope: after\n    provider", "must cover", id="control with scope"),
        pytest.param("runtime:\n", "runtime:\n  python: {dependencies: [requests]}\n", "must not install packages", id="dependencies"),
        pytest.param("steady-state-hypothesis:", "contributions:", "names no hypothesis", id="no hypothesis"),
        pytest.param("hypothesis: order-flow", "hypothesis: order-flw", "'order-flw' (did you mean `order-flow`?)", id="unknown hypothesis"),
        pytest.param(PROBE_ARGUMENT, "          hypothesis: 3\n", "expected the name of a hypothesis", id="hypothesis is no name"),
        pytest.param("tolerance: true", "tolerance: false", "expected `tolerance: true`", id="tolerance turned round"),
        pytest.param("    name: lose-an", "    background: true\n    name: lose-an", "runs in the background", id="background"),
        pytest.param("        role: execution", "        rol: execution", "takes no argument `rol` (did you mean `role`?)", id="unknown argument"),
        pytest.param("hold: 20.0", "hold: 20s", "expected `hold` to be float, found '20s'", id="argument of another type"),
        pytest.param("hold: 20.0", "hold: true", "expected `hold` to be float, found True", id="a boolean is no number"),
        pytest.param("hold: 20.0", 'hold: "${hold}"', "`hold` refers to ${hold}, and `configuration` does not set it", id="unset variable"),
        pytest.param("hold: 20.0", "hold: 0", "nothing would be observed", id="no hold"),
        pytest.param("count: 1", "count: 0", "expected `count` to be 1 or more", id="no target"),
        pytest.param("actions.node_loss", "actions.node_los", "did you mean `frangible.actions.node_loss`?", id="unknown fault"),
        pytest.param("func: lose_nodes", "func: lose_node", "has no function 'lose_node' (did you mean `lose_nodes`?)", id="unknown function"),
        pytest.param(FOREIGN, SHELL + FOREIGN, "'shell' is not one of frangible's, and nothing would revert it", id="foreign action"),
        pytest.param("    settle: 1s", "    setle: 1s", "unknown key `setle`", id="unknown key of the extension"),
        pytest.param("tags: [node, hardware]", "tags: ['']", "Chaos Toolkit refuses it: experiment tags", id="what chaos validate refuses"),
        pytest.param("title: Orders are", "titel: Orders are", "Chaos Toolkit refuses it: hypothesis requires a title", id="hypothesis without title"),
    ],
)
def test_what_could_not_be_run_safely_is_refused(tmp_path: Path, hypotheses: Mapping[str, Hypothesis], found: str, replacement: str, expected: str) -> None:
    assert expected in "\n".join(messages(changed(tmp_path, (found, replacement)), hypotheses))


def test_all_problems_come_at_once_in_the_order_of_their_lines(tmp_path: Path, hypotheses: Mapping[str, Hypothesis], estate: Inventory) -> None:
    path = changed(tmp_path, ("settle", "setle"), ("order-flow\n", "x\n"), ("tolerance: true", "tolerance: 1"), ("count: 1", "count: 5"), ("hold:", "holt:"))
    found = messages(path, hypotheses, estate)
    assert [int(message.split(":")[0]) for message in found] == sorted(int(message.split(":")[0]) for message in found)
    for part in ("setle", "no hypothesis is called 'x'", "tolerance: true", "asked for 5 nodes, 2 match", "`holt`"):
        assert any(part in message for message in found), part


def test_a_fault_outside_the_method_is_refused_wherever_the_toolkit_would_run_it(tmp_path: Path, hypotheses: Mapping[str, Hypothesis]) -> None:
    fault = "{type: action, name: again, provider: {type: python, module: frangible.actions.node_loss, func: lose_nodes}}"
    (message,) = messages(changed(tmp_path, (FOREIGN, f"rollbacks: [{fault}]")), hypotheses)
    assert "rollbacks[0]: frangible.actions.node_loss injects a fault, and faults belong into `method`" in message
    probe = fault.replace("action,", "probe,")
    (message,) = messages(changed(tmp_path, ("tags: [node, hardware]", f"configuration: {{x: {probe}}}")), hypotheses)
    assert "configuration.x: frangible.actions.node_loss injects" in message


@pytest.mark.parametrize(
    ("rollbacks", "extension", "strategy", "expected"),
    [
        ("[{type: action, name: undo, provider: {type: process, path: echo}}]", "", "always", 0),
        ("[{type: action, name: undo, provider: {type: process, path: echo}}]", "", "deviated", 1),
        ("[]", "", "always", 1),
        ("[]", "\n    reverts: none", "always", 0),
    ],
)
def test_an_action_of_others_needs_rollbacks_that_are_always_played_or_a_word_that_none_are_needed(
    tmp_path: Path, hypotheses: Mapping[str, Hypothesis], rollbacks: str, extension: str, strategy: str, expected: int
) -> None:
    path = changed(
        tmp_path, (FOREIGN, f"{SHELL}rollbacks: {rollbacks}"), ("settle: 1s", f"settle: 1s{extension}"), ("strategy: always", f"strategy: {strategy}")
    )
    assert len(messages(path, hypotheses)) == expected


@pytest.mark.parametrize(
    ("environment", "replacements", "expected"),
    [
        pytest.param("robust", [("role: execution", "role: executor")], "robust has the role 'executor' (did you mean `execution`?)", id="role"),
        pytest.param("robust", [("role: execution", "name: app-3")], "environment robust has no node 'app-3' (did you mean", id="name"),
        pytest.param("robust", [("role: execution", "role: nats\n        name: app-1")], "'app-1' of environment robust does not have", id="both"),
        pytest.param("robust", [("count: 1", "count: 3")], "asked for 3 nodes, 2 match in environment robust", id="count"),
        pytest.param("powerless", [], "the fault node-loss needs power, which the platform of powerless does not offer", id="primitive"),
        pytest.param("blind", [], "environment blind has no `prometheus`", id="prometheus"),
        pytest.param("empty", [], "environment empty has no nodes", id="nodes"),
        pytest.param("robust", [("hold: 20.0", "hold: 3.0")], "`held` cannot be reached: orders-acknowledged: an effect of 3 s cannot show", id="too short"),
        pytest.param("robust", [("baseline: 10s", "baseline: 2s")], "`held` cannot be reached", id="baseline too short"),
        pytest.param("robust", [("settle: 1s", "recovery-limit: 1s")], "`held` cannot be reached", id="recovery too short"),
    ],
)
def test_what_does_not_fit_the_environment_is_refused(
    tmp_path: Path, hypotheses: Mapping[str, Hypothesis], estate: Inventory, environment: str, replacements: list[tuple[str, str]], expected: str
) -> None:
    assert expected in "\n".join(messages(changed(tmp_path, *replacements), hypotheses, estate, environment))


def test_a_longer_observation_makes_a_short_fault_judgeable(tmp_path: Path, hypotheses: Mapping[str, Hypothesis], estate: Inventory) -> None:
    path = changed(tmp_path, ("hold: 20.0", "hold: 3.0"), ("settle: 1s", "observe-for: 20s"))
    assert messages(path, hypotheses, estate) == []


@pytest.mark.parametrize(
    ("environment", "replacements", "expected"),
    [
        pytest.param("robust", [("role: execution", "role: executor")], ":46: method[0].provider.arguments.faults[0].arguments.role: no node", id="role"),
        pytest.param("robust", [("role: execution", "rol: execution")], "lose_nodes takes no argument `rol` (did you mean `role`?)", id="argument"),
        pytest.param(
            "robust", [("func: surge_volume", "func: surge")], "faults[1].func: frangible.actions.volume_surge has no function 'surge'", id="function"
        ),
        pytest.param("powerless", [], "faults[1].module: the fault volume-surge needs load", id="primitive"),
        pytest.param("robust", [("hold: 20.0", "hold: 3.0")], "`held` cannot be reached: orders-acknowledged: an effect of 3 s cannot show", id="one hold"),
        pytest.param("robust", [("rollbacks: []", "rollbacks: [{type: action, name: x, provider: PROVIDER}]")], "faults belong into `method`", id="rollback"),
    ],
)
def test_each_of_several_faults_in_force_together_is_looked_at(
    tmp_path: Path, hypotheses: Mapping[str, Hypothesis], estate: Inventory, environment: str, replacements: list[tuple[str, str]], expected: str
) -> None:
    text = (shipped_experiments() / "surge-while-node-lost.yaml").read_text()
    for found, replacement in replacements:
        assert found in text, found
        text = text.replace(found, replacement)
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace("PROVIDER", "{type: python, module: frangible.actions.together, func: hold_together}"))
    assert expected in "\n".join(str(problem) for problem in validate(path, estate.get(environment), estate, hypotheses))


def test_environments_whose_series_cannot_be_told_apart_are_refused(tmp_path: Path, hypotheses: Mapping[str, Hypothesis]) -> None:
    path = tmp_path / "twins.yaml"
    other = INVENTORY.partition("\n")[2].partition("  - {name: powerless")[0].replace("name: robust", "name: twin")
    path.write_text(INVENTORY + other)
    (message,) = messages(NODE_LOSS, hypotheses, load_inventory(path))
    assert "environments robust and twin have the same Prometheus and the same `labels`" in message


def test_validating_leaves_the_cache_of_a_running_experiment_alone(tmp_path: Path, hypotheses: Mapping[str, Hypothesis]) -> None:
    from chaoslib.caching import cache_activities, clear_cache, lookup_activity

    running = {"method": [{"name": "of the running experiment"}]}
    cache_activities(running)
    try:
        assert messages(NODE_LOSS, hypotheses) == []
        assert lookup_activity("of the running experiment") == running["method"][0]
    finally:
        clear_cache()


@pytest.mark.parametrize("method", ["3", "[3]", "{a: b}", "[{type: action}]", "[{provider: 3}]", "~"])
def test_a_file_of_the_wrong_shape_gives_problems_and_never_a_crash(tmp_path: Path, hypotheses: Mapping[str, Hypothesis], method: str) -> None:
    for key in ("method", "controls", "extensions", "steady-state-hypothesis", "configuration", "rollbacks", "runtime"):
        path = tmp_path / f"{key}.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(NODE_LOSS.read_text()), key: yaml.safe_load(method)}))
        harmless = {"~": ("rollbacks", "configuration", "extensions"), "{a: b}": ("rollbacks", "runtime", "configuration", "extensions")}
        if key not in harmless.get(method, ()):
            assert messages(path, hypotheses), key


def test_a_missing_file_is_a_problem(tmp_path: Path, hypotheses: Mapping[str, Hypothesis]) -> None:
    assert "cannot be read" in messages(tmp_path / "missing.yaml", hypotheses)[0]


def test_the_schemas_accept_the_shipped_files_and_refuse_unknown_keys(hypotheses: Mapping[str, Hypothesis]) -> None:
    found = schemas()
    for schema in found.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    declared = {"inventory": [yaml.safe_load(INVENTORY.replace("prometheus: ~", "tier: staging"))]}
    declared["hypothesis"] = [yaml.safe_load(path.read_text()) for path in shipped_hypotheses().glob("*.yaml")]
    declared["experiment"] = [yaml.safe_load(path.read_text()) for path in shipped_experiments().glob("*.yaml")]
    for kind, documents in declared.items():
        validator = jsonschema.Draft202012Validator(found[kind])
        for document in documents:
            validator.validate(document)
    wrong = {"inventory": {"environments": [{"name": "a", "regoin": "x"}]}, "hypothesis": {"name": "x", "indicators": [], "y": 1}}
    wrong["experiment"] = {"extensions": [{"name": "frangible", "baseline": 5}]}
    for kind, document in wrong.items():
        assert not jsonschema.Draft202012Validator(found[kind]).is_valid(document), kind


@pytest.mark.checkout
def test_the_documentation_names_every_key_and_its_examples_are_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    keys = {key for schema in schemas().values() for key in _keys(schema)} - {"environments", "extensions"}
    assert sorted(key for key in keys if f"`{key}`" not in text) == []
    configuration, inventory, kubernetes, hypothesis, experiment, policy, gameday = (part.partition("```")[0] for part in text.split("```yaml\n")[1:])
    assert Configuration.model_validate(yaml.safe_load(configuration)).inventory == "inventory"
    for name, content in (("inventory.yaml", inventory), ("hypothesis.yaml", hypothesis), ("experiment.yaml", experiment), ("policy.yaml", policy)):
        (tmp_path / name).write_text(content)
    assert load_policy(tmp_path / "policy.yaml")[0].name == "release"
    (tmp_path / "gameday.yaml").write_text(gameday)
    assert load_agenda(tmp_path / "gameday.yaml")[0].when.begins is not None
    known = load_hypotheses([tmp_path / "hypothesis.yaml"])
    estate = load_inventory(tmp_path / "inventory.yaml")
    assert estate.get("ny-equities-algo").labels == {"cluster": "ny-equities-algo"}
    assert messages(tmp_path / "experiment.yaml", known, estate, "ny-equities") == []
    (tmp_path / "kubernetes.yaml").write_text(kubernetes)
    assert load_inventory(tmp_path / "kubernetes.yaml").get("ny-options").platform.kubeconfig == tmp_path / "staging.kubeconfig"


def _keys(schema: object) -> set[str]:
    """Return the names of all properties in a schema."""
    if isinstance(schema, list):
        return {key for item in schema for key in _keys(item)}
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})) | {key for value in schema.values() for key in _keys(value)}
