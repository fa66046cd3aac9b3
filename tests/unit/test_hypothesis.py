"""Hypothesis files: indicators, bounds, durations and templates."""

from pathlib import Path

import pytest

from frangible.durations import format_duration, parse_duration
from frangible.errors import HypothesisError
from frangible.hypothesis import GaugeIndicator, Hypothesis, RatioIndicator, load_hypotheses, render, shipped_hypotheses
from frangible.template import check_query, check_selector

WHOLE = """\
name: checkout
title: t
description: d
requires: {metric: "offered_total{${labels}}", at-least: 10}
indicators:
  - name: good
    good: done_total{${labels},result="ok"}
    valid: done_total{${labels}}
    bound: {at-least: 0.99, drop-at-most: 0.005}
    tolerated-share: 0.1
    when-absent: broken
    abort: {worse-than: 0.5, for: 3s}
  - name: depth
    kind: gauge
    query: sum(queue_depth{${labels}})
    lookback: 5m
    bound: {at-most: 100, rise-at-most: 20}
    when-absent: ignore
    waived-during-effect: true
    block: 250ms
recovery: {within: 1m, steady-for: 5s}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "h.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(HypothesisError) as caught:
        load_hypotheses([written(folder, text)])
    return [str(problem).removeprefix(f"{folder}/h.yaml:") for problem in caught.value.problems]


def test_every_key_of_a_hypothesis_is_read(tmp_path: Path) -> None:
    hypothesis = load_hypotheses([written(tmp_path, WHOLE)])["checkout"]
    good, depth = hypothesis.indicators
    assert isinstance(good, RatioIndicator)
    assert isinstance(depth, GaugeIndicator)
    assert hypothesis.requires is not None
    assert (hypothesis.requires.metric, hypothesis.requires.at_least) == ("offered_total{${labels}}", 10)
    assert (good.kind, good.good, good.valid) == ("ratio", 'done_total{${labels},result="ok"}', "done_total{${labels}}")
    assert (good.bound.at_least, good.bound.drop_at_most, good.tolerated_share, good.block) == (0.99, 0.005, 0.1, 5)
    assert good.abort is not None
    assert (good.abort.worse_than, good.abort.for_) == (0.5, 3)
    assert (depth.lookback, depth.block, depth.waived_during_effect, depth.when_absent) == (300, 0.25, True, "ignore")
    assert (depth.bound.at_most, depth.bound.rise_at_most, depth.bound.at_least) == (100, 20, None)
    assert (hypothesis.recovery.within, hypothesis.recovery.steady_for) == (60, 5)


def test_a_hypothesis_survives_its_own_json(tmp_path: Path) -> None:
    hypothesis = load_hypotheses([written(tmp_path, WHOLE)])["checkout"]
    assert Hypothesis.model_validate_json(hypothesis.model_dump_json()) == hypothesis
    assert Hypothesis.model_validate(hypothesis.model_dump(mode="json", by_alias=True)) == hypothesis


def test_when_absent_is_mandatory_and_the_problem_says_what_the_values_mean(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, WHOLE.replace("    when-absent: broken\n", ""))
    assert problem.startswith("6: indicators[0]: `when-absent` is missing (`broken`: ")
    assert "`ignore`: " in problem


def test_all_problems_of_a_file_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """\
name: x
indicators:
  - name: a
    when-absent: brokn
    good: sum(x)
    valid: y{a="b"}
    blok: 5s
    bound: {at-leat: 1}
  - {kind: gage, name: b}
  - name: c
    kind: gauge
    when-absent: ignore
    query: rate(x{${labels}}[5m]) / on(x) group_left up
    lookback: 5
    bound: {at-least: 3, at-most: 2}
recovery: {within: soon}
"""
    assert problems(tmp_path, text) == [
        "4: indicators[0].when-absent: expected 'broken' or 'ignore', found 'brokn' (did you mean `broken`?)",
        "5: indicators[0].good: expected a plain metric selector such as name{${labels}}, without functions or ranges, found 'sum(x)'",
        "6: indicators[0].valid: expected ${labels} exactly once inside the braces of 'y{a=\"b\"}', found it 0 times",
        "7: indicators[0].blok: unknown key `blok` (did you mean `block`?)",
        "8: indicators[0].bound.at-leat: unknown key `at-leat` (did you mean `at-least`?)",
        "9: indicators[1]: expected a mapping whose `kind` is `ratio` (the default) or `gauge`, found a mapping",
        "13: indicators[2].query: the selector 'up' in 'rate(x{${labels}}[5m]) / on(x) group_left up' has no {${labels}}: it would match every environment",
        "14: indicators[2].lookback: expected a duration with its unit, such as 5s or 5ms, found 5",
        "15: indicators[2].bound: `at-least` 3.0 is above `at-most` 2.0: no value can keep both",
        "16: recovery.within: expected a duration such as 250ms, 10s, 2m or 1h, found 'soon'",
    ]


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        ("{at-least: 0.99, drop-at-most: 0.005}", "{}", "expected `at-least`, `drop-at-most` or both, found neither"),
        ("{at-most: 100, rise-at-most: 20}", "{}", "expected one of"),
        ("at-least: 0.99", "at-least: 99", "expected less than or equal to 1, found 99"),
        ("tolerated-share: 0.1", "tolerated-share: -1", "greater than or equal to 0"),
        ("name: depth", "name: good", "found twice: good"),
        ("at-least: 10", "at-least: 0", "greater than 0"),
        ("within: 1m", "within: 0s", "greater than 0"),
        ("within: 1m", "within: 9000h", "at most a year"),
        ("block: 250ms", "block: .inf", "expected a duration"),
        ("at-most: 100", "at-most: many", "expected number, found 'many'"),
        ("name: checkout", "name: a b", "expected text of the form"),
    ],
)
def test_a_bound_or_number_that_cannot_be_meant_is_refused(tmp_path: Path, found: str, replacement: str, expected: str) -> None:
    assert expected in problems(tmp_path, WHOLE.replace(found, replacement))[0]


def test_a_hypothesis_without_indicators_is_refused(tmp_path: Path) -> None:
    assert "at least 1 item" in problems(tmp_path, "name: x\nindicators: []\n")[0]
    assert "`indicators` is missing" in problems(tmp_path, "name: x\n")[0]
    assert "expected a mapping" in problems(tmp_path, "- x\n")[0]


def test_two_files_with_one_name_are_a_problem_and_problems_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WHOLE)
    (tmp_path / "b.yaml").write_text(WHOLE)
    (tmp_path / "c.yaml").write_text("name: c\n")
    with pytest.raises(HypothesisError) as caught:
        load_hypotheses([tmp_path])
    assert [Path(problem.file).name for problem in caught.value.problems] == ["b.yaml", "c.yaml"]
    assert f"already in {tmp_path}/a.yaml" in str(caught.value)


def test_the_shipped_hypotheses_load() -> None:
    hypotheses = load_hypotheses([shipped_hypotheses()])
    assert [indicator.name for indicator in hypotheses["order-flow"].indicators] == ["orders-acknowledged", "orders-intact", "none-lost-or-duplicated"]


@pytest.mark.parametrize(
    ("template", "labels", "expected"),
    [
        ('a_total{${labels},x="y"}', {"env": "ny"}, 'a_total{env="ny",x="y"}'),
        ('a_total{x="y",${labels}}', {"b": "2", "a": "1"}, 'a_total{x="y",a="1",b="2"}'),
        ("a_total{${labels}}", {"env": 'q"b\\n\n'}, 'a_total{env="q\\"b\\\\n\\n"}'),
        ("a_total{${labels}}", {"env": "${labels}"}, 'a_total{env="${labels}"}'),
        ('a_total{${labels} , x="y"}', {}, 'a_total{ x="y"}'),
        ('a_total{x="y",${labels}}', {}, 'a_total{x="y",}'),
        ("a_total{${labels}}", {}, "a_total{}"),
    ],
)
def test_labels_are_filled_in_and_escaped(template: str, labels: dict[str, str], expected: str) -> None:
    assert render(check_selector(template), labels) == expected


@pytest.mark.parametrize("name", ["", "a-b", "1a", "__name__", 'a="x",b', "é"])
def test_a_label_name_that_prometheus_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="label"):
        render("a{${labels}}", {name: "x"})


@pytest.mark.parametrize(
    "template",
    [
        "up",
        "up{}",
        'up{env="${labels}"}',
        "up{${labels},${labels}}",
        "up{${labels}}[5m]",
        "up{${labels}} offset 5m",
        "rate(up{${labels}})",
        "{${labels}}",
        'up{${labels},__name__="x"}',
        "up{${labels} x}",
        "up{${labels},x=y}",
        "up{${labels}} or up{${labels}}",
        "up{$labels}",
        "${labels}",
        'up{${labels},x="}',
        "up{,${labels}}",
    ],
)
def test_only_a_plain_metric_selector_with_labels_is_a_selector(template: str) -> None:
    with pytest.raises(ValueError, match=r"expected|not in a matcher|inside a quoted text"):
        check_selector(template)


@pytest.mark.parametrize(
    "query",
    [
        "up{${labels}}",
        "max(up{${labels}})",
        'histogram_quantile(0.99, sum by (le) (rate(x_bucket{${labels},job=~"a|b"}[30s])))',
        "sum(rate(x{${labels}}[5m] offset 1m)) without (pod) / ignoring (a, b) group_left (c) y{${labels}}",
        "SUM(x{${labels}}) BY (a) > bool 1e-3",
        '{__name__="x",${labels}}',
        "max_over_time(x{${labels}}[5m:10s])",
        "x{${labels}} @ 1609746000 or vector(0)",
        "clamp_max(x{${labels}}, Inf) - NaN # {no selector}",
        "label_replace(x{${labels}}, 'a', '$1', 'b', '(.*)')",
    ],
)
def test_promql_with_labels_in_each_selector_is_a_query(query: str) -> None:
    assert check_query(query) == query


@pytest.mark.parametrize(
    "query",
    [
        "",
        "1 + 1",
        "up",
        "sum(up)",
        "up{}",
        "a{${labels}} / b",
        "sum by (x) (b)",
        "a{${labels}} / on (x) b",
        '"${labels}"',
        "sum(${labels})",
        'a{x="${labels}"}',
        "a{${labels},${labels}}",
        "a{${labels}",
        "a{${label}}",
        "rate(a[5m])",
        "by",
    ],
)
def test_a_query_with_a_selector_without_labels_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match=r"labels|selector|expected"):
        check_query(query)


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("10s", 10), ("1.5m", 90), ("1h", 3600), ("0s", 0)])
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1 s", "-1s", "1e3s", "1w", "1s1m", "٣s", "10S", "10s\n"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)
