"""What `frangible run --dry-run` shows: everything that would happen, and whether it may."""

import json
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from frangible.cli.opening import ledger_of
from frangible.cli.output import print_json, span
from frangible.errors import FrangibleError, LedgerError, PlatformError, Refused
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.environment import Environment
    from frangible.experiment import Injection
    from frangible.hypothesis import Hypothesis
    from frangible.plan import Plan

__all__ = ["preview", "preview_all"]

REFUSED = 4
DEFAULT_HOLD = 20.0


def preview(plan: "Plan", *, as_json: bool) -> int:
    """Print the plan and the guards' answer; return the exit code. Nothing is left of the plan on disk."""
    document = _looked_at(plan)
    if as_json:
        print_json(document)
    return _tell(plan, document, lines=not as_json)


def preview_all(plans: "Sequence[Plan]", *, as_json: bool) -> int:
    """Print all plans, as one JSON list where that is asked for; return 4 when one of them would be refused."""
    documents = [_looked_at(plan) for plan in plans]
    if as_json:
        print_json(documents)
    return max([_tell(plan, document, lines=not as_json) for plan, document in zip(plans, documents, strict=True)], default=0)


def _looked_at(plan: "Plan") -> dict[str, object]:
    shutil.rmtree(plan.folder, ignore_errors=True)
    environment = _surveyed(plan)
    injections = [_injection(environment, one, plan.seed + number) for number, one in enumerate(_injections(plan))]
    reasons = [*(str(one["problem"]) for one in injections if one["problem"]), *_refusals(plan, injections)]
    return _document(plan, injections, reasons)


def _tell(plan: "Plan", document: dict[str, object], *, lines: bool) -> int:
    for line in _lines(plan, document) if lines else ():
        typer.echo(line)
    for reason in document["reasons"]:  # type: ignore[attr-defined]
        typer.echo(f"frangible: not injecting: {reason}", err=True)
    return 0 if document["allowed"] else REFUSED


def _injections(plan: "Plan") -> "tuple[Injection, ...]":
    from pathlib import Path

    from frangible.experiment import load_experiment_file

    return load_experiment_file(Path(plan.experiment_path)).injections


def _surveyed(plan: "Plan") -> "Environment":
    """Return the environment as it is now; where it cannot be asked the guards will say so."""
    from frangible.platforms import open_platform

    try:
        return open_platform(plan.environment).survey()
    except PlatformError:
        return plan.environment


def _injection(environment: "Environment", injection: "Injection", seed: int) -> dict[str, object]:
    """One action: which targets it would draw."""
    from frangible.fault import FaultRegistry
    from frangible.targets import Choice, draw

    kind, choice = FaultRegistry().load(injection.fault).target_kind, Choice.of(injection.arguments)
    hold = float(str(injection.arguments.get("hold", DEFAULT_HOLD)))
    found: dict[str, object] = {"fault": injection.fault, "hold": hold, "seed": choice.seed or seed, "targets": [], "nodes": [], "problem": ""}
    found["beside"] = injection.beside
    try:
        targets, _ = draw(environment, kind, choice, seed)
    except Refused as refusal:
        return found | {"problem": "; ".join(refusal.reasons)}
    return found | {"targets": [target.name for target in targets], "nodes": sorted({target.node for target in targets if kind != "load"})}


def _refusals(plan: "Plan", injections: list[dict[str, object]]) -> list[str]:
    """Ask the guards as a run would, and look who holds the locks."""
    from frangible.guard import decide
    from frangible.platforms import open_platform
    from frangible.supervisor.admitting import guard_facts

    targets = {name for one in injections for name in one["targets"]}  # type: ignore[attr-defined]
    try:
        platform = open_platform(plan.environment)
        with ledger_of(Home.find()) as ledger:
            decision = decide(guard_facts(plan, ledger, platform, ()))
            reasons = list(decision.reasons)
            for nodes in _hit_at_once(injections):
                asked = decide(guard_facts(plan, ledger, platform, nodes))
                reasons += [reason for reason in asked.reasons if reason not in reasons]
        held = [one for one in platform.locks().holders() if one.key in plan.keys]
    except (LedgerError, FrangibleError) as error:
        return [str(error)]
    return reasons + [f"{one.key} is held by run {one.run_id} ({one.note})" for one in held] + ([] if targets or not plan.injects else ["no target"])


def _hit_at_once(injections: list[dict[str, object]]) -> list[tuple[str, ...]]:
    """Return the nodes of each injection, with those of what is in force beside it: the guards are asked about all of them at once."""
    found: list[set[str]] = []
    for one in injections:
        if not one["beside"]:
            found.append(set())
        found[-1].update(one["nodes"])  # type: ignore[arg-type]
    return [tuple(sorted(nodes)) for nodes in found]


def _document(plan: "Plan", injections: list[dict[str, object]], reasons: list[str]) -> dict[str, object]:
    windows = plan.windows
    return {
        "experiment": plan.experiment,
        "title": plan.title,
        "environment": plan.environment.name,
        "tier": plan.environment.tier,
        "owner": plan.environment.owner.team if plan.environment.owner else None,
        "injections": injections,
        "windows": json.loads(plan.windows_json),
        "shortest_seconds": windows.baseline + max(plan.longest_hold, windows.observe_for) + _steady_for(plan.hypotheses),
        "held_reachable": True if plan.injects else None,
        "keys": list(plan.keys),
        "indicators": [row for hypothesis in plan.hypotheses for row in _indicators(plan, hypothesis)],
        "allowed": not reasons,
        "reasons": reasons,
    }


def _steady_for(hypotheses: "tuple[Hypothesis, ...]") -> float:
    return max((hypothesis.recovery.steady_for for hypothesis in hypotheses), default=0.0)


def _indicators(plan: "Plan", hypothesis: "Hypothesis") -> Iterator[dict[str, object]]:
    from frangible.template import render

    for indicator in hypothesis.indicators:
        queries = (indicator.good, indicator.valid) if indicator.kind == "ratio" else (indicator.query,)
        yield {
            "hypothesis": hypothesis.name,
            "indicator": indicator.name,
            "kind": indicator.kind,
            "bound": indicator.bound.model_dump(by_alias=True, exclude_none=True),
            "queries": [render(query, plan.environment.labels) for query in queries],
        }


def _lines(plan: "Plan", document: dict[str, object]) -> Iterator[str]:
    environment, windows = plan.environment, plan.windows
    yield f"{plan.experiment} ({plan.title}) on {environment.name}; tier {environment.tier}, owner {document['owner'] or 'unknown'}"
    for one in document["injections"]:  # type: ignore[attr-defined]
        targets = ", ".join(one["targets"]) or "nothing"
        drawn = f" (drawn with seed {one['seed']})" if one["targets"] else ""
        together = ", together with the one before" if one["beside"] else ""
        yield f"inject: {one['fault']} on {targets}{drawn} for {span(one['hold'])}{together}"
    if not plan.injects:
        yield "inject: nothing"
    yield f"windows: baseline {span(windows.baseline)}, at most {span(windows.baseline_limit)}; settle {span(windows.settle)}"
    yield f"shortest time: {span(float(str(document['shortest_seconds'])))}"
    yield f"resource keys: {', '.join(plan.keys)}"
    for row in document["indicators"]:  # type: ignore[attr-defined]
        bound = ", ".join(f"{name} {value:g}" for name, value in row["bound"].items())
        yield f"indicator: {row['hypothesis']}/{row['indicator']}, {row['kind']}, {bound}"
        yield from (f"  {query}" for query in row["queries"])
    if plan.injects:
        yield "held: can be reached with these windows; validation refuses an experiment for which it cannot"
    yield "nothing was injected" if document["allowed"] else "a run would be refused; nothing was injected"
