"""The judge on real parts: what was not seen is never held, what was seen is never forgotten, and a fault that was none proves nothing."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from frangible.explain import explain
from frangible.lab.client import ask

from ..waiting import eventually
from .conftest import RunningLab
from .prometheus_proxy import MODES, PrometheusProxy
from .runs import GATEWAY_OF_APP_1, Ended, Event, execute, gauge, hypothesis, orders, write_experiment

LONDON, NEWYORK, UNPLUGGED = "lab-london", "lab-newyork", "lab-unplugged"
LANES = 4
"""Runs at once: they wait most of the time, and two cores carry so many."""

STATE = """\
import json, os, socket, sys
os.chdir(sys.argv[1])
rack = socket.socket(socket.AF_UNIX)
rack.connect("rack.sock")
rack.sendall(json.dumps({"do": "node", "environment": sys.argv[2], "node": sys.argv[3]}).encode() + b"\\n")
print("on" if json.loads(rack.makefile().readline())["powered"] else "off")
"""
"""What a power command would print: the truth, from the rack."""


@dataclass
class Estate:
    """The lab's inventory with a proxy before Prometheus for each environment, and more names for the robust environment.

    `london-...` environments are lab-london to Prometheus. Their nodes are flags in a folder, switched by real commands, so that many runs
    go on side by side without taking anything from each other.
    """

    lab: RunningLab
    inventory: Path
    proxies: Mapping[str, PrometheusProxy]
    folder: Path

    def run(self, environment: str, name: str, *hypotheses: dict[str, Any], on_event: Callable[[Event], None] = lambda _: None, **experiment: Any) -> Ended:
        """Run a fault on an environment, to the verdict."""
        path = write_experiment(self.folder / name / environment, *hypotheses, **experiment)
        return execute(self.lab.home, self.inventory, environment, path, on_event)

    def flags(self, environment: str) -> set[str]:
        """Names of nodes that are off, and of those that ever were."""
        return {path.name for path in (self.folder / "flags" / environment).iterdir()}

    @contextlib.contextmanager
    def rate(self, environment: str) -> Iterator[Callable[[float], None]]:
        """Let a test change the offered rate, and restore it."""

        def offer(rate: float) -> None:
            ask(self.lab.state.folder, {"do": "rate", "environment": environment, "rate": rate})

        try:
            yield offer
        finally:
            offer(40)


@pytest.fixture(scope="module")
def estate(running_lab, tmp_path_factory) -> Iterator[Estate]:
    """Put proxies before the lab's Prometheus, and an inventory that names them."""
    folder = tmp_path_factory.mktemp("honest")
    declared = {entry["name"]: entry for entry in yaml.safe_load(running_lab.inventory.read_text())["environments"]}
    (folder / "state.py").write_text(STATE)
    truth = [sys.executable, "-S", "-E", str(folder / "state.py"), str(running_lab.state.folder), LONDON, "{node}"]
    unplugged = {"driver": "command", "on": ["true", "{node}"], "off": ["true", "{node}"], "state": truth}
    entries = [declared[LONDON], declared[NEWYORK], _copy(declared[LONDON], UNPLUGGED, unplugged, folder)]
    entries += [_copy(declared[LONDON], name, _flags(folder / "flags" / name), folder) for name in (_name(*case) for case in CASES)]
    with contextlib.ExitStack() as stack:
        proxies = {entry["name"]: stack.enter_context(PrometheusProxy.open(running_lab.state.prometheus_url)) for entry in entries}
        for entry in entries:
            inherited = declared[entry["parent"]]["prometheus"]
            entry["prometheus"] = inherited | {"url": proxies[entry["name"]].url, "timeout": "2s", "scrape-interval": "1s"}
        inventory = folder / "inventory.yaml"
        parents = [declared[name] for name in sorted({entry["parent"] for entry in entries})]
        inventory.write_text(yaml.safe_dump({"environments": [*entries, *parents]}))
        yield Estate(running_lab, inventory, proxies, folder)


def _copy(entry: dict[str, Any], name: str, power: dict[str, Any], folder: Path) -> dict[str, Any]:
    made = deepcopy(entry)
    made["name"] = name
    made["platform"] |= {"root": str(folder / "targets" / name), "power": power}
    return made


def _flags(folder: Path) -> dict[str, Any]:
    """Power commands of nodes that are files; whatever was ever off leaves a trace."""
    folder.mkdir(parents=True)
    off = f"{folder}/{{node}}"
    state = ["sh", "-c", 'if test -e "$0"; then echo off; else echo on; fi', off]
    return {"driver": "command", "on": ["rm", "-f", off], "off": ["touch", off, f"{off}.was-off"], "state": state}


def side_by_side(*runs: Callable[[], Ended]) -> list[Ended]:
    """Run on several environments at once."""
    with ThreadPoolExecutor(len(runs)) as pool:
        return [future.result() for future in [pool.submit(run) for run in runs]]


def outcomes(ended: Ended, window: str = "effect") -> dict[str, str]:
    """Outcome of each indicator in a window."""
    return {one.indicator: str(one.outcome) for one in ended.record.indicators if one.window == window}


# --- the observer fails -----------------------------------------------------------------------------------------------

UNTIL_THE_END = tuple(mode for mode in MODES if mode != "html")
"""An error page is one of the ways in which nothing is answered; the others take long enough."""
CASES = [*(("baseline", mode) for mode in MODES), *(("effect", mode) for mode in UNTIL_THE_END)]
OUTLIVED = ("newyork", "down")
"""The run that loses its observer after it has deviated."""


def _name(phase: str, mode: str) -> str:
    return f"london-{phase}-{mode}"


def _fails_from(phase: str) -> Callable[[Event], bool]:
    """When the observer begins to fail: in the baseline, or with the first proof of the fault."""
    if phase == "baseline":
        return lambda event: event["event"] == "phase" and event["phase"] == "baseline"
    return lambda event: event["event"] == "fault" and event["state"] == "proven"


@pytest.fixture(scope="module")
def blinded(estate: Estate) -> "Iterator[Mapping[tuple[str, str], Future[Ended]]]":
    """Runs whose observer fails and stays failed, all started at once; each test waits for its own."""

    def run(phase: str, mode: str) -> Ended:
        name, starts = _name(phase, mode), _fails_from(phase)

        def blind(event: Event) -> None:
            if starts(event):
                estate.proxies[name].fail(mode)

        limit = {"baseline": "4s", "effect": "45s"}[phase]
        return estate.run(name, "blinded", hypothesis("flow", orders(), within="2s"), on_event=blind, baseline_limit=limit)

    with ThreadPoolExecutor(LANES) as pool:
        yield {OUTLIVED: pool.submit(_outlived, estate), **{case: pool.submit(run, *case) for case in CASES}}


def _outlived(estate: Estate) -> Ended:
    """Lose Prometheus for good, seven seconds after the fragile environment's only execution."""
    proven: list[float] = []

    def blind(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            proven.append(event["at"])
        if event["event"] == "indicators" and proven and event["at"] > proven[0] + 7:
            estate.proxies[NEWYORK].fail("down")

    try:
        return estate.run(NEWYORK, "outlived", hypothesis("flow", orders(), within="2s"), on_event=blind, node="exec-1", hold=10.0)
    finally:
        estate.proxies[NEWYORK].heal()
        estate.lab.wait_ready(NEWYORK, "exec-1")


@pytest.mark.parametrize("mode", MODES)
def test_an_observer_that_fails_in_the_baseline_stops_the_run_before_anything_is_injected(estate, blinded, mode):
    """Without a steady baseline that was really seen, the run is inconclusive and the node was never touched."""
    ended = blinded["baseline", mode].result()
    assert (ended.outcome, ended.record.ending) == ("inconclusive", "no-baseline"), ended.why
    assert "no steady baseline: " in ended.why
    assert not ended.injected
    assert estate.flags(_name("baseline", mode)) == set()


@pytest.mark.parametrize("mode", UNTIL_THE_END)
def test_an_observer_that_fails_from_the_fault_on_gives_no_verdict(estate, blinded, mode):
    """What nobody saw is neither held nor the environment's fault; the fault is reverted, and the run ends by itself."""
    ended = blinded["effect", mode].result()
    assert ended.outcome == "inconclusive", ended.why
    assert not ended.hung
    assert ended.record.ending == "completed"
    assert ended.reverted
    assert estate.flags(_name("effect", mode)) == {"app-1.was-off"}


def test_a_deviation_that_was_seen_outlives_the_observer(blinded):
    """Evidence gathered after the fault was proven wins over Prometheus's end later in the same effect."""
    ended = blinded[OUTLIVED].result()
    assert ended.outcome == "deviated", ended.why
    assert "orders broke its bound in the effect window" in ended.why
    assert "cannot be reached" in ended.why
    assert ended.reverted


# --- the fault was none -----------------------------------------------------------------------------------------------


def test_a_fault_that_was_healed_or_never_happened_is_not_proven(estate):
    """A node that somebody switches on in the middle of the hold, and one whose power switch does nothing, show nothing."""
    proven: list[float] = []

    def heal(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            proven.append(event["at"])
        if event["event"] == "indicators" and proven and event["at"] > proven[0] + 2:
            estate.lab.do("power_on", NEWYORK, "app-1")

    flow = hypothesis("flow", orders())
    healed, disabled = side_by_side(
        lambda: estate.run(NEWYORK, "healed", flow, on_event=heal, hold=6.5),
        lambda: estate.run(UNPLUGGED, "disabled", flow, hold=6.5),
    )
    estate.lab.wait_ready(NEWYORK, "app-1")
    for ended in (healed, disabled):
        assert ended.outcome == "inconclusive", ended.why
        assert "fault not proven: node-loss on node app-1 was seen real in" in ended.why
        assert "the node has power" in ended.why
        (fault,) = explain(ended.record).faults
        assert "too little to count" in fault
        assert "the node has power" in fault
        assert ended.reverted
    assert 0 < healed.record.proofs[0].proven_share < healed.record.proofs[0].least_proven
    assert disabled.record.proofs[0].proven_share == 0


# --- the observed goes away -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vanished(estate: Estate) -> tuple[Ended, Ended]:
    """Two runs of two hypotheses that lose the only node with a certain series: one where that breaks a bound, one where it is ignored."""

    def run(environment: str, when_absent: str) -> Ended:
        gone = gauge("memory-of-the-gateway", GATEWAY_OF_APP_1, **{"when-absent": when_absent})
        return estate.run(environment, "vanished", hypothesis("flow", orders()), hypothesis("gateway", gone, requires=None), hold=9.0)

    broken, ignored = side_by_side(lambda: run(LONDON, "broken"), lambda: run(NEWYORK, "ignore"))
    estate.lab.wait_ready(LONDON, "app-1")
    estate.lab.wait_ready(NEWYORK, "app-1")
    return broken, ignored


def test_a_series_that_vanishes_breaks_its_bound_when_the_hypothesis_says_so(vanished):
    """The observer was healthy and the series was there in the baseline: `when-absent: broken` makes its loss a deviation."""
    broken, _ = vanished
    assert broken.outcome == "deviated", broken.why
    assert "memory-of-the-gateway broke its bound in the effect window: gone" in broken.why


def test_a_series_that_vanishes_is_left_out_when_the_hypothesis_says_so(vanished):
    """With `when-absent: ignore` the same loss says nothing, and the rest is judged."""
    _, ignored = vanished
    assert ignored.outcome == "held", ignored.why


def test_every_hypothesis_of_an_experiment_is_judged(vanished):
    """Chaos Toolkit stops at the first probe that fails; the verdict knows both hypotheses in all windows, whichever broke."""
    for ended in vanished:
        for window in ("baseline", "effect", "recovery"):
            assert set(outcomes(ended, window)) == {"orders", "memory-of-the-gateway"}
    assert outcomes(vanished[0]) == {"orders": "held", "memory-of-the-gateway": "deviated"}


# --- nothing was asked of it ------------------------------------------------------------------------------------------


def test_an_environment_without_load_is_not_exercised(estate):
    """With no orders there is no steady baseline, and nothing is injected; with too few during the effect the run says so, and is not held."""
    flow = hypothesis("flow", orders())
    before = estate.lab.do("node", LONDON, "app-1")["instance"]
    with estate.rate(LONDON) as silence, estate.rate(NEWYORK) as lower:
        silence(0)

        def when_proven(event: Event) -> None:
            if event["event"] == "fault" and event["state"] == "proven":
                lower(4)

        idle, slack = side_by_side(
            lambda: estate.run(LONDON, "idle", flow, baseline_limit="5s"),
            lambda: estate.run(NEWYORK, "slack", flow, on_event=when_proven, hold=6.5, recovery_limit="2s"),
        )
    estate.lab.wait_ready(NEWYORK, "app-1")
    assert (idle.outcome, idle.record.ending) == ("inconclusive", "no-baseline"), idle.why
    assert "0 a second are offered, and flow needs at least 20" in idle.why
    assert not idle.injected
    assert estate.lab.do("node", LONDON, "app-1")["instance"] == before
    assert slack.outcome == "inconclusive", slack.why
    assert "not exercised: " in slack.why
    assert slack.reverted
    for environment in (LONDON, NEWYORK):
        eventually(partial(estate.lab.query, f'generator_rate{{environment="{environment}"}} == 40'), f"40 orders a second in {environment}")


# --- nothing was done to it -------------------------------------------------------------------------------------------


def test_a_placebo_is_held_on_the_robust_and_on_the_fragile_environment(estate):
    """Whoever does nothing to a healthy environment finds nothing."""
    flow = hypothesis("flow", orders())
    for ended in side_by_side(
        lambda: estate.run(LONDON, "placebo", flow, fault="placebo", hold=6.5),
        lambda: estate.run(NEWYORK, "placebo", flow, fault="placebo", node="exec-1", hold=6.5),
    ):
        assert ended.outcome == "held", ended.why


# --- somebody pulls the cord ------------------------------------------------------------------------------------------


def test_an_abort_condition_ends_the_run_and_is_judged_on_what_was_seen(estate):
    """A run that its own condition stopped is never held: it deviated when what was seen says so, and else is inconclusive."""
    fragile = hypothesis("flow", orders(abort={"worse-than": 0.5, "for": "5s"}))
    nervous = hypothesis("flow", orders(abort={"worse-than": 1.01, "for": "5s"}))
    broken, kept = side_by_side(
        lambda: estate.run(NEWYORK, "abort", fragile, node="exec-1", hold=40.0),
        lambda: estate.run(LONDON, "abort", nervous, hold=40.0),
    )
    estate.lab.wait_ready(NEWYORK, "exec-1")
    estate.lab.wait_ready(LONDON, "app-1")
    for ended in (broken, kept):
        assert ended.record.ending == "aborted-by-condition", ended.why
        assert "an abort condition ended the run: orders" in ended.why
        assert ended.reverted
        effect = next(window for window in ended.record.windows if window.name == "effect")
        assert effect.end - effect.start < 30
    assert broken.outcome == "deviated", broken.why
    assert kept.outcome == "inconclusive", kept.why
