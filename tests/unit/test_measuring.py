"""When a run is stopped by a condition of its own."""

from typing import Any

import pytest

from frangible.hypothesis import GaugeIndicator, RatioIndicator
from frangible.supervisor.measuring import _is_worse


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
