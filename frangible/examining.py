"""Trying out whether an environment can be measured, and whether a fault in it would be reverted. Nothing is injected.

A trial says what was found or raises an error of ours; `tried` makes a check of it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from frangible.errors import FrangibleError, ObserverFailed, PlatformError
from frangible.reverting import SKEW
from frangible.trials import Check, Trial, in_turn

if TYPE_CHECKING:
    from frangible.environment import Environment, SshSettings
    from frangible.home import Home
    from frangible.hypothesis import Hypothesis
    from frangible.ledger import Ledger
    from frangible.metrics import Metrics
    from frangible.platforms import Platform

__all__ = ["examine", "halted", "left_over", "locks_free", "observer", "platform", "stores", "told"]

SSH = "ssh"
PROBE = "doctor"
"""Name of what is written and removed again to see whether it can be."""
RECOVER = "`frangible recover` reverts leases, `frangible halt off` lifts the halt"


def examine(home: "Home", environment: "Environment", hypotheses: "Iterable[Hypothesis]") -> Iterator[Check]:
    """Try everything, one after the other; what stands on a part that failed is not tried."""
    in_force = Trial("nothing in force", partial(_in_force, home, environment.name), RECOVER)
    yield from in_turn(chain(observer(environment, hypotheses), platform(environment), told(environment), stores(home), (in_force,)))


# --- the observer -----------------------------------------------------------------------------------------------------


def observer(environment: "Environment", hypotheses: "Iterable[Hypothesis]") -> Iterator[Trial]:
    """Yield: Prometheus answers, its clock and scrape interval, and every query of the hypotheses has data."""
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
    return f"in {took * 1000:.0f} ms; its clock differs from this host's by {skew:+.3f} s"


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


def platform(environment: "Environment") -> Iterator[Trial]:
    """Yield: each node is powered and ready, locks and lease copies can be written."""
    from frangible.platforms import open_platform

    try:
        opened = open_platform(environment)
    except FrangibleError as error:
        yield Trial("platform", partial(_fail, str(error)), "correct `platform:` of the environment")
        return
    if environment.platform.kind == "kubernetes":
        yield from _on_cluster(opened)
        return
    if environment.platform.ssh is not None:
        yield Trial(
            SSH, partial(_ssh, environment.platform.ssh), "try it by hand with `ssh -v`; `platform.ssh` of the environment says how the host is reached"
        )
    for node in environment.nodes:
        yield Trial(f"node {node.name}", partial(_node, opened, node.name), "a run refuses a node that is off; is its power driver reachable?", SSH)
    yield Trial("locks", partial(_lock, opened, environment.name), "may this user write the folder `platform.locks` of the environment?", SSH)
    if environment.nodes:
        advice = "may this user write below `platform.root` of the environment?"
        yield Trial("lease copies", partial(_copy, opened, environment.nodes[0].name), advice, SSH)


def _on_cluster(opened: "Platform") -> Iterator[Trial]:
    """Yield the trials of a cluster, then locks and lease copies, which are objects of its own there."""
    from frangible.clustertrials import ClusterTrials, permissions_of
    from frangible.platforms.kubernetes.permissions import Level
    from frangible.platforms.kubernetes.platform import KubernetesPlatform

    if not isinstance(opened, KubernetesPlatform):
        return
    trials = ClusterTrials(opened)
    yield from trials
    after, advice = permissions_of(Level.RESTART), "they are Leases and ConfigMaps of frangible's own namespace"
    yield Trial("locks", partial(_lock, opened, opened.environment.name), advice, after)
    yield Trial("lease copies", partial(_copy, opened, next(iter(trials.nodes), PROBE)), advice, after)


def _fail(message: str) -> str:
    raise PlatformError(message)


def _ssh(settings: "SshSettings") -> str:
    """Connect, compare clocks, look for the programs that are needed there."""
    from frangible.clock import SystemClock
    from frangible.platforms.ssh import SshTransport

    transport, clock = SshTransport(settings), SystemClock()
    missing = transport.missing_programs()
    if missing:
        raise PlatformError(f"{settings.host} lacks {', '.join(missing)}: install coreutils and util-linux there")
    before = clock.monotonic()
    theirs = transport.clock()
    took = clock.monotonic() - before
    skew = theirs - (clock.wall() - took / 2)
    if abs(skew) > SKEW:
        raise PlatformError(
            f"the clock of {settings.host} differs from this host's by {skew:+.1f} s, more than {SKEW:g} s: locks and times there would mislead"
        )
    return f"{settings.host} answers in {took * 1000:.0f} ms, its key is known; its clock differs from this host's by {skew:+.3f} s"


def _node(opened: "Platform", name: str) -> str:
    state = opened.node(name)
    if not state.powered:
        raise PlatformError("is off")
    if not state.ready:
        raise PlatformError("has power, but not everything on it has started")
    return f"powered and ready, {len(state.processes)} processes"


def _lock(opened: "Platform", environment: str) -> str:
    from frangible.process import ProcessIdentity

    store = opened.locks()
    key = f"{PROBE}:{environment}"
    store.release(store.acquire(key, PROBE, ProcessIdentity.current(), 10.0))
    return "taken and released"


def _copy(opened: "Platform", node: str) -> str:
    """Write, find and delete a copy. It is no lease, so nobody would act on it."""
    import secrets

    name = f"{PROBE}-{secrets.token_hex(4)}"
    opened.put_lease_copy(node, name, "{}")
    try:
        if name not in opened.lease_copies():
            raise PlatformError("written, but not found again")
    finally:
        opened.delete_lease_copy(node, name)
    return "written, found and deleted"


def locks_free(environment: "Environment", keys: Iterable[str]) -> Trial:
    """Return: nobody holds one of these resource keys now."""
    return Trial("locks free", partial(_free, environment, frozenset(keys)), "wait until that run has ended, or stop it with `frangible abort RUN`")


def _free(environment: "Environment", keys: frozenset[str]) -> str:
    from frangible.platforms import open_platform

    held = [f"{one.key} by run {one.run_id} ({one.note})" for one in open_platform(environment).locks().holders() if one.key in keys]
    if held:
        raise PlatformError(f"held: {', '.join(held)}")
    return f"nobody holds {', '.join(sorted(keys))}"


def told(environment: "Environment") -> Iterator[Trial]:
    """Yield: the secrets with which others are told can be read; nobody is told anything."""
    if environment.notify is not None:
        yield Trial("notify", partial(_secrets, environment), "a run goes on without it, and nobody is told when a fault begins")


def _secrets(environment: "Environment") -> str:
    from frangible.notifying import secrets_of

    secrets = list(secrets_of(environment.notify)) if environment.notify is not None else []
    for secret in secrets:
        secret.reveal()
    return f"{len(secrets)} secret{'' if len(secrets) == 1 else 's'} can be read; nobody was told"


# --- our own stores ---------------------------------------------------------------------------------------------------


def stores(home: "Home") -> Iterator[Trial]:
    """Yield: ledger and journal can be written."""
    yield Trial("ledger", partial(_ledger, home), "may this user write it? FRANGIBLE_LEDGER or FRANGIBLE_HOME name another")
    yield Trial("journal", partial(_journal, home), "may this user write it? FRANGIBLE_JOURNAL or FRANGIBLE_HOME name another")


def halted(home: "Home") -> Trial:
    """Return: the halt is off."""
    return Trial("halt", partial(_no_halt, home), "`frangible halt off` lifts it, when its reason is gone")


def left_over(home: "Home", environment: str) -> Trial:
    """Return: no lease of the environment is open."""
    return Trial("open leases", partial(_no_lease, home, environment), "`frangible recover` reverts what runs that died have left")


def _ledger(home: "Home") -> str:
    """Write a stop for a run that does not exist, and withdraw it."""
    import secrets

    scope = f"{PROBE}-{secrets.token_hex(4)}"
    with _ledger_of(home) as ledger:
        ledger.request_stop(scope, PROBE, "can the ledger be written?")
        ledger.withdraw_stop(scope)
    return f"written: {home.ledger_url}" if "@" not in home.ledger_url else "written"


def _journal(home: "Home") -> str:
    """Begin a writing transaction and write nothing."""
    from frangible.database import Database
    from frangible.journal.store import SCHEMA

    with contextlib.closing(Database.open(home.journal_url, SCHEMA)) as database, database.writing():
        return f"can be written: {home.journal_url}" if "@" not in home.journal_url else "can be written"


def _in_force(home: "Home", environment: str) -> str:
    _no_lease(home, environment)
    _no_halt(home)
    return "no open lease, no halt"


def _no_lease(home: "Home", environment: str) -> str:
    with _ledger_of(home) as ledger:
        leases = ledger.open_leases(environment=environment)
    if leases:
        raise PlatformError(f"open leases: {', '.join(lease.id for lease in leases)}")
    return "none"


def _no_halt(home: "Home") -> str:
    with _ledger_of(home) as ledger:
        halt = next((stop for stop in ledger.stops() if stop.scope == "*"), None)
    if halt is not None:
        raise PlatformError(f"the halt is on, by {halt.by}: {halt.reason or 'no reason given'}")
    return "off"


@contextlib.contextmanager
def _ledger_of(home: "Home") -> "Iterator[Ledger]":
    from frangible.ledger import Ledger

    with contextlib.suppress(OSError):  # the ledger's own error says more
        home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(Ledger.open(home.ledger_url)) as ledger:
        yield ledger
