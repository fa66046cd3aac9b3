"""The real cluster that `make test-cluster` starts, as tests see it: kubectl, the runtime of its nodes, its Prometheus."""

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .ground import Ground

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FRANGIBLE_CLUSTER_CACHE", ROOT / ".cache" / "cluster"))
POLL = 0.25


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster with the estate in it."""

    cache: Path
    prometheus: str

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl against this cluster; raise what it says when it fails."""
        return _said([str(self.cache / "bin" / "kubectl"), f"--kubeconfig={self.cache / 'kubeconfig'}", "--request-timeout=10s", *arguments])

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the items that `kubectl get` lists."""
        return list(json.loads(self.kubectl("get", "-o", "json", *arguments))["items"])

    def runtime(self, *arguments: str) -> str:
        """Run the container runtime that the nodes run in."""
        return _said([str(self.cache / "bin" / "runtime"), *arguments])

    def ready(self, node: str) -> str:
        """Return what Kubernetes thinks of a node: `True`, `False` or `Unknown`."""
        return self.kubectl("get", "node", node, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')

    def query(self, query: str) -> dict[str, float]:
        """Ask Prometheus; return each environment's value."""
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=5) as response:
            found = json.load(response)["data"]["result"]
        return {series["metric"]["environment"]: float(series["value"][1]) for series in found}


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def eventually(true: Callable[[], bool], within: float, what: str) -> float:
    """Wait until something is true; return the seconds that it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within, f"not within {within:.0f} s: {what}"
        time.sleep(POLL)
    return time.monotonic() - began


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of this checkout, or of FRANGIBLE_CLUSTER_CACHE."""
    done = subprocess.run([ROOT / "ci" / "cluster" / "cluster", "prometheus"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"no cluster in {CACHE}; run `make cluster cluster-deploy`, or `make test-cluster` for all of it: {done.stderr}"
    return Cluster(CACHE, done.stdout.strip())


@pytest.fixture
def settled(ground: "Ground") -> "Iterator[Ground]":
    """A module's `ground` as it should be; afterwards too, with nothing left."""
    ground.settle()
    ground.assert_nothing_left()
    yield ground
    ground.assert_nothing_left()
