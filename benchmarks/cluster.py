"""What a cluster of the inventory is measured for, in one run: draining, aborting, and CPU saturation. `make benchmark-cluster`.

    FRANGIBLE_INVENTORY=.cache/cluster/inventory.yaml python -m benchmarks.cluster --environment k8s-robust --drain-node frangible-worker2

Draining is timed beside chaostoolkit-kubernetes (`benchmarks.drain`). An abort is timed from just before `frangible abort` until the last revert that
the run's events tell. CPU achieved is the kubelet's counter, the ramp left out. A row that fails says why and leaves the others alone.
"""

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import drain
from benchmarks.speed import BIN, environment, events_of, until
from frangible.errors import FrangibleError
from frangible.home import Home
from frangible.inventory import Environment, find_inventory, load_inventory
from frangible.platforms import Platform, open_platform
from frangible.platforms.kubernetes.burning import METRICS, Sample, samples_in, utilisation
from frangible.platforms.kubernetes.client import Cluster

FAULTS = ("node-loss", "middleware-restart", "volume-surge", "process-pause", "cpu-saturation", "node-drain", "node-cut")
REQUESTED = (50, 80, 95)
ENDS = 240.0
"""Seconds that a run has to end once it was stopped."""
COMES_UP = 30.0
"""Seconds that a burner has to come up."""
SLACK = 60.0
"""Seconds by which a burner's own deadline is later than what is measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    value: str
    note: str = ""
    failed: bool = False


def drained(platform: Environment, node: str, pods: int, turns: int, budget: int) -> Iterator[Row]:
    """Drain ours and theirs, on the same pods."""
    took = drain.measure(os.environ["KUBERNETES_CONTEXT"], node, str(platform.platform.helper_image), pods, turns, budget, _tell)
    middle = {name: statistics.median(times) for name, times in took.items()}
    allowed = f"a budget lets {budget} be away" if budget else "no budget"
    for name, seconds in middle.items():
        yield Row(f"drain, {name}", drain.told(seconds), f"{pods} pods, {allowed}; median of {turns}")
    if math.isfinite(middle[drain.THEIRS]):
        yield Row("drain, times as fast", f"{middle[drain.THEIRS] / middle[drain.OURS]:.1f}")


def aborted(fault: str, name: str, home: Path) -> Row:
    """Run an experiment, abort it once its fault is proven, and return the seconds until the last revert."""
    known = set((home / "runs").glob("*"))
    variables = environment(home) | {key: value for key, value in os.environ.items() if key in {"FRANGIBLE_INVENTORY", "FRANGIBLE_CONFIG"}}
    starter = subprocess.Popen(
        [str(BIN / "frangible"), "run", fault, "--environment", name, "--quiet"],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        proven = until(lambda: next((event for event in events_of(home, known) if event.get("state") == "proven"), None), starter)
        if proven is None:
            raise RuntimeError(f"the run ended with exit code {starter.returncode} before its fault was proven")
        sent = time.time()
        subprocess.run([str(BIN / "frangible"), "abort", str(proven["run"])], env=variables, capture_output=True, check=True)
        starter.wait(ENDS)
    finally:
        _end(starter, variables)
    reverted = [float(str(event["at"])) for event in events_of(home, known) if event.get("state") == "reverted"]
    if not reverted:
        raise RuntimeError("no revert was told; look at `frangible status`")
    return Row(f"abort to last revert, {fault}", f"{max(reverted) - sent:.2f} s")


def _end(starter: "subprocess.Popen[bytes]", variables: Mapping[str, str]) -> None:
    """End a run that goes on still, and revert what it left."""
    if starter.poll() is None:
        starter.terminate()
        starter.wait(ENDS)
        subprocess.run([str(BIN / "frangible"), "recover"], env=dict(variables), capture_output=True, check=True)


def saturated(platform: Platform, cluster: Cluster, node: str, cpus: float, percent: int, seconds: float) -> Row:
    """Hold a node's CPUs, and return what its kubelet counted after the ramp."""
    with burning(platform, node, percent, seconds):
        samples = _samples(cluster, node, seconds)
    share = utilisation(samples, cpus)
    if share is None:
        raise RuntimeError(f"the kubelet of {node} told {len(samples)} counters in {seconds:g} s, and two are needed")
    return Row(f"CPU at {percent} % requested", f"{100 * share:.1f} %", f"{node}, {cpus:g} CPU, {samples[-1].at - samples[0].at:.0f} s by the kubelet")


@contextmanager
def burning(platform: Platform, node: str, percent: int, seconds: float) -> Iterator[None]:
    """Have a burner that has come up, and end it."""
    name = f"benchmark-{percent}-{time.time_ns() % 10**9}"
    try:
        platform.start_burner(node, name, percent / 100, seconds + COMES_UP + SLACK)
        begun = time.monotonic()
        while platform.burner(node, name).achieved is None:
            if time.monotonic() - begun > COMES_UP:
                raise RuntimeError(f"the burner on {node} has not come up within {COMES_UP:g} s")
            time.sleep(0.5)
        yield
    finally:
        platform.stop_burner(node, name)


def _samples(cluster: Cluster, node: str, seconds: float) -> list[Sample]:
    """Ask the kubelet's counter for so long; what it had counted before is left out."""
    found: dict[float, Sample] = {}
    begun, newest = time.monotonic(), None
    while time.monotonic() - begun < seconds:
        for sample in samples_in(cluster.text(cluster.core.connect_get_node_proxy_with_path, node, METRICS)):
            newest = sample.at if newest is None else newest
            if sample.at > newest:
                found[sample.at] = sample
        time.sleep(1.0)
    return [found[at] for at in sorted(found)]


def kept(what: str, measure: Callable[[], Iterator[Row]]) -> list[Row]:
    """Return the rows of one measurement, or one that says why there are none."""
    _tell(f"{what} ...")
    try:
        return list(measure())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - one row's trouble is not the others'
        return [Row(what, "-", str(error).splitlines()[0] if str(error) else type(error).__name__, failed=True)]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measurements(asked: argparse.Namespace, found: Environment, home: Path) -> Mapping[str, Callable[[], Iterator[Row]]]:
    """What is measured, by name."""
    platform, cluster = open_platform(found), Cluster(found)
    cpus = next((node.cpus for node in platform.survey().nodes if node.name == asked.cpu_node), None) or 0.0
    drains = {"drain": lambda: drained(found, asked.drain_node, asked.pods, asked.turns, asked.budget)} if asked.drain_node else {}
    aborts = {f"abort to last revert, {fault}": lambda fault=fault: iter([aborted(fault, found.name, home)]) for fault in asked.faults}
    burns = {
        f"CPU at {percent} % requested": lambda percent=percent: iter([saturated(platform, cluster, asked.cpu_node, cpus, percent, asked.seconds)])
        for percent in (REQUESTED if asked.cpu_node else ())
    }
    return {**drains, **aborts, **burns}


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", default="k8s-robust", help="a Kubernetes environment of the inventory")
    parser.add_argument("--drain-node", help="a worker to drain, that holds nothing of value; none: no drain is timed")
    parser.add_argument("--cpu-node", help="a node whose CPUs are held; none: no CPU is measured")
    parser.add_argument("--pods", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--budget", type=int, default=0, help="pods that a PodDisruptionBudget lets be away at once; 0: no budget")
    parser.add_argument("--faults", nargs="*", default=FAULTS, metavar="FAULT")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured for each utilisation")
    parser.add_argument("--json", type=Path, help="file for the same rows")
    asked = parser.parse_args()
    logging.disable(logging.ERROR)
    try:
        found = load_inventory(find_inventory(None, Home.find())).get(asked.environment)
        os.environ.update(open_platform(found).variables())  # chaostoolkit-kubernetes and the drain look there for the cluster
        with tempfile.TemporaryDirectory(prefix="frangible-cluster-benchmark-") as home:
            rows = [row for what, measure in measurements(asked, found, Path(home)).items() for row in kept(what, measure)]
    except FrangibleError as error:
        parser.error(str(error))
    table = Table("what", "measured", "how", title=f"{found.name}, load {os.getloadavg()[0]:.1f}")
    for row in rows:
        table.add_row(row.what, row.value, row.note)
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
