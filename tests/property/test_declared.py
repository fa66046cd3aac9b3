"""Laws of declared files: what a selector matches, and that no file makes the loaders fail otherwise than with problems."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from frangible.durations import format_duration, parse_duration
from frangible.environment import Environment
from frangible.errors import HypothesisError, InventoryError
from frangible.hypothesis import load_hypotheses
from frangible.inventory import load_inventory
from frangible.template import check_query, check_selector, render

NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.text(alphabet="\"\\\n'`{},=~${labels} ")
LABELS = st.dictionaries(NAMES, VALUES, max_size=4)
MATCHERS = st.lists(st.tuples(NAMES, st.sampled_from(["=", "!=", "=~", "!~"]), VALUES), max_size=3)

type Matcher = tuple[str, str, str]

UNESCAPED = {"\\": "\\", '"': '"', "n": "\n"}


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def parsed(selector: str) -> tuple[str, list[Matcher]]:
    """Read a selector character by character, as Prometheus's lexer does with double-quoted strings."""
    metric, _, rest = selector.partition("{")
    matchers: list[Matcher] = []
    while not rest.startswith("}"):
        found = re.match(r"([a-zA-Z_][a-zA-Z0-9_]*)(=~|!~|!=|=)\"", rest)
        assert found is not None, rest
        value, rest = text(rest[found.end() :])
        matchers.append((found[1], found[2], value))
        rest = rest.removeprefix(",")
    assert rest == "}", rest
    return metric, matchers


def text(rest: str) -> tuple[str, str]:
    value = ""
    while not rest.startswith('"'):
        assert rest
        assert rest[0] != "\n", "a raw newline ends Go's string literals"
        if rest[0] == "\\":
            value, rest = value + UNESCAPED[rest[1]], rest[2:]
        else:
            value, rest = value + rest[0], rest[1:]
    return value, rest[1:]


@given(NAMES, MATCHERS, LABELS, st.integers(min_value=0))
def test_a_rendered_selector_has_exactly_the_matchers_given_whatever_the_values(metric: str, fixed: list[Matcher], labels: dict[str, str], at: int) -> None:
    if any("${labels}" in value for _, _, value in fixed):
        fixed = []  # a template that quotes the placeholder is refused: see the next law
    items = [f"{name}{operator}{quoted(value)}" for name, operator, value in fixed]
    items.insert(at % (len(items) + 1), "${labels}")
    selector = render(check_selector(f"{metric}{{{','.join(items)}}}"), labels)
    found_metric, found = parsed(selector)
    assert found_metric == metric
    assert sorted(found) == sorted([*fixed, *((name, "=", value) for name, value in labels.items())])


@given(NAMES, VALUES)
def test_a_placeholder_inside_quotes_is_never_accepted(metric: str, value: str) -> None:
    with pytest.raises(ValueError, match="labels"):
        check_selector(f"{metric}{{${{labels}},x={quoted(value + '${labels}')}}}")


@given(st.text(alphabet="ab{}()[]\"'`\\,=~$ \n5m#") | st.text())
def test_a_query_is_accepted_or_refused_with_a_sentence_and_every_accepted_brace_has_the_labels(query: str) -> None:
    try:
        accepted = check_query(query)
    except ValueError:
        return
    assert render(accepted, {"env": "x"}).count('env="x"') == accepted.count("${labels}") > 0


@given(st.integers(min_value=0, max_value=86_400_000))
def test_a_duration_is_read_back_as_it_was_written(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


KEYS = st.sampled_from(
    ["environments", "name", "parent", "labels", "nodes", "roles", "tier", "owner", "prometheus", "bearer", "indicators", "kind", "good", "bound", "recovery"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "b", "gauge", "staging", "x{${labels}}"]) | st.text(max_size=5)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5), max_leaves=20)


@given(TREES, st.lists(st.dictionaries(KEYS, TREES, max_size=6), max_size=4))
def test_no_tree_makes_a_loader_fail_otherwise_than_with_problems(tmp_path_factory: pytest.TempPathFactory, tree: object, environments: list[object]) -> None:
    file = tmp_path_factory.getbasetemp() / "tree.yaml"
    for data in (tree, {"environments": environments}):
        file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        with pytest.raises(InventoryError) as inventory:
            load_inventory(file)
        with pytest.raises(HypothesisError) as hypothesis:
            load_hypotheses([file])
        assert inventory.value.problems
        assert hypothesis.value.problems


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#\n\t %@`?,") | st.text())
def test_no_text_makes_the_yaml_reader_fail_otherwise_than_with_problems(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    file = tmp_path_factory.getbasetemp() / "text.yaml"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InventoryError):
        load_inventory(file)


FIELDS = {
    "region": st.sampled_from(["london", "newyork"]),
    "tier": st.sampled_from(["staging", "production", "development"]),
    "shares": st.lists(st.sampled_from(["nats", "cpu"]), max_size=2, unique=True),
    "machine": st.sampled_from(["host-1", "host-2"]),
    "exchanges": st.lists(st.sampled_from(["XNYS", "XLON"]), max_size=2, unique=True),
    "labels": st.dictionaries(st.sampled_from(["estate", "cluster", "zone"]), st.sampled_from(["1", "2"]), max_size=3),
    "owner": st.fixed_dictionaries({"team": st.sampled_from(["a", "b"])}),
}
ROOT = {
    "name": "e0",
    "region": "r",
    "tier": "staging",
    "owner": {"team": "t"},
    "platform": {"kind": "hosts", "root": "/r", "locks": "/l"},
}


@given(st.lists(st.tuples(st.integers(min_value=0), st.fixed_dictionaries({}, optional=FIELDS)), max_size=6), st.randoms())
def test_inheritance_is_the_nearest_value_upwards_in_whatever_order_files_list_them(
    tmp_path_factory: pytest.TempPathFactory, children: list[tuple[int, dict[str, object]]], random: object
) -> None:
    raw: dict[str, dict[str, object]] = {"e0": dict(ROOT)}
    for index, (parent, values) in enumerate(children, start=1):
        raw[f"e{index}"] = {"name": f"e{index}", "parent": f"e{parent % index}", **values}
    listed = list(raw.values())
    random.shuffle(listed)  # type: ignore[attr-defined]
    file = tmp_path_factory.getbasetemp() / "inheritance.yaml"
    file.write_text(yaml.safe_dump({"environments": listed}))
    for name, environment in load_inventory(file).environments.items():
        assert environment == Environment.model_validate({**expected(name, raw), "name": name, "parent": raw[name].get("parent")})


def expected(name: str, raw: dict[str, dict[str, object]]) -> dict[str, object]:
    """Inheritance written down a second time, as a recursion over the parents."""
    own = raw[name]
    if "parent" not in own:
        return dict(own)
    above = expected(str(own["parent"]), raw)
    labels: dict[str, str] = {**above.get("labels", {}), **own.get("labels", {})}  # type: ignore[dict-item]
    return {**above, **own, "labels": labels}
