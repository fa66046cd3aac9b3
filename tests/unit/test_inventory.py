"""Inventory files: what is read, inherited, selected and refused."""

import os
from pathlib import Path

import pytest

from frangible.errors import InventoryError, UsageError
from frangible.home import Home
from frangible.inventory import Environment, Inventory, Owner, PlatformSettings, Secret, Selection, find_inventory, load_inventory

PARENT = """\
environments:
  - name: ny-equities
    region: newyork
    tier: staging
    owner: {team: equities, contact: equities@example.com}
    exchanges: [XNYS]
    platform:
      kind: hosts
      root: state
      locks: /var/lock/frangible
      power: {driver: rack, socket: rack.sock}
    prometheus: {url: "http://prometheus:9090/", bearer: {file: token}, timeout: 2s}
    labels: {estate: ny, cluster: equities}
    nodes:
      - {name: app-1, roles: [gateway]}
      - {name: app-2, roles: [gateway, execution], cpus: 2}
    services:
      - {name: gateway, role: gateway, version: "2.10"}
    middleware:
      - {name: nats, version: "2.15.0", nodes: [app-1]}
    shares: [nats]
"""
CHILDREN = """\
  - name: ny-equities-a
    parent: ny-equities
    labels: {cluster: equities-a}
    exchanges: [XNAS, ARCX]
  - name: ny-equities-a1
    parent: ny-equities-a
    owner: {team: algo}
    shares: [cpu]
  - name: ldn-fx
    parent: ny-equities
    region: london
    tier: production
    labels: {estate: ldn}
"""


def written(folder: Path, text: str, name: str = "inventory.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    """Load and return the problems, without the folder's name."""
    with pytest.raises(InventoryError) as caught:
        load_inventory(written(folder, text))
    return [str(problem).removeprefix(f"{folder}/inventory.yaml:") for problem in caught.value.problems]


@pytest.fixture
def estate(tmp_path: Path) -> Inventory:
    return load_inventory(written(tmp_path, PARENT + CHILDREN))


def test_a_child_inherits_each_key_that_it_does_not_give(estate: Inventory) -> None:
    parent, child, grandchild = (estate.get(name) for name in ("ny-equities", "ny-equities-a", "ny-equities-a1"))
    assert (child.region, child.tier, child.nodes, child.prometheus) == (parent.region, parent.tier, parent.nodes, parent.prometheus)
    assert child.exchanges == ("XNAS", "ARCX"), "lists replace"
    assert child.labels == {"estate": "ny", "cluster": "equities-a"}, "labels merge"
    assert grandchild.labels == child.labels
    assert (grandchild.owner.team, grandchild.owner.contact) == ("algo", ""), "a mapping replaces as a whole"


def test_a_child_that_says_nothing_inherits_everything_but_its_name(tmp_path: Path) -> None:
    estate = load_inventory(written(tmp_path, PARENT + "  - {name: twin, parent: ny-equities}\n"))
    own = {"name", "parent"}
    assert estate.get("twin").model_dump(exclude=own) == estate.get("ny-equities").model_dump(exclude=own)


def test_relative_paths_are_relative_to_the_file(estate: Inventory, tmp_path: Path) -> None:
    environment = estate.get("ny-equities-a1")
    assert environment.platform.root == tmp_path / "state"
    assert environment.platform.power is not None
    assert environment.platform.power.socket == tmp_path / "rack.sock"
    assert environment.platform.locks == Path("/var/lock/frangible")
    assert environment.prometheus is not None
    assert environment.prometheus.bearer == Secret(file=tmp_path / "token")


def test_an_environment_survives_its_own_json(estate: Inventory) -> None:
    for environment in estate.environments.values():
        assert Environment.model_validate_json(environment.model_dump_json()) == environment
        assert Environment.model_validate_json(environment.model_dump_json(by_alias=False)) == environment


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        pytest.param(Selection(), ["ldn-fx", "ny-equities", "ny-equities-a", "ny-equities-a1"], id="everything"),
        pytest.param(Selection(names=("ldn-fx",)), ["ldn-fx"], id="name"),
        pytest.param(Selection(names=("*-a*", "ldn-*")), ["ldn-fx", "ny-equities-a", "ny-equities-a1"], id="globs"),
        pytest.param(Selection(region="london"), ["ldn-fx"], id="region"),
        pytest.param(Selection(tier="production"), ["ldn-fx"], id="tier"),
        pytest.param(Selection(owner="algo"), ["ny-equities-a1"], id="owner"),
        pytest.param(Selection(parent="ny-equities-a"), ["ny-equities-a1"], id="parent"),
        pytest.param(Selection(parent="ny-equities", tier="staging"), ["ny-equities-a", "ny-equities-a1"], id="parent at any depth, and tier"),
        pytest.param(Selection(labels={"estate": "ny", "cluster": "equities"}), ["ny-equities"], id="labels"),
        pytest.param(Selection(names=("nothing-*",)), [], id="a glob that matches nothing"),
    ],
)
def test_a_selection_returns_what_matches_everything_given(estate: Inventory, selection: Selection, expected: list[str]) -> None:
    assert [environment.name for environment in estate.select(selection)] == expected


def test_a_name_that_does_not_exist_is_answered_with_the_nearest(estate: Inventory) -> None:
    with pytest.raises(UsageError, match=r"no environment 'ldn-fxx'; did you mean `ldn-fx`\?"):
        estate.get("ldn-fxx")
    with pytest.raises(UsageError, match="ny-equities"):
        estate.select(Selection(parent="ny-equitis"))


def test_a_run_holds_its_family_and_what_it_and_its_descendants_share(estate: Inventory) -> None:
    assert estate.resource_keys("ny-equities-a") == ("environment:ny-equities-a", "environment:ny-equities-a1", "shared:cpu", "shared:nats")
    assert estate.resource_keys("ny-equities-a1") == ("environment:ny-equities-a1", "shared:cpu")
    assert estate.ancestors("ny-equities-a1") == ("ny-equities-a", "ny-equities")
    assert estate.descendants("ny-equities") == ("ldn-fx", "ny-equities-a", "ny-equities-a1")


def test_a_parent_and_its_child_exclude_each_other_and_siblings_do_not(tmp_path: Path) -> None:
    """What two runs cannot do at once is what their keys have in common."""
    siblings = "".join(f"  - {{name: {name}, parent: ny-equities, shares: []}}\n" for name in ("a", "b"))
    estate = load_inventory(written(tmp_path, PARENT + siblings))
    parent, one, other = (set(estate.resource_keys(name)) for name in ("ny-equities", "a", "b"))
    assert parent & one
    assert parent & other
    assert not one & other


def test_who_needs_a_part_of_one_machine_alone_excludes_who_does_too(tmp_path: Path) -> None:
    """The part's key is held by those that ask for it, on the machine that the environment names or inherits."""
    text = PARENT + "    machine: host-1\n  - {name: a, parent: ny-equities, shares: []}\n  - {name: b, parent: ny-equities, shares: [], machine: host-2}\n"
    estate = load_inventory(written(tmp_path, text))
    assert estate.resource_keys("a") == ("environment:a",)
    assert estate.resource_keys("a", {"cpu"}) == ("cpu:host-1", "environment:a")
    assert estate.resource_keys("b", {"cpu"}) == ("cpu:host-2", "environment:b")
    assert {"cpu:host-1", "cpu:host-2"} <= set(estate.resource_keys("ny-equities", {"cpu"}))


def test_a_folder_of_files_is_one_inventory(tmp_path: Path) -> None:
    written(tmp_path, PARENT, "parents.yaml")
    written(tmp_path, "environments:\n" + CHILDREN, "children.yml")
    written(tmp_path, "not: yaml: at all", "notes.txt")
    assert sorted(load_inventory(tmp_path).environments) == ["ldn-fx", "ny-equities", "ny-equities-a", "ny-equities-a1"]


def test_the_same_name_in_two_files_is_a_problem_that_names_both(tmp_path: Path) -> None:
    written(tmp_path, PARENT, "a.yaml")
    written(tmp_path, PARENT, "b.yaml")
    with pytest.raises(InventoryError, match=rf"b.yaml:2: environments\[0\].name: the environment 'ny-equities' is already declared at {tmp_path}/a.yaml:2"):
        load_inventory(tmp_path)


def test_all_problems_of_a_file_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """\
environments:
  - name: base
    region: ny
    tier: stagin
    owner: {team: env, contct: x}
    labels: {a: b, c: 1, "x-y": z}
    nodes: [{name: n1}, {name: n2, cpus: 0}]
    services: [{name: s, nodes: [n3]}, {name: t, role: gatewy}]
    middleware: [{name: nats, version: 2.10}]
  - name: kid
    parent: bse
    exchanges: [xnys]
  - 3
environmnts: 3
"""
    assert problems(tmp_path, text) == [
        "2: environments[0]: `platform` is missing (how its nodes are reached)",
        "4: environments[0].tier: expected 'staging', 'production' or 'development', found 'stagin' (did you mean `staging`?)",
        "5: environments[0].owner.contct: unknown key `contct` (did you mean `contact`?)",
        "6: environments[0].labels.c: expected text (put it in quotes), found 1",
        "6: environments[0].labels.x-y: expected a Prometheus label name (letters, digits, underscores), found 'x-y'",
        "7: environments[0].nodes[1].cpus: expected greater than 0, found 0",
        "8: environments[0].services[0].nodes[0]: s is on 'n3', which is no node of base (valid: n1, n2)",
        "8: environments[0].services[1].role: no node of base has the role 'gatewy' (give a node this role)",
        "9: environments[0].middleware[0].version: expected text (put it in quotes), found 2.1",
        "11: environments[1].parent: no environment is called 'bse' (did you mean `base`?)",
        "12: environments[1].exchanges[0]: expected text of the form ^[A-Z0-9]{4}$, found 'xnys'",
        "13: environments[2]: expected a mapping that begins with `name`, found something else",
        "14: environmnts: unknown key `environmnts` (did you mean `environments`?)",
    ]


def test_a_mistake_that_children_inherit_is_reported_once_where_it_stands(tmp_path: Path) -> None:
    found = problems(tmp_path, (PARENT + CHILDREN).replace("tier: staging", "tier: stage"))
    assert [problem.split(":")[0] for problem in found] == ["4"]


def test_parents_that_form_a_circle_are_a_problem_of_each_of_them(tmp_path: Path) -> None:
    text = "environments:\n  - {name: a, parent: b}\n  - {name: b, parent: a}\n  - {name: c, parent: c}\n  - {name: below, parent: a}\n"
    assert problems(tmp_path, text) == [
        "2: environments[0].parent: the parents form a circle: a → b → a (remove one `parent`)",
        "3: environments[1].parent: the parents form a circle: b → a → b (remove one `parent`)",
        "4: environments[2].parent: the parents form a circle: c → c (remove one `parent`)",
    ]


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        ("bearer: {file: token}", "bearer: hunter2", "expected {file: PATH} or {variable: NAME}"),
        ("bearer: {file: token}", "bearer: [hunter2]", "expected {file: PATH} or {variable: NAME}"),
        ("bearer: {file: token}", "bearer: {value: hunter2}", "unknown key `value`"),
        ("bearer: {file: token}", "bearer: {file: token, variable: hunter2-3}", "expected text of the form"),
        ("bearer: {file: token}", "basic: {user: u, password: hunter2}", "expected {file: PATH}"),
        ("bearer: {file: token}", "headers: {Authorization: Bearer hunter2}", "is confidential"),
        ("bearer: {file: token}", "secret-headers: {X-Key: hunter2}", "expected {file: PATH}"),
        ('url: "http://', 'url: "http://me:hunter2@', "without user and password"),
        ("bearer: {file: token}", 'proxy: "http://me:hunter2@proxy"', "without user and password"),
        ('url: "http://prometheus:9090/"', "url: hunter2", "begins with http"),
        ("timeout: 2s", "timeout: hunter2", "expected a duration"),
        ("timeout: 2s", "ca-file: [hunter2]", "ca-file: expected a path, found a list"),
        ("timeout: 2s", "runs-on: hunter2", "no node of ny-equities is called that"),
        ("bearer: {file: token}", "bearer: {file: a}, basic: {user: hunter2, password: {file: b}}", "found both"),
    ],
)
def test_a_secret_written_into_the_file_is_refused_and_never_shown(tmp_path: Path, found: str, replacement: str, expected: str) -> None:
    reported = "\n".join(problems(tmp_path, PARENT.replace(found, replacement)))
    assert expected in reported
    assert "hunter2" not in reported


def test_a_secret_is_read_when_asked_for_and_appears_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    monkeypatch.setenv("PASSWORD", "hunter3")
    prometheus = "prometheus: {url: 'http://x', basic: {user: me, password: {variable: PASSWORD}}, secret-headers: {X-Token: {file: token}}}"
    text = PARENT.replace('prometheus: {url: "http://prometheus:9090/", bearer: {file: token}, timeout: 2s}', prometheus)
    environment = load_inventory(written(tmp_path, text)).get("ny-equities")
    settings = environment.prometheus
    assert settings is not None
    assert settings.basic is not None
    assert (settings.basic.password.reveal(), settings.secret_headers["X-Token"].reveal()) == ("hunter3", "hunter2")
    for text in (repr(environment), str(environment), environment.model_dump_json(), str(environment.model_dump())):
        assert "hunter" not in text


@pytest.mark.parametrize("content", ["", "  \n", "two\nlines"])
def test_a_secret_that_is_missing_empty_or_of_several_lines_is_an_error_that_names_its_source(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(UsageError, match=str(file)) as caught:
        Secret(file=file).reveal()
    assert "lines" not in str(caught.value)
    with pytest.raises(UsageError, match="FRANGIBLE_NO_SUCH_VARIABLE"):
        Secret(variable="FRANGIBLE_NO_SUCH_VARIABLE").reveal()
    with pytest.raises(UsageError, match="cannot be read"):
        Secret(file=tmp_path / "missing").reveal()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("environments: [", "not valid YAML", id="syntax"),
        pytest.param("", "expected `environments:` with a list", id="empty"),
        pytest.param("- a", "expected `environments:` with a list", id="a list"),
        pytest.param("environments: []", "at least one environment", id="no environment"),
        pytest.param("environments: [{name: a, name: b}]", "the key `name` was already given in line 1", id="duplicate key"),
        pytest.param("environments: &a [*a]", "this alias contains itself", id="endless alias"),
        pytest.param("environments: [!!python/object/apply:os.getcwd []]", "could not determine a constructor", id="code in a tag"),
        pytest.param("environments: [{name: a/b}]", "expected text of the form", id="a name that is no file name"),
        pytest.param("a: 1\n---\nb: 2", "not valid YAML", id="two documents"),
        pytest.param("environments: [{1: 2, name: a}]", "expected", id="a key that is no text"),
    ],
)
def test_what_is_not_an_inventory_is_refused_with_a_sentence(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in "\n".join(problems(tmp_path, text))


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InventoryError, match="UTF-8"):
        load_inventory(tmp_path / "inventory.yaml")
    with pytest.raises(InventoryError, match="cannot be read: No such file"):
        load_inventory(tmp_path / "missing.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InventoryError, match="found none"):
        load_inventory(tmp_path / "empty")


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        ("{driver: rack}", "expected exactly `socket`"),
        ("{driver: rack, socket: a, on: [x]}", "expected exactly `socket`"),
        ("{driver: command, on: [power, on, '{node}'], off: [power, off], state: [power, '{node}']}", "expected `{node}` in an argument of `off`"),
        ("{driver: command, on: [power, on, '{node}']}", "expected exactly `off`, `on`, `state`"),
    ],
)
def test_a_power_driver_needs_exactly_its_own_keys(tmp_path: Path, power: str, expected: str) -> None:
    assert expected in problems(tmp_path, PARENT.replace("{driver: rack, socket: rack.sock}", power))[0]


def test_yaml_words_like_on_and_no_stay_text(tmp_path: Path) -> None:
    power = "{driver: command, on: [ipmi, on, '{node}'], off: [ipmi, off, '{node}'], state: [ipmi, '{node}']}"
    text = PARENT.replace("{driver: rack, socket: rack.sock}", power).replace("region: newyork", "region: NO")
    environment = load_inventory(written(tmp_path, text)).get("ny-equities")
    assert environment.region == "NO"
    assert environment.platform.power is not None
    assert environment.platform.power.on == ("ipmi", "on", "{node}")


def test_keys_have_dashes_in_files_and_underscores_in_python(tmp_path: Path) -> None:
    assert "unknown key `ca_file` (did you mean `ca-file`?)" in problems(tmp_path, PARENT.replace("timeout: 2s", "ca_file: x"))[0]
    assert PlatformSettings(kind="hosts", root=Path("/a"), locks=Path("/b")).transport == "local"
    assert Owner(team="a").contact == ""


def test_the_inventory_is_found_by_flag_then_variable_then_upwards_then_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, deep = Home(tmp_path / "home"), tmp_path / "project" / "deep"
    deep.mkdir(parents=True)
    home.lab.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv("FRANGIBLE_INVENTORY", raising=False)
    with pytest.raises(UsageError, match="frangible lab up"):
        find_inventory(None, home)
    lab = written(home.lab, "")
    assert find_inventory(None, home) == lab
    upwards = written(tmp_path / "project", "", "frangible-inventory.yaml")
    assert find_inventory(None, home) == upwards
    named = written(tmp_path, "", "named.yaml")
    monkeypatch.setenv("FRANGIBLE_INVENTORY", str(named))
    assert find_inventory(None, home) == named
    assert find_inventory(lab, home) == lab
    monkeypatch.setenv("FRANGIBLE_INVENTORY", os.fspath(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"FRANGIBLE_INVENTORY names .*missing, which does not exist"):
        find_inventory(None, home)
