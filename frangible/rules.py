"""What an experiment must and must not contain, whichever environment it is for."""

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from frangible.errors import Problem
from frangible.experiment import CONTROL, USUAL_HOLD, ExperimentFile, Injection, control_indexes, fault_kind, is_steady_state
from frangible.fault import TOGETHER
from frangible.hypothesis import Hypothesis
from frangible.yamlfile import Document, Loc, nearest

__all__ = ["file_problems", "hold_of"]

PLAIN: Mapping[object, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
"""Which values of a file an activity's parameter of a plain type takes."""
NO_EFFECT = "expected `hold` to be more than 0 seconds, or `observe-for` in the extension `frangible`: nothing would be observed"
CONTROL_EXAMPLE = f"add `controls: [{{name: frangible, provider: {{type: python, module: {CONTROL}}}}}]`"


def file_problems(file: ExperimentFile, document: Document, hypotheses: Mapping[str, Hypothesis]) -> Iterator[Problem]:
    """Yield everything for which frangible would refuse the experiment on any environment."""
    yield from _control_problems(file, document)
    yield from _runtime_problems(document)
    yield from _steady_state_problems(file, document)
    yield from _probe_problems(file, document, hypotheses)
    yield from _stray_problems(document)
    yield from _foreign_problems(file, document)
    for injection in (*file.injections, *file.foreign):
        if injection.background:
            message = f"the action {injection.name!r} runs in the background: nobody knows when its effect begins and ends"
            yield document.problem((*injection.loc, "background"), message, "remove `background`")
    for injection in file.injections:
        yield from _argument_problems(injection, file, document)


def _control_problems(file: ExperimentFile, document: Document) -> Iterator[Problem]:
    found = control_indexes(document.data)
    for index in found[1:]:
        yield document.problem(("controls", index), f"the control {CONTROL} is declared twice, so everything would be done twice", "remove one")
    if found or not file.injects:
        return
    listed = document.data.get("controls")
    for index, raw in enumerate(listed if isinstance(listed, list) else ()):
        provider = raw.get("provider") if isinstance(raw, dict) else None
        if isinstance(provider, dict) and provider.get("module") == CONTROL:
            yield document.problem(("controls", index), f"the control {CONTROL} must cover the whole experiment", "remove `scope`, `automatic` and `ref`")
            return
    yield document.problem((), f"the experiment injects and does not declare the control {CONTROL}", CONTROL_EXAMPLE)


def _runtime_problems(document: Document) -> Iterator[Problem]:
    place: Any = document.data
    if not isinstance(place.get("runtime", {}), dict):
        yield document.problem(("runtime",), "expected a mapping such as {rollbacks: {strategy: always}}, found something else")
    for key in ("runtime", "python", "dependencies"):
        place = place.get(key) if isinstance(place, dict) else None
    if place:
        loc = ("runtime", "python", "dependencies")
        yield document.problem(loc, "an experiment must not install packages while it runs", "install them beforehand and remove this key")


def _steady_state_problems(file: ExperimentFile, document: Document) -> Iterator[Problem]:
    if not file.injects:
        return
    hypothesis = document.data.get("steady-state-hypothesis")
    probes = hypothesis.get("probes") if isinstance(hypothesis, dict) else None
    if not any(isinstance(raw, dict) and is_steady_state(raw) for raw in (probes if isinstance(probes, list) else ())):
        message = "the experiment injects and its `steady-state-hypothesis` names no hypothesis, so nothing could be judged"
        loc: Loc = ("steady-state-hypothesis",) if hypothesis else ()
        yield document.problem(loc, message, "add a probe with module frangible.probes.steady_state, func steady_state, arguments {hypothesis: NAME}")


def _probe_problems(file: ExperimentFile, document: Document, hypotheses: Mapping[str, Hypothesis]) -> Iterator[Problem]:
    resolved = tuple(name for name in file.hypotheses if name not in hypotheses)
    for loc, raw in _activities(document.data):
        if not is_steady_state(raw):
            continue
        arguments = raw["provider"].get("arguments")
        name = arguments.get("hypothesis") if isinstance(arguments, dict) else None
        where = (*loc, "provider", "arguments", "hypothesis")
        if not isinstance(name, str):
            yield document.problem(where, "expected the name of a hypothesis, found none", nearest("", hypotheses))
        else:
            for unknown in resolved if "${" in name else (name,) if name not in hypotheses else ():
                yield document.problem(where, f"no hypothesis is called {unknown!r}", nearest(unknown, hypotheses))
        if loc[0] == "steady-state-hypothesis" and raw.get("tolerance") is not True:
            yield document.problem((*loc, "tolerance"), "expected `tolerance: true`: the probe says whether the hypothesis holds")


def _activities(data: object, loc: Loc = ()) -> Iterator[tuple[Loc, Mapping[str, Any]]]:
    """Yield every mapping that has a provider, wherever the toolkit may run one (also tolerances and configuration)."""
    if isinstance(data, dict):
        if isinstance(data.get("provider"), dict):
            yield loc, data
        for key, value in data.items():
            yield from _activities(value, (*loc, str(key)))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _activities(value, (*loc, index))


def _stray_problems(document: Document) -> Iterator[Problem]:
    for loc, raw in _activities(document.data):
        module = raw["provider"].get("module")
        if not isinstance(module, str) or not (module == TOGETHER or fault_kind(module)) or (loc[0] == "method" and len(loc) == 2):
            continue
        yield document.problem(loc, f"{module} injects a fault, and faults belong into `method`", "a fault reverts itself; remove it here")


def _foreign_problems(file: ExperimentFile, document: Document) -> Iterator[Problem]:
    rollbacks = document.data.get("rollbacks")
    if not file.foreign or file.reverts_none:
        return
    if not rollbacks:
        for action in file.foreign:
            message = f"the action {action.name!r} is not one of frangible's, and nothing would revert it"
            hint = "add `rollbacks`, or `reverts: none` to the extension `frangible` when there is nothing to revert"
            yield document.problem(action.loc, message, hint)
        return
    place: Any = document.data
    for key in ("runtime", "rollbacks", "strategy"):
        place = place.get(key) if isinstance(place, dict) else None
    if place != "always":
        message = "the rollbacks of actions that are not frangible's would be skipped when the run is interrupted"
        yield document.problem(("runtime", "rollbacks", "strategy"), message, "add `runtime: {rollbacks: {strategy: always}}`")


def _argument_problems(injection: Injection, file: ExperimentFile, document: Document) -> Iterator[Problem]:
    """Check an action's arguments against the signature of the function that takes them."""
    place = injection.place
    signature, problem = _signature(injection, document)
    if signature is None:
        if problem is not None:
            yield problem
        return
    takes = {name: parameter for name, parameter in signature.parameters.items() if name not in ("configuration", "secrets")}
    for name, value in injection.arguments.items():
        where = (*place, "arguments", str(name))
        if name not in takes:
            yield document.problem(where, f"{injection.func} takes no argument `{name}`", nearest(str(name), takes))
        else:
            yield from (document.problem(where, message) for message in _value_messages(str(name), value, takes[name].annotation, file))
    if "hold" not in injection.arguments and file.windows.observe_for == 0 and "hold" in takes and takes["hold"].default == 0:
        yield document.problem((*place, "arguments"), NO_EFFECT)
    for name, parameter in takes.items():
        if parameter.default is parameter.empty and name not in injection.arguments:
            yield document.problem((*place, "arguments"), f"{injection.func} needs the argument `{name}`")
    beyond = getattr(importlib.import_module(injection.module), "argument_problems", None)
    yield from (document.problem((*place, "arguments"), message) for message in (beyond(injection.arguments) if beyond else ()))


def hold_of(injection: Injection) -> float:
    """Return the seconds for which an action holds its fault: its argument, or its function's default; 0 where that is no number."""
    signature = None
    if "hold" not in injection.arguments:
        try:
            signature = inspect.signature(getattr(importlib.import_module(injection.module), injection.func))
        except (ImportError, AttributeError, TypeError, ValueError):  # reported as a module or function that there is not
            return USUAL_HOLD
    default = signature.parameters["hold"].default if signature is not None and "hold" in signature.parameters else USUAL_HOLD
    seconds = injection.arguments.get("hold", default)
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _signature(injection: Injection, document: Document) -> tuple[inspect.Signature | None, Problem | None]:
    place = injection.place
    try:
        module = importlib.import_module(injection.module)
    except ImportError as error:
        return None, document.problem((*place, "module"), f"the module {injection.module} cannot be imported: {error}", _near_module(injection.module))
    function = getattr(module, injection.func, None)
    if not inspect.isfunction(function):
        public = getattr(module, "__all__", ())
        return None, document.problem((*place, "func"), f"{injection.module} has no function {injection.func!r}", nearest(injection.func, public))
    return inspect.signature(function), None


def _near_module(module: str) -> str:
    from frangible.fault import FaultRegistry

    known = [f"frangible.actions.{kind.replace('-', '_')}" for kind in FaultRegistry().kinds()]
    close = difflib.get_close_matches(module, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"


def _value_messages(name: str, value: object, annotation: object, file: ExperimentFile) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield f"`{name}` refers to {value}, and `configuration` does not set it"
        return
    accepted = PLAIN.get(annotation)
    if accepted is not None and (not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted)):
        yield f"expected `{name}` to be {getattr(annotation, '__name__', annotation)}, found {value!r}"
    elif name == "hold" and isinstance(value, int | float) and not value > 0 and file.windows.observe_for == 0:
        yield NO_EFFECT
    elif name == "count" and isinstance(value, int) and value < 1:
        yield f"expected `count` to be 1 or more, found {value}"
    elif name == "share" and isinstance(value, int | float) and not 0 <= value <= 1:
        yield f"expected `share` to be from 0 (use `count`) to 1 (all), found {value:g}"
