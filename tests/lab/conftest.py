"""One lab for each worker, for all of its tests that need one.

Tests mostly wait, so two workers with a lab each go on side by side. The tests of a module stay together (`--dist loadscope`): their scenarios
begin together and disturb nobody but each other. What measures the machine, or takes its CPUs, lies in `alone` and comes last, when nobody else
works any more: see `machine`.
"""

import fcntl
import json
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frangible import lab
from frangible.home import Home
from frangible.lab.client import ask
from frangible.lab.state import LabState

from ..waiting import eventually

if TYPE_CHECKING:
    from .starting import Play

HERE = Path(__file__).parent


LONGEST_FIRST = ("test_honest", "test_interrupts", "test_run", "test_services")
"""Modules that take so long that nothing else should be left to do when one of them begins."""
ALONE = HERE / "alone"
LONGEST_WAIT = 1200
"""Seconds until a test that wants the machine for itself is given up: it waits for all others."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first, and what wants the machine for itself last."""
    here = [number for number, item in enumerate(items) if HERE in item.path.parents]
    ours = [items[number] for number in here]
    for item in ours:
        if ALONE in item.path.parents:
            item.add_marker(pytest.mark.timeout(LONGEST_WAIT))
    for number, item in zip(here, sorted(ours, key=_turn), strict=True):
        items[number] = item


def _turn(item: pytest.Item) -> int:
    if ALONE in item.path.parents:
        return len(LONGEST_FIRST) + 1
    return LONGEST_FIRST.index(item.path.stem) if item.path.stem in LONGEST_FIRST else len(LONGEST_FIRST)


@dataclass(frozen=True)
class RunningLab:
    """The lab that tests share. Each test leaves all its nodes on and ready."""

    home: Home
    state: LabState

    @property
    def inventory(self) -> Path:
        """The lab's inventory file."""
        return self.state.inventory

    def do(self, what: str, environment: str = "", node: str = "") -> dict[str, object]:
        """Ask the rack."""
        return ask(self.state.folder, {"do": what, "environment": environment, "node": node})

    def wait_ready(self, environment: str, node: str) -> None:
        """Wait until a node is ready."""
        eventually(lambda: self.do("node", environment, node)["ready"], f"{environment}/{node} ready")

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """Ask Prometheus; values by the values of the labels, in order of the labels' names."""
        address = f"{self.state.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(address, timeout=10) as response:
            result = json.load(response)["data"]["result"]
        return {tuple(value for name, value in sorted(series["metric"].items()) if name != "__name__"): float(series["value"][1]) for series in result}

    def counts(self, environment: str) -> tuple[float, float, float]:
        """Orders offered, in time, late, as Prometheus has them: all of one scrape."""
        outcomes = {key[0]: value for key, value in self.query(f'sum by (outcome) (order_outcomes_total{{environment="{environment}"}})').items()}
        offered = self.query(f'sum(orders_offered_total{{environment="{environment}"}})')
        return offered[()], outcomes["in_time"], outcomes["late"]

    def share_of_next(self, environment: str, orders: int) -> float:
        """Share in time of the next decided orders."""
        _, in_time, late = self.counts(environment)

        def enough() -> tuple[float, float] | None:
            _, in_time_now, late_now = self.counts(environment)
            found = (in_time_now - in_time, late_now - late)
            return found if sum(found) >= orders else None

        good, bad = eventually(enough, f"{orders} more orders decided in {environment}")
        return good / (good + bad)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A lock that all workers of one test run share for as long as their labs are up."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    descriptor = os.open(shared / "machine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a test of `alone` the machine for itself: every other worker has ended, and its lab is down."""
    if ALONE not in request.path.parents:
        yield
        return
    descriptor: int = request.getfixturevalue("machine")
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    fcntl.flock(descriptor, fcntl.LOCK_SH)


@pytest.fixture(scope="session")
def running_lab(machine: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """Bring one lab up for all tests of this worker, and down at their end."""
    home = Home(tmp_path_factory.mktemp("lab-home"))
    said: list[str] = []
    try:
        yield RunningLab(home, lab.up(home.lab, said.append, ("lab-london", "lab-newyork")))
    finally:
        lab.down(home.lab)
    assert not home.lab.exists()


@pytest.fixture(scope="module")
def playing(request: pytest.FixtureRequest, running_lab: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Mapping[Play, Future[object]]]":
    """Begin what the chosen tests of this module look at."""
    from . import starting

    with starting.playing(request, starting.Estate(running_lab, tmp_path_factory.mktemp("estate"))) as begun:
        yield begun


@pytest.fixture
def played(play: "Play", playing: "Mapping[Play, Future[object]]") -> object:
    """What came of a test's scenario; see `starting.plays`."""
    return playing[play].result()
