"""What steady state means: hypotheses made of indicators, loaded from YAML and rendered for one environment."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from frangible.durations import Positive, Seconds
from frangible.errors import HypothesisError, Problem
from frangible.template import check_query, check_selector, render
from frangible.yamlfile import Declared, Document, problems_of, read_document, yaml_files

__all__ = [
    "AbortCondition",
    "Detection",
    "GaugeBound",
    "GaugeIndicator",
    "Hypothesis",
    "Indicator",
    "LeastLoad",
    "RatioBound",
    "RatioIndicator",
    "Recovery",
    "load_hypotheses",
    "render",
    "shipped_hypotheses",
]

type Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
type Selector = Annotated[str, AfterValidator(check_selector)]
type Query = Annotated[str, AfterValidator(check_query)]
type Share = Annotated[float, Field(ge=0, le=1)]

WHEN_ABSENT = "`broken`: a series that was there in the baseline and went away breaks the bound; `ignore`: its absence says nothing"


class AbortCondition(Declared):
    """When to stop a run early: the indicator is worse than a value for some time."""

    worse_than: float = Field(description="ratio: the good share falls below this; gauge: the value passes the bound's side of this")
    for_: Seconds = Field(default=0.0, description="for how long without interruption")


class LeastLoad(Declared):
    """The least offered load at which the hypothesis means anything."""

    metric: Selector = Field(description="selector of a counter of offered events, with ${labels}")
    at_least: float = Field(gt=0, description="events per second")


class Recovery(Declared):
    """What counts as recovered, and by when."""

    within: Positive = Field(default=60.0, description="limit from the revert observed until steady again")
    steady_for: Seconds = Field(default=5.0, description="how long every bound must be kept to count as steady")


class Detection(Declared):
    """An alert that should notice the fault: told beside the verdict, never part of it."""

    alert: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="name of the alert, as Prometheus's `ALERTS` has it")
    within: Positive = Field(description="by when it should fire, from when the fault was first seen")


class RatioBound(Declared):
    """Bounds of a share of good events."""

    at_least: Share | None = Field(default=None, description="least good share")
    drop_at_most: Share | None = Field(default=None, description="how far the share may fall below the run's own baseline, in shares")

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.at_least is None and self.drop_at_most is None:
            raise ValueError("expected `at-least`, `drop-at-most` or both, found neither")
        return self


class GaugeBound(Declared):
    """Bounds of a value, in the query's own unit."""

    at_least: float | None = Field(default=None, description="least value")
    at_most: float | None = Field(default=None, description="greatest value")
    rise_at_most: float | None = Field(default=None, ge=0, description="how far above the run's own baseline")
    drop_at_most: float | None = Field(default=None, ge=0, description="how far below the run's own baseline")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.at_least is None and self.at_most is None and self.rise_at_most is None and self.drop_at_most is None:
            raise ValueError("expected one of `at-least`, `at-most`, `rise-at-most`, `drop-at-most`, found none")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"`at-least` {self.at_least} is above `at-most` {self.at_most}: no value can keep both")
        return self


class _Indicator(Declared):
    name: Name
    title: str = ""
    when_absent: Literal["broken", "ignore"] = Field(description=WHEN_ABSENT)
    tolerated_share: Share = Field(
        default=0.0, description="effect window only: the further share of events (ratio) or blocks (gauge) that may break the bound"
    )
    waived_during_effect: bool = Field(default=False, description="the bound counts in the baseline and after the recovery, not while the fault is in force")
    abort: AbortCondition | None = Field(default=None, description="when to stop the run early")
    block: Positive = Field(default=5.0, description="length of one block of evidence")


class RatioIndicator(_Indicator):
    """The share of good events among valid ones, both counters."""

    kind: Literal["ratio"] = "ratio"
    good: Selector = Field(description="selector of the counter of good events, with ${labels}")
    valid: Selector = Field(description="selector of the counter of all valid events, with ${labels}")
    bound: RatioBound


class GaugeIndicator(_Indicator):
    """The value of one series, such as a queue's depth or a latency quantile."""

    kind: Literal["gauge"] = "gauge"
    query: Query = Field(description="PromQL that gives one series; ${labels} in each selector")
    lookback: Positive = Field(description="how far back the query looks: its longest range, or the scrape interval for plain selectors")
    bound: GaugeBound


def _kind(value: object) -> str:
    kind = value.get("kind", "ratio") if isinstance(value, dict) else getattr(value, "kind", "ratio")
    return kind if isinstance(kind, str) else "ratio"


type Indicator = Annotated[
    Annotated[RatioIndicator, Tag("ratio")] | Annotated[GaugeIndicator, Tag("gauge")],
    Discriminator(_kind, custom_error_type="indicator_kind", custom_error_message="Input should be a mapping whose `kind` is `ratio` (the default) or `gauge`"),
]


class Hypothesis(Declared):
    """A named, reusable set of indicators: what steady state means for a service."""

    name: Name
    title: str = ""
    description: str = ""
    requires: LeastLoad | None = Field(default=None, description="the least offered load; below it a run is inconclusive: not exercised")
    indicators: tuple[Indicator, ...] = Field(min_length=1)
    detections: tuple[Detection, ...] = Field(default=(), description="alerts that should notice; recorded beside the verdict, never changing it")
    recovery: Recovery = Field(default_factory=Recovery)

    @field_validator("indicators")
    @classmethod
    def _distinct(cls, indicators: tuple[RatioIndicator | GaugeIndicator, ...]) -> tuple[RatioIndicator | GaugeIndicator, ...]:
        names = [indicator.name for indicator in indicators]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each indicator to have a name of its own, found twice: {', '.join(twice)}")
        return indicators


def shipped_hypotheses() -> Path:
    """Return the folder of the hypotheses that frangible ships."""
    return Path(next(iter(import_module("frangible.hypotheses").__path__)))


def load_hypotheses(paths: Iterable[Path]) -> Mapping[str, Hypothesis]:
    """Load files and folders of files, one hypothesis a file, by name; raise `HypothesisError` with all problems of all files."""
    problems: list[Problem] = []
    loaded: dict[str, tuple[Hypothesis, Document]] = {}
    for file in _files(paths, problems):
        try:
            hypothesis, document = _load(file)
        except HypothesisError as error:
            problems.extend(error.problems)
            continue
        if hypothesis.name in loaded:
            first = loaded[hypothesis.name][1].file
            problems.append(document.problem(("name",), f"the hypothesis {hypothesis.name!r} is already in {first}", "give it a name of its own"))
        loaded.setdefault(hypothesis.name, (hypothesis, document))
    if problems:
        raise HypothesisError(tuple(sorted(problems, key=lambda problem: (problem.file, problem.line or 0))))
    return MappingProxyType({name: hypothesis for name, (hypothesis, _) in sorted(loaded.items())})


def _files(paths: Iterable[Path], problems: list[Problem]) -> tuple[Path, ...]:
    files: list[Path] = []
    for path in paths:
        try:
            files.extend(yaml_files(path, HypothesisError))
        except HypothesisError as error:
            problems.extend(error.problems)
    return tuple(dict.fromkeys(files))


def _load(file: Path) -> tuple[Hypothesis, Document]:
    document = read_document(file, HypothesisError)
    if not isinstance(document.data, dict):
        raise HypothesisError((document.problem((), "expected a mapping with `name` and `indicators`, found something else"),))
    try:
        return Hypothesis.model_validate(document.data, by_alias=True, by_name=False, context={"file": True}), document
    except ValidationError as error:
        raise HypothesisError(problems_of(error, document, Hypothesis)) from error
