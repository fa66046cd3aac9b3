"""Did our own alerts notice? Read from Prometheus's `ALERTS` series, told beside the verdict, and never part of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from frangible.errors import ObserverFailed
from frangible.template import render

if TYPE_CHECKING:
    from frangible.hypothesis import Detection, Hypothesis
    from frangible.metrics import Metrics

__all__ = ["PREFIX", "detections"]

PREFIX = "detection."
"""Of the names under which a record's facts tell what each alert did."""


def detections(metrics: "Metrics", hypotheses: "Sequence[Hypothesis]", labels: Mapping[str, str], start: float, end: float, step: float) -> dict[str, str]:
    """Say for each alert of the hypotheses when it fired, by `detection.ALERT`.

    Looked at from `start`, when the fault was first seen, to `end`, when recovery ended, both in seconds since the epoch, every `step` seconds.
    """
    found: dict[str, str] = {}
    for hypothesis in hypotheses:
        for detection in hypothesis.detections:
            try:
                found[PREFIX + detection.alert] = _told(metrics, detection, labels, start, end, step)
            except ObserverFailed as error:
                found[PREFIX + detection.alert] = f"no data: {error}"
    return found


def _told(metrics: "Metrics", detection: "Detection", labels: Mapping[str, str], start: float, end: float, step: float) -> str:
    query = render(f'ALERTS{{${{labels}},alertname="{detection.alert}",alertstate="firing"}}', labels)
    if metrics.instant(query, start):
        return "was firing already when the fault was first seen"
    times = [sample.at for series in metrics.range(query, start, end, step) for sample in series.samples]
    asked = f"asked: within {detection.within:g} s"
    if times:
        after = max(0.0, min(times) - start)
        return f"{'fired' if after <= detection.within else 'fired too late,'} {after:.1f} s after the fault was first seen ({asked})"
    watched = end - start
    return f"did not fire in the {watched:.0f} s that were watched ({asked})"
