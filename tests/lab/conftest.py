"""One lab for all tests that need one.

All tests here are of one xdist group: run them with `--dist loadgroup`, and one worker gets them all and starts one lab. With any other
distribution each worker that gets one of them starts a lab of its own: correct, and slow.
"""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frangible import lab
from frangible.home import Home
from frangible.lab.client import ask
from frangible.lab.state import LabState

if TYPE_CHECKING:
    from .starting import Play

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share the lab on one worker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("lab"))


def eventually[T](look: Callable[[], T | None], what: str, *, within: float = 60.0) -> T:
    """Return the first true answer; fail when there is none for a long time."""
    deadline = time.monotonic() + within
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what}")
        time.sleep(0.1)


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
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """Bring one lab up for the whole session, and down at its end."""
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
