"""`frangible doctor`: can this environment be measured, and would a fault in it be reverted?"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, EnvironmentName, HypothesisFolders, InventoryPath, inventory_at, ledger_of
from frangible.cli.output import print_json, span
from frangible.errors import FrangibleError, ObserverFailed, PlatformError
from frangible.home import Home

if TYPE_CHECKING:
    from pathlib import Path

    from frangible.environment import Environment
    from frangible.hypothesis import Hypothesis
    from frangible.metrics import Metrics
    from frangible.platforms import Platform

__all__ = ["Check", "app"]

PROBE = "doctor"
"""Name of what is written and removed again to see whether it can be."""

app = new_app()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    name: str
    ok: bool
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to try: `attempt` returns what was found, or raises an error of ours."""

    name: str
    attempt: Callable[[], str]
    advice: str


@app.command()
def doctor(environment: EnvironmentName, inventory: InventoryPath = None, hypotheses: HypothesisFolders = None, as_json: AsJson = False) -> None:
    """Check that an environment can be measured and reverted; inject nothing.

    Inventory, Prometheus and its clock, scrape interval, each query of the hypotheses, each node, locks, lease copies, ledger and journal.
    Exits with 0 when all is well, with 1 when something is not.

    \b
    Example:
      frangible doctor --environment lab-london
    """
    checks = list(_examine(Home.find(), environment, inventory, hypotheses))
    well = all(check.ok for check in checks)
    if as_json:
        print_json({"environment": environment, "ok": well, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            typer.echo(_line(check))
    if not well:
        raise typer.Exit(1)


def _line(check: Check) -> str:
    head = f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.found}"
    return head if check.ok or not check.advice else f"{head}\n        {check.advice}"


def _examine(home: Home, name: str, inventory: "Path | None", folders: "list[Path] | None") -> Iterator[Check]:
    """Try everything, one after the other; what stands on a part that failed is not tried."""
    try:
        path, loaded = inventory_at(inventory, home)
        environment = loaded.get(name)
        hypotheses = _hypotheses(folders)
    except FrangibleError as error:
        yield Check("inventory and hypotheses", ok=False, found=str(error), advice="correct the files; `frangible validate FILE` shows all problems")
        return
    yield Check("inventory", ok=True, found=f"{path}: {name} has {len(environment.nodes)} nodes; {len(hypotheses)} hypotheses")
    trials = [*_observer(environment, hypotheses), *_platform(environment), *_stores(home, environment)]
    for trial in trials:
        yield _try(trial)


def _try(trial: Trial) -> Check:
    try:
        return Check(trial.name, ok=True, found=trial.attempt())
    except (FrangibleError, OSError) as error:
        return Check(trial.name, ok=False, found=str(error), advice=trial.advice)


def _hypotheses(folders: "list[Path] | None") -> "list[Hypothesis]":
    from frangible import launch

    return list(launch.hypotheses_for(None, tuple(folders or ())).values())


# --- the observer -----------------------------------------------------------------------------------------------------


def _observer(environment: "Environment", hypotheses: "list[Hypothesis]") -> Iterator[Trial]:
    if environment.prometheus is None:
        yield Trial(
            "Prometheus", partial(_raise, "the inventory names none for this environment"), "add `prometheus:` with its `url`; without it there is no verdict"
        )
        return
    from frangible.metrics import PrometheusMetrics

    metrics = PrometheusMetrics(environment.prometheus)
    yield Trial(
        "Prometheus answers", partial(_clock, environment, metrics), f"is {environment.prometheus.url} right and reachable from here, and its clock set?"
    )
    yield Trial("scrape interval", partial(_scrapes, environment, metrics), "does `labels:` of the environment match the series that Prometheus has?")
    for hypothesis in hypotheses:
        for what, query in _queries(hypothesis):
            advice = "is the service up and scraped, and do the environment's `labels:` match? An indicator without data makes every run inconclusive"
            yield Trial(f"{hypothesis.name} {what}", partial(_data, environment, metrics, query), advice)


def _raise(message: str) -> str:
    raise ObserverFailed(message)


def _clock(environment: "Environment", metrics: "Metrics") -> str:
    """Prometheus's clock against this host's, corrected by half the time that the question took."""
    from frangible.clock import SystemClock

    clock = SystemClock()
    before = clock.monotonic()
    served = metrics.time()
    took = clock.monotonic() - before
    skew = served - (clock.wall() - took / 2)
    limit = _interval(environment, metrics) or 15.0
    if abs(skew) > limit:
        raise ObserverFailed(f"its clock differs from this host's by {skew:+.1f} s, more than one scrape interval ({limit:g} s)")
    return f"in {span(took)}; its clock differs from this host's by {skew:+.3f} s"


def _interval(environment: "Environment", metrics: "Metrics") -> float | None:
    from frangible.template import render

    return metrics.scrape_interval(render("up{${labels}}", environment.labels))


def _scrapes(environment: "Environment", metrics: "Metrics") -> str:
    interval = _interval(environment, metrics)
    if interval is None:
        raise ObserverFailed("no target of this environment is scraped: `up` has no series with its labels")
    return f"{interval:g} s"


def _queries(hypothesis: "Hypothesis") -> Iterator[tuple[str, str]]:
    if hypothesis.requires is not None:
        yield "offered load", hypothesis.requires.metric
    for indicator in hypothesis.indicators:
        if indicator.kind == "ratio":
            yield f"{indicator.name} good", indicator.good
            yield f"{indicator.name} valid", indicator.valid
        else:
            yield indicator.name, indicator.query


def _data(environment: "Environment", metrics: "Metrics", query: str) -> str:
    import math

    from frangible.template import render

    rendered = render(query, environment.labels)
    series = metrics.instant(rendered)
    values = [sample.value for one in series for sample in one.samples]
    if not values:
        raise ObserverFailed(f"no data now: {rendered}")
    if any(math.isnan(value) for value in values):
        raise ObserverFailed(f"NaN now: {rendered}")
    return f"{len(series)} series: {rendered}"


# --- the observed -----------------------------------------------------------------------------------------------------


def _platform(environment: "Environment") -> Iterator[Trial]:
    from frangible.platforms import open_platform

    try:
        platform = open_platform(environment)
    except FrangibleError as error:
        yield Trial("platform", partial(_fail, str(error)), "correct `platform:` of the environment")
        return
    for node in environment.nodes:
        yield Trial(f"node {node.name}", partial(_node, platform, node.name), "a run refuses a node that is off; is its power driver reachable?")
    yield Trial("locks", partial(_lock, platform, environment.name), "may this user write the folder `platform.locks` of the environment?")
    if environment.nodes:
        yield Trial("lease copies", partial(_copy, platform, environment.nodes[0].name), "may this user write below `platform.root` of the environment?")


def _fail(message: str) -> str:
    raise PlatformError(message)


def _node(platform: "Platform", name: str) -> str:
    state = platform.node(name)
    if not state.powered:
        raise PlatformError("is off")
    if not state.ready:
        raise PlatformError("has power, but not everything on it has started")
    return f"powered and ready, {len(state.processes)} processes"


def _lock(platform: "Platform", environment: str) -> str:
    from frangible.process import ProcessIdentity

    store = platform.locks()
    key = f"{PROBE}:{environment}"
    store.release(store.acquire(key, PROBE, ProcessIdentity.current(), 10.0))
    return "taken and released"


def _copy(platform: "Platform", node: str) -> str:
    """Write, find and delete a copy. It is no lease, so nobody would act on it."""
    import secrets

    name = f"{PROBE}-{secrets.token_hex(4)}"
    platform.put_lease_copy(node, name, "{}")
    try:
        if name not in platform.lease_copies():
            raise PlatformError("written, but not found again")
    finally:
        platform.delete_lease_copy(node, name)
    return "written, found and deleted"


# --- our own stores ---------------------------------------------------------------------------------------------------


def _stores(home: Home, environment: "Environment") -> Iterator[Trial]:
    yield Trial("ledger", partial(_ledger, home), "may this user write it? FRANGIBLE_LEDGER or FRANGIBLE_HOME name another")
    yield Trial("journal", partial(_journal, home), "may this user write it? FRANGIBLE_JOURNAL or FRANGIBLE_HOME name another")
    yield Trial("nothing in force", partial(_in_force, home, environment.name), "`frangible recover` reverts leases, `frangible halt off` lifts the halt")


def _ledger(home: Home) -> str:
    """Write a stop for a run that does not exist, and withdraw it."""
    import secrets

    scope = f"{PROBE}-{secrets.token_hex(4)}"
    with ledger_of(home) as ledger:
        ledger.request_stop(scope, PROBE, "can the ledger be written?")
        ledger.withdraw_stop(scope)
    return f"written: {home.ledger_url}" if "@" not in home.ledger_url else "written"


def _journal(home: Home) -> str:
    """Begin a writing transaction and write nothing."""
    import contextlib

    from frangible.database import Database
    from frangible.journal.store import SCHEMA

    with contextlib.closing(Database.open(home.journal_url, SCHEMA)) as database, database.writing():
        return f"can be written: {home.journal_url}" if "@" not in home.journal_url else "can be written"


def _in_force(home: Home, environment: str) -> str:
    with ledger_of(home) as ledger:
        leases = ledger.open_leases(environment=environment)
        halt = next((stop for stop in ledger.stops() if stop.scope == "*"), None)
    if leases:
        raise PlatformError(f"open leases: {', '.join(lease.id for lease in leases)}")
    if halt is not None:
        raise PlatformError(f"the halt is on, by {halt.by}: {halt.reason or 'no reason given'}")
    return "no open lease, no halt"
