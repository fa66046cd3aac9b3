"""Nodes of a cluster whose CPUs are held: a pod on the node burns what is missing, and the kubelet says what the node used."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from frangible.errors import PlatformError
from frangible.platforms import BurnerState
from frangible.platforms.kubernetes.labels import value
from frangible.platforms.kubernetes.pods import STALE, HelperPods, Job, only

__all__ = ["Burners", "Sample", "Watch", "samples_in", "utilisation"]

KIND = "burn"
METRICS = "metrics/resource"
COUNTER = "node_cpu_usage_seconds_total"
ASKED_EVERY = 2.0
"""Seconds between two questions to a kubelet, which looks at its counters every 10 s."""
CEILING = 0.03
"""CPUs that the pod's limit lies above what is asked for: the loop needs some of it to be quick."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a kubelet says that its node has used of its CPUs since it was started."""

    at: float
    """Seconds since the epoch, by the node's clock."""
    used: float
    """CPU seconds."""


@dataclass(slots=True)
class Watch:
    """What was heard of one burner."""

    asked: float = -math.inf
    average: float | None = None
    """What it told last of its whole life: all that is known where it was shorter than two looks of the kubelet."""
    samples: list[Sample] = field(default_factory=list)
    """The kubelet's, from when the burner had come up."""


@dataclass(frozen=True, slots=True)
class Burners:
    """Holds the CPUs of the nodes of one environment."""

    pods: HelperPods
    watches: dict[tuple[str, str], Watch] = field(default_factory=dict, compare=False)

    def start(self, node: str, name: str, wanted: float, seconds: float) -> None:
        """Hold the node's CPUs at a utilisation."""
        cpus = self._cpus(node)
        arguments = ("--utilisation", f"{wanted:g}", "--cpus", f"{cpus:g}", "--cgroups", "/node/cgroups")
        quota = min(cpus, wanted * cpus + CEILING)
        self.pods.start(Job(KIND, node, of=name, seconds=seconds, arguments=arguments, node_access=False, node_cgroups=True, cpus=quota))

    def look(self, node: str, name: str) -> BurnerState:
        """Look at one: what it told of the newest seconds, and over all of them what the kubelet says."""
        seen = only(one for one in self.pods.all(node, KIND) if one.of == value(name))
        watch = self.watches.setdefault((node, name), Watch())
        if seen is None or not seen.alive:
            return BurnerState(name, alive=False, average=self._average(node, watch))
        watch.average = _number(seen.told.get("average"))
        fresh = self.pods.silent(seen) < STALE
        achieved, duty = _number(seen.told.get("achieved")), _number(seen.told.get("duty"))
        if achieved is not None:
            self._sample(node, watch, _number(seen.told.get("since")) or 0.0)
        return BurnerState(name, alive=True, achieved=achieved if fresh else None, average=self._average(node, watch), duty=duty)

    def stop(self, node: str, name: str) -> None:
        """End one: what it burns ends with its processes."""
        self.pods.end(node, KIND, value(name))

    def running(self, node: str) -> tuple[str, ...]:
        """Names of those that live."""
        return tuple(sorted(seen.of for seen in self.pods.all(node, KIND) if seen.alive))

    def _sample(self, node: str, watch: Watch, since: float) -> None:
        """Ask the kubelet now and then for what it saw since the burner had come up; what it does not answer is missing, and nothing else."""
        if time.monotonic() - watch.asked < ASKED_EVERY:
            return
        watch.asked = time.monotonic()
        with contextlib.suppress(PlatformError):
            for sample in samples_in(self._metrics(node)):
                if sample.at >= since and (not watch.samples or sample.at > watch.samples[-1].at):
                    watch.samples.append(sample)

    def _average(self, node: str, watch: Watch) -> float | None:
        """Return the kubelet's average, else the burner's own."""
        seen = utilisation(watch.samples, self._cpus(node)) if len(watch.samples) > 1 else None
        return watch.average if seen is None else seen

    def _metrics(self, node: str) -> str:
        cluster = self.pods.looker.cluster
        return cluster.text(cluster.core.connect_get_node_proxy_with_path, node, METRICS)

    def _cpus(self, node: str) -> float:
        """Return how many CPUs the node has: declared, or allocatable."""
        declared = next((one.cpus for one in self.pods.looker.environment.nodes if one.name == node), None)
        return declared or self.pods.looker.node(node).cpus


def samples_in(text: str) -> Iterator[Sample]:
    """Yield what `metrics/resource` of a kubelet says of its node: `node_cpu_usage_seconds_total 36.51 1795716382714`."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == COUNTER:
            yield Sample(at=int(words[2]) / 1000, used=float(words[1]))


def utilisation(samples: list[Sample], cpus: float) -> float | None:
    """Return the share of the CPUs that was used from the first sample to the last, or None with fewer than two."""
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    return round((last.used - first.used) / ((last.at - first.at) * cpus), 4)


def _number(told: Any) -> float | None:  # noqa: ANN401 - from JSON
    return float(told) if isinstance(told, int | float) else None
