"""Is this experiment fit to run, here? All problems of the file and of its combination with an environment, at once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from frangible import toolkit
from frangible.errors import ExperimentError, FaultError, PlatformError, Problem
from frangible.experiment import ExperimentFile, Injection, parse_experiment, read_experiment
from frangible.hypothesis import Hypothesis
from frangible.inventory import Environment, Inventory
from frangible.platforms.kubernetes.permissions import HELPERS
from frangible.rules import file_problems, hold_of
from frangible.schemas import schema
from frangible.targets import Choice, candidates, service_nodes
from frangible.yamlfile import Document, nearest

__all__ = ["Checked", "check", "primitives_of", "problems_there", "schema", "surveyed", "validate"]

DECLARED_BY = {
    "hosts": {"pause": "services", **dict.fromkeys(("drain", "cut", "kill", "rollout"), "kind: kubernetes")},
    "kubernetes": dict.fromkeys(HELPERS, "helper-image"),
}
"""The key of `platform` that gives a primitive, by kind of platform, where it is not the primitive's name."""
ASSUMED_SCRAPE_INTERVAL = 1.0
"""Seconds, where the inventory states none: then only what could not be reached in any case is refused."""


@dataclass(frozen=True, slots=True)
class Checked:
    """An experiment's file, and what is wrong with it wherever it runs."""

    file: ExperimentFile
    document: Document
    problems: tuple[Problem, ...]


def check(experiment: Path, hypotheses: Mapping[str, Hypothesis], complaints: Callable[[object], tuple[str, ...]] = toolkit.complaints) -> Checked:
    """Read an experiment and check all of it that does not depend on an environment; raise `ExperimentError` when it cannot be read at all."""
    document = read_experiment(experiment)
    file, found = parse_experiment(experiment, document)
    problems = (*found, *file_problems(file, document, hypotheses), *(document.problem((), told) for told in complaints(document.data)))
    return Checked(file, document, problems)


def validate(
    experiment: Path,
    environment: Environment | None,
    inventory: Inventory | None,
    hypotheses: Mapping[str, Hypothesis],
    complaints: Callable[[object], tuple[str, ...]] = toolkit.complaints,
) -> tuple[Problem, ...]:
    """Return all problems of an experiment, sorted by line; with an environment also those of running it there.

    The environment is as `surveyed` returned it. One that could not be surveyed has no nodes, and then nothing is said of targets.
    Nothing is reached over the network and nothing is changed. The modules that the experiment names are imported, as the toolkit does;
    `complaints` asks the toolkit.
    """
    try:
        checked = check(experiment, hypotheses, complaints)
    except ExperimentError as error:
        return error.problems
    return problems_there(checked, environment, inventory, hypotheses)


def problems_there(checked: Checked, environment: Environment | None, inventory: Inventory | None, hypotheses: Mapping[str, Hypothesis]) -> tuple[Problem, ...]:
    """Return the problems of an experiment that was checked, with those of running it in an environment, sorted by line."""
    problems = list(checked.problems)
    if environment is not None:
        problems.extend(_environment_problems(checked.file, checked.document, environment, hypotheses))
        if inventory is not None:
            problems.extend(_mixed_up(environment, inventory))
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line or 0)))


def surveyed(environment: Environment) -> tuple[Environment, str]:
    """Return the environment with its nodes and roles as they are now, and an empty text; or without nodes, and why its cluster could not be asked.

    What is declared of a cluster's nodes adds to what the cluster says, so alone it tells nothing of targets.
    Only for an environment on Kubernetes is anything reached over the network.
    """
    from frangible.platforms import open_platform

    try:
        return open_platform(environment).survey(), ""
    except PlatformError as error:
        return environment.model_copy(update={"nodes": ()}), str(error)


def primitives_of(environment: Environment) -> frozenset[str]:
    """Return the primitives that the environment's platform will offer, as far as the inventory tells."""
    platform = environment.platform
    if platform.kind == "kubernetes":
        from frangible.platforms import open_platform

        return open_platform(environment).primitives  # from the inventory: nothing is reached, nor is the client imported
    services = platform.services
    pausing = services is not None and (services.driver == "rack" or bool(services.pause))
    offered = {
        "power": platform.power is not None,
        "cpu": platform.cpu is not None,
        "load": platform.load is not None,
        "services": services is not None,
        "pause": pausing,
    }
    return frozenset(name for name, there in offered.items() if there)


def _environment_problems(file: ExperimentFile, document: Document, environment: Environment, hypotheses: Mapping[str, Hypothesis]) -> Iterator[Problem]:
    if file.hypotheses and environment.prometheus is None:
        message = f"environment {environment.name} has no `prometheus`, so its indicators cannot be read"
        yield document.problem(("steady-state-hypothesis",), message, "add it to the inventory")
    for injection in file.injections:
        yield from _primitive_problems(injection, document, environment)
        yield from _target_problems(injection, document, environment)
    if file.injections:
        for name in file.hypotheses:
            if name in hypotheses:
                yield from _reachability_problems(file, document, environment, hypotheses[name])


def _primitive_problems(injection: Injection, document: Document, environment: Environment) -> Iterator[Problem]:
    from frangible.fault import FaultRegistry

    place = (*injection.place, "module")
    registry = FaultRegistry()
    if injection.fault not in registry.kinds():
        return  # reported as a module that cannot be imported
    try:
        fault = registry.load(injection.fault)
    except FaultError as error:
        yield document.problem(place, str(error))
        return
    missing = sorted(fault.needs - primitives_of(environment))
    if missing:
        message = f"the fault {injection.fault} needs {', '.join(missing)}, which the platform of {environment.name} does not offer"
        needed = dict.fromkeys(DECLARED_BY[environment.platform.kind].get(name, name) for name in missing)
        yield document.problem(place, message, f"add `{'`, `'.join(needed)}` to its `platform`")


def _target_problems(injection: Injection, document: Document, environment: Environment) -> Iterator[Problem]:
    """Say what of an action's choice the environment does not have: the narrowest part that matches nothing is named."""
    arguments, place = injection.arguments, (*injection.place, "arguments")
    kind = _target_kind(injection)
    if environment.platform.kind == "kubernetes" and not environment.nodes:
        return  # where its pods are is not known: `surveyed` said why
    if not environment.nodes and kind != "load":
        yield document.problem(place, f"environment {environment.name} has no nodes", "add `nodes` to the inventory")
        return
    try:
        choice = Choice.of(arguments)
    except ValueError:
        return  # reported as an argument of the wrong type
    known = {
        "role": sorted({role for node in environment.nodes for role in node.roles}),
        "name": [node.name for node in environment.nodes],
        "service": sorted(service_nodes(environment)),
    }
    for argument in known:
        value = str(arguments.get(argument) or "")
        if value and value not in known[argument] and "${" not in value:
            said = {
                "role": f"no node of environment {environment.name} has the role {value!r}",
                "name": f"environment {environment.name} has no node {value!r}",
                "service": f"environment {environment.name} has no service or middleware {value!r}",
            }[argument]
            yield document.problem((*place, argument), said, nearest(value, known[argument]))
            return
    matching = candidates(environment, kind, choice)
    if not matching and choice.role and choice.name:
        yield document.problem((*place, "name"), f"node {choice.name!r} of environment {environment.name} does not have the role {choice.role!r}")
    elif not matching:
        yield document.problem(place, f"environment {environment.name} has no {kind} of {choice}")
    elif choice.wanted(len(matching)) > len(matching):
        yield document.problem((*place, "count"), f"asked for {choice.count} {kind}s, {len(matching)} match in environment {environment.name}")


def _target_kind(injection: Injection) -> str:
    from frangible.fault import FaultRegistry

    try:
        return FaultRegistry().load(injection.fault).target_kind
    except FaultError:
        return "node"  # reported as a fault that cannot be loaded


def _reachability_problems(file: ExperimentFile, document: Document, environment: Environment, hypothesis: Hypothesis) -> Iterator[Problem]:
    from frangible.fault import PROOF_EVERY
    from frangible.judge import reachability

    declared = environment.prometheus.scrape_interval if environment.prometheus else None
    holds, observed = _holds(file), file.windows.observe_for
    for sentence in reachability(
        hypothesis,
        scrape_interval=declared or ASSUMED_SCRAPE_INTERVAL,
        baseline=file.windows.baseline,
        effect=max(holds, observed),
        proof_interval=PROOF_EVERY if holds > observed else 0.0,
        recovery=file.windows.recovery_limit or hypothesis.recovery.within,
        load=hypothesis.requires.at_least if hypothesis.requires else None,
    ):
        yield document.problem((), f"`held` cannot be reached: {sentence}")


def _holds(file: ExperimentFile) -> float:
    """Return the seconds for which faults will be in force: actions run one after the other."""
    return sum(map(hold_of, file.holds))


def _mixed_up(environment: Environment, inventory: Inventory) -> Iterator[Problem]:
    """Two environments whose series cannot be told apart would be judged by each other's."""
    if environment.prometheus is None or environment.name not in inventory.environments:
        return
    family = {environment.name, *inventory.ancestors(environment.name), *inventory.descendants(environment.name)}
    for other in inventory.environments.values():
        same = other.prometheus is not None and other.prometheus.url == environment.prometheus.url and other.labels == environment.labels
        if same and other.name not in family:
            message = f"environments {environment.name} and {other.name} have the same Prometheus and the same `labels`: their series cannot be told apart"
            yield Problem(str(inventory.path), None, "", message, "give each `labels` of its own")
