"""When a run is stopped by a condition of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from frangible.environment import Environment
from frangible.hypothesis import GaugeIndicator, RatioIndicator
from frangible.plan import Plan
from frangible.supervisor.measuring import DEFAULT_SCRAPE_INTERVAL, Measuring, _is_worse

if TYPE_CHECKING:
    from frangible.metrics import Metrics


def gauge(**bound: float) -> GaugeIndicator:
    fields: dict[str, Any] = {"name": "depth", "when_absent": "broken", "query": "depth{${labels}}", "lookback": 1.0, "bound": bound}
    return GaugeIndicator.model_validate(fields)


def ratio() -> RatioIndicator:
    fields: dict[str, Any] = {"name": "orders", "when_absent": "broken", "good": "good{${labels}}", "valid": "valid{${labels}}", "bound": {"at_least": 0.9}}
    return RatioIndicator.model_validate(fields)


@pytest.mark.parametrize(
    ("indicator", "limit", "worse", "better"),
    [
        (ratio(), 0.5, 0.4, 0.6),
        (gauge(at_most=100.0), 500.0, 501.0, 499.0),
        (gauge(rise_at_most=10.0), 500.0, 501.0, 499.0),
        (gauge(at_least=10.0), 5.0, 4.0, 6.0),
        (gauge(drop_at_most=3.0), 5.0, 4.0, 6.0),
        (gauge(at_least=10.0, at_most=100.0), 500.0, 501.0, 50.0),
        (gauge(at_least=10.0, at_most=100.0), 5.0, 4.0, 50.0),
    ],
    ids=["ratio", "at most", "rise", "at least", "drop", "above both bounds", "below both bounds"],
)
def test_an_abort_condition_lies_on_the_bad_side_of_its_bound(indicator: RatioIndicator | GaugeIndicator, limit: float, worse: float, better: float) -> None:
    assert _is_worse(indicator, worse, limit)
    assert not _is_worse(indicator, better, limit)


ENVIRONMENT = {
    "name": "ny-1",
    "region": "newyork",
    "tier": "staging",
    "owner": {"team": "equities"},
    "platform": {"kind": "hosts", "root": "/r", "locks": "/l"},
}


class YoungPrometheus:
    """A Prometheus that has seen no two samples of anything yet, until it has."""

    interval: float | None = None

    def time(self) -> float:
        return 1_800_000_000.0

    def scrape_interval(self, selector: str) -> float | None:
        return self.interval


@pytest.mark.parametrize(("declared", "meanwhile"), [("2s", 2.0), (None, DEFAULT_SCRAPE_INTERVAL)], ids=["declared", "not declared"])
def test_a_scrape_interval_that_is_not_known_yet_is_asked_for_again(tmp_path: Path, declared: str | None, meanwhile: float) -> None:
    """A run that begins with its Prometheus is not judged by a guess of fifteen seconds."""
    settings = {"url": "http://127.0.0.1:9", **({"scrape-interval": declared} if declared else {})}
    environment = Environment.model_validate(ENVIRONMENT | {"prometheus": settings}, by_alias=True, context={"file": True, "base": tmp_path})
    empty = dict.fromkeys(("journal_url", "ledger_url", "experiment_path", "experiment", "title", "digest", "actor", "note", "ticket"), "")
    described = {"environment_json": environment.model_dump_json(by_alias=True), "hypotheses_json": "[]", "windows_json": "{}"}
    plan = Plan("r", tmp_path, tmp_path, injects=True, has_control=True, longest_hold=5.0, keys=(), needs=(), seed=1, **described, **empty)
    prometheus = YoungPrometheus()
    measuring = Measuring(plan, cast("Metrics", prometheus), lambda _: None)
    measuring._poll()
    assert measuring.timeline.scrape_interval == meanwhile
    prometheus.interval = 0.5
    measuring._poll()
    assert measuring.timeline.scrape_interval == 0.5
    prometheus.interval = 7.0
    measuring._poll()
    assert measuring.timeline.scrape_interval == 0.5, "known once, it stays the same for all windows of a run"
