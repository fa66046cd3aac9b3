"""An experiment: a plain Chaos Toolkit file, and what frangible reads in it."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from frangible.durations import Positive, Seconds
from frangible.errors import ExperimentError, Problem
from frangible.fault import TOGETHER
from frangible.yamlfile import Declared, Document, Loc, details, problem_of, read_document

__all__ = [
    "CONTROL",
    "Activity",
    "ExperimentFile",
    "Extension",
    "Injection",
    "Windows",
    "load_experiment_file",
    "parse_experiment",
    "read_experiment",
    "shipped_experiments",
]

CONTROL = "frangible.control"
ACTIONS = "frangible.actions."
PROBE = ("frangible.probes.steady_state", "steady_state")
USUAL_HOLD = 20.0
"""Seconds, of an action that does not tell how long it holds by default."""
FAULTS = "frangible.faults"
"""Entry-point group of faults that others bring."""


class Windows(Declared):
    """Lengths of a run's windows, in seconds."""

    baseline: Positive = Field(default=15.0, description="how long the steady state must be seen before anything is injected")
    baseline_limit: Positive = Field(
        default_factory=lambda data: 4 * data.get("baseline", 15.0), description="how long to wait for that; four times `baseline` by default"
    )
    recovery_limit: Positive | None = Field(default=None, description="how long to wait for recovery; the hypotheses' `recovery.within` by default")
    observe_for: Seconds = Field(default=0.0, description="least length of the effect window, for faults that last no time, such as a restart")
    settle: Seconds = Field(default=1.0, description="how long after a revert was seen it is looked at once more")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.baseline_limit < self.baseline:
            raise ValueError(f"expected `baseline-limit` to be at least `baseline` ({self.baseline:g} s), found {self.baseline_limit:g} s")
        return self


class Extension(Windows):
    """The item named `frangible` in an experiment's `extensions:`; the toolkit itself ignores it."""

    name: Literal["frangible"]
    reverts: Literal["none"] | None = Field(default=None, description="`none`: this experiment's actions that are not frangible's need no rollback")


@dataclass(frozen=True, slots=True)
class Activity:
    """One activity of the method, its arguments resolved as the toolkit resolves them."""

    name: str
    loc: Loc
    type: str
    """`action` or `probe`."""
    provider: str
    """`python`, `process` or `http`."""
    module: str
    func: str
    arguments: Mapping[str, Any]
    background: bool


@dataclass(frozen=True, slots=True)
class Injection:
    """One activity that injects: a fault of the registry, or (`fault` is empty) somebody else's action."""

    name: str
    module: str
    func: str
    arguments: Mapping[str, Any]
    fault: str
    """The fault's kind, such as `node-loss`."""
    loc: Loc = ()
    """Where its activity stands."""
    place: Loc = ()
    """Where its `module`, `func` and `arguments` stand."""
    background: bool = False
    beside: bool = False
    """Whether it is in force together with the injection before it, for the same hold."""


@dataclass(frozen=True, slots=True)
class ExperimentFile:
    """What a run needs to know of an experiment. The file itself is what the toolkit runs."""

    path: Path
    name: str
    """The file's stem."""
    title: str
    digest: str
    """SHA-256 of the file's bytes, hexadecimal."""
    document: Mapping[str, Any]
    """The file as the toolkit reads it."""
    hypotheses: tuple[str, ...]
    """Names that the steady-state probes ask for, in order."""
    has_control: bool
    injections: tuple[Injection, ...]
    foreign: tuple[Injection, ...]
    """Actions that frangible cannot prove or revert."""
    windows: Windows
    reverts_none: bool = False

    @property
    def injects(self) -> bool:
        """Whether running it changes the target at all."""
        return bool(self.injections or self.foreign)

    @property
    def holds(self) -> tuple[Injection, ...]:
        """The injections whose holds follow one another; what is in force beside one of them is left out."""
        return tuple(injection for injection in self.injections if not injection.beside)


def shipped_experiments() -> Path:
    """Return the folder of the experiments that frangible ships."""
    return Path(next(iter(import_module("frangible.experiments").__path__)))


def load_experiment_file(path: Path) -> ExperimentFile:
    """Read an experiment; raise `ExperimentError` with all problems when it cannot be understood.

    Whether it may run is another question: see `frangible.validation`.
    """
    file, problems = parse_experiment(path, read_experiment(path))
    if problems:
        raise ExperimentError(problems)
    return file


def read_experiment(path: Path) -> Document:
    """Parse the file as the toolkit does: YAML 1.1 or JSON by its suffix, and a mapping."""
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ExperimentError((Problem(str(path), None, "", f"expected a file that ends in .yaml, .yml or .json, found {path.name!r}"),))
    document = _read_json(path) if path.suffix == ".json" else read_document(path, ExperimentError, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(document.data, dict):
        raise ExperimentError((document.problem((), "expected a Chaos Toolkit experiment, a mapping with `title` and `method`, found something else"),))
    return document


def _read_json(path: Path) -> Document:
    try:
        content = path.read_bytes()
        return Document(str(path), content, json.loads(content), None)
    except OSError as error:
        raise ExperimentError((Problem(str(path), None, "", f"cannot be read: {error.strerror}"),)) from error
    except json.JSONDecodeError as error:
        raise ExperimentError((Problem(str(path), error.lineno, "", f"not valid JSON: {error.msg}"),)) from error
    except UnicodeDecodeError as error:
        raise ExperimentError((Problem(str(path), None, "", "expected UTF-8 text, found other bytes"),)) from error


def parse_experiment(path: Path, document: Document) -> tuple[ExperimentFile, tuple[Problem, ...]]:
    """Return what can be read, and what is wrong with the parts that frangible reads."""
    problems: list[Problem] = []
    data: Mapping[str, Any] = document.data
    extension = _extension(document, problems)
    configuration = _configuration(document, problems)
    activities = tuple(_activities(document, configuration, problems))
    hypothesis = data.get("steady-state-hypothesis")
    probes = hypothesis.get("probes") if isinstance(hypothesis, dict) else None
    asked = [*_mappings(probes), *_mappings(data.get("method"))]
    injecting = [(injection, activity) for activity in activities for injection in _injections(activity, document, problems)]
    file = ExperimentFile(
        path=path,
        name=path.stem,
        title=str(data.get("title") or ""),
        digest=hashlib.sha256(document.content).hexdigest(),
        document=dict(data),
        hypotheses=tuple(dict.fromkeys(name for raw in asked if (name := _hypothesis_name(raw, configuration)))),
        has_control=len(control_indexes(data)) == 1,
        injections=tuple(injection for injection, _ in injecting if injection.fault),
        foreign=tuple(injection for injection, activity in injecting if not injection.fault and activity.type == "action"),
        windows=Windows.model_validate(extension.model_dump(by_alias=True, include=set(Windows.model_fields))),
        reverts_none=extension.reverts == "none",
    )
    return file, tuple(problems)


def control_indexes(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Return which items of `controls:` are our control, applied to the whole experiment (no `scope`, not `automatic: false`)."""
    listed = data.get("controls")
    return tuple(
        index
        for index, raw in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(raw, dict)
        and _provider(raw).get("module") == CONTROL
        and _provider(raw).get("type") == "python"
        and not raw.get("scope")
        and raw.get("automatic", True)
    )


def fault_kind(module: str) -> str:
    """Return the kind of fault that a module injects; empty when it is no fault that frangible knows. Nothing is imported."""
    if module == TOGETHER:
        return ""
    if module.startswith(ACTIONS):
        return module.removeprefix(ACTIONS).replace("_", "-")
    if module.partition(".")[0] in sys.stdlib_module_names:
        return ""  # nobody brings these, and the search takes its time
    from importlib.metadata import entry_points

    return next((entry.name for entry in entry_points(group=FAULTS) if entry.module == module), "")


def _extension(document: Document, problems: list[Problem]) -> Extension:
    listed = document.data.get("extensions")
    found = [(i, raw) for i, raw in enumerate(listed if isinstance(listed, list) else ()) if isinstance(raw, dict) and raw.get("name") == "frangible"]
    if not found:
        return Extension(name="frangible")
    for index, _ in found[1:]:
        problems.append(document.problem(("extensions", index), "expected one extension called 'frangible', found another one"))
    index, raw = found[0]
    try:
        return Extension.model_validate(raw, by_alias=True, by_name=False, context={"file": True})
    except ValidationError as error:
        problems.extend(problem_of(detail, document, Extension, ("extensions", index), frozenset()) for detail in details(error))
        return Extension(name="frangible")


def _configuration(document: Document, problems: list[Problem]) -> Mapping[str, Any]:
    """Resolve `configuration:` with the toolkit's own code: constants, and values from environment variables with their types."""
    declared = document.data.get("configuration")
    if not declared:
        return {}
    if not isinstance(declared, dict):
        problems.append(document.problem(("configuration",), "expected a mapping of names to values, found something else"))
        return {}
    from chaoslib.configuration import load_configuration
    from chaoslib.exceptions import ChaosException

    resolved: dict[str, Any] = {}
    for key, value in declared.items():
        try:
            resolved |= load_configuration({key: value})
        except ChaosException as error:
            problems.append(document.problem(("configuration", key), str(error), "set the variable, or give a `default`"))
        except KeyError as error:
            problems.append(document.problem(("configuration", key), f"`{error.args[0]}` is missing"))
        except (ValueError, TypeError, AttributeError) as error:
            problems.append(document.problem(("configuration", key), f"the value is not of the type that `env_var_type` states: {error}"))
    return resolved


def _activities(document: Document, configuration: Mapping[str, Any], problems: list[Problem]) -> Iterator[Activity]:
    data = document.data
    hypothesis = data.get("steady-state-hypothesis")
    probes = hypothesis.get("probes") if isinstance(hypothesis, dict) else None
    named = {raw.get("name"): raw for raw in (*_mappings(data.get("method")), *_mappings(probes))}
    method = data.get("method")
    for index, raw in enumerate(method if isinstance(method, list) else ()):
        if not isinstance(raw, dict):
            problems.append(document.problem(("method", index), "expected an activity, a mapping with `type`, `name` and `provider`, found something else"))
            continue
        reference = raw.get("ref")
        if reference is not None and reference not in named:
            problems.append(document.problem(("method", index, "ref"), f"no activity is called {reference!r}"))
        else:
            yield _activity(named[reference] if reference is not None else raw, ("method", index), configuration)


def _activity(raw: Mapping[str, Any], loc: Loc, configuration: Mapping[str, Any]) -> Activity:
    provider = _provider(raw)
    return Activity(
        name=str(raw.get("name") or ""),
        loc=loc,
        type=str(raw.get("type") or ""),
        provider=str(provider.get("type") or ""),
        module=str(provider.get("module") or ""),
        func=str(provider.get("func") or ""),
        arguments=MappingProxyType(_resolved(provider.get("arguments"), configuration)),
        background=raw.get("background") is True,
    )


def _injections(activity: Activity, document: Document, problems: list[Problem]) -> tuple[Injection, ...]:
    """Return what an activity injects; each fault of `frangible.actions.together` is an injection of its own."""
    place = (*activity.loc, "provider")
    if activity.provider == "python" and activity.module == TOGETHER:
        return tuple(_together(activity, place, document, problems))
    kind = fault_kind(activity.module) if activity.provider == "python" else ""
    return (Injection(activity.name, activity.module, activity.func, activity.arguments, kind, activity.loc, place, activity.background),)


def _together(activity: Activity, place: Loc, document: Document, problems: list[Problem]) -> Iterator[Injection]:
    listed, place = activity.arguments.get("faults"), (*place, "arguments", "faults")
    if not isinstance(listed, list) or len(listed) < 2:
        example = "such as {module: frangible.actions.node_loss, func: lose_nodes, arguments: {role: execution}}"
        problems.append(document.problem(place, f"expected a list of two or more faults, {example}, found something else"))
        return
    for index, raw in enumerate(listed):
        where = (*place, index)
        wrong = _part_problem(raw)
        if wrong:
            problems.append(document.problem(where, wrong))
            continue
        arguments = MappingProxyType({**(raw.get("arguments") or {}), "hold": activity.arguments.get("hold", USUAL_HOLD)})
        yield Injection(activity.name, raw["module"], raw["func"], arguments, fault_kind(raw["module"]), activity.loc, where, activity.background, index > 0)


def _part_problem(raw: object) -> str:
    """Say what is wrong with one of several faults; empty when nothing is."""
    if not isinstance(raw, dict) or not isinstance(raw.get("module"), str) or not isinstance(raw.get("func"), str):
        return "expected a fault, a mapping with `module`, `func` and perhaps `arguments`, found something else"
    arguments = raw.get("arguments") or {}
    if not isinstance(arguments, dict):
        return "expected `arguments` to be a mapping, found something else"
    if "hold" in arguments:
        return "faults that are in force together have one `hold`, that of their action; remove this one"
    if not fault_kind(raw["module"]):
        return f"{raw['module']} injects no fault that frangible can prove and revert, so it cannot be in force together with others"
    surplus = sorted(map(str, raw.keys() - {"module", "func", "arguments"}))
    return f"unknown key `{surplus[0]}`; expected `module`, `func` and `arguments`" if surplus else ""


def _hypothesis_name(raw: Mapping[str, Any], configuration: Mapping[str, Any]) -> str:
    provider = _provider(raw)
    if not is_steady_state(raw):
        return ""
    name = _resolved(provider.get("arguments"), configuration).get("hypothesis")
    return name if isinstance(name, str) else ""


def is_steady_state(raw: Mapping[str, Any]) -> bool:
    """Whether an activity is the probe through which hypotheses are named."""
    provider = _provider(raw)
    return provider.get("type") == "python" and (provider.get("module"), provider.get("func")) == PROBE


def _resolved(arguments: object, configuration: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(arguments, dict):
        return {}
    if not configuration:
        return dict(arguments)
    from chaoslib import substitute

    return dict(substitute(arguments, configuration, {}))


def _provider(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    provider = raw.get("provider")
    return provider if isinstance(provider, dict) else {}


def _mappings(listed: object) -> Iterator[Mapping[str, Any]]:
    yield from (raw for raw in (listed if isinstance(listed, list) else ()) if isinstance(raw, dict))
