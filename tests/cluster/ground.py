"""A service of the tests' own in the cluster, runs on it, and what must not be left of them."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import yaml

from frangible.home import Home
from frangible.inventory import Environment, load_inventory

from ..lab.runs import Ended, Event, execute, gauge, hypothesis
from ..unit.conftest import running as prometheus
from .conftest import CACHE, eventually

__all__ = ["REPLICAS", "Ground", "experiment", "prepared", "processes_of", "recovered", "run", "running"]

OURS = "app.kubernetes.io/managed-by=frangible"
REPLICAS = 4
COME_UP = 120.0
"""Seconds that pods have to be ready, on a machine that does other things too."""


@dataclass(frozen=True)
class Ground:
    """A service of the tests' own on two nodes of the cluster, and what has to be left of nothing."""

    inventory: Path
    environment: Environment
    namespace: str
    node: str
    """Where faults are injected."""
    image: str

    def kubectl(self, *arguments: str, text: str = "") -> str:
        command = [str(CACHE / "bin" / "kubectl"), f"--kubeconfig={CACHE / 'kubeconfig'}", "--request-timeout=60s", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, input=text or None)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("get", "-o", "json", *arguments))["items"])

    def on_node(self, *command: str) -> str:
        """Run a command on the node itself, past the cluster."""
        return subprocess.run([str(CACHE / "bin" / "runtime"), "exec", self.node, *command], capture_output=True, text=True, timeout=60).stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def pods(self) -> list[dict[str, Any]]:
        """The service's pods on the node that are not ending."""
        found = self.objects("pods", "-n", self.namespace, "--field-selector", f"spec.nodeName={self.node}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def node_object(self) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", "node", self.node, "-o", "json")))

    def stopped(self) -> int:
        """How many processes of the service on the node are stopped, as the node's kernel says."""
        return sum(line.split()[0].startswith("T") and self.namespace in line for line in self.on_node("ps", "-eo", "stat,args").splitlines())

    def settle(self) -> None:
        """Have the service as it should be, with pods on the node."""
        self.apply(self.service())
        ready = lambda: self.kubectl("get", "deployment", "web", "-n", self.namespace, "-o", "jsonpath={.status.readyReplicas}") == str(REPLICAS)  # noqa: E731
        eventually(ready, COME_UP, "the service is ready")
        if len(self.pods()) != REPLICAS // 2:
            self.kubectl("delete", "pods", "-n", self.namespace, "--all", "--wait=true")
            eventually(lambda: ready() and bool(self.pods()), COME_UP, "the service is ready, with pods on the node")

    def service(self, **container: Any) -> dict[str, Any]:
        """A Deployment that spreads over the nodes; its processes carry the namespace's name in their arguments."""
        program = "import http.server as h; h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
        labels = {"app": "web"}
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
        main = {
            "name": "web",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", program, self.namespace],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            **container,
        }
        nodes = [node.name for node in self.environment.nodes]
        where = [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]
        spec: dict[str, Any] = {
            "terminationGracePeriodSeconds": 1,
            "topologySpreadConstraints": [spread],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": where}]}}},
            "containers": [main],
        }
        template = {"metadata": {"labels": labels}, "spec": spec}
        meta = {"name": "web", "namespace": self.namespace, "labels": {"app.kubernetes.io/name": "web"}}
        # On a control plane too, where the environment has one.
        spec["tolerations"] = [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}]
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template},
        }

    def leases(self) -> list[dict[str, Any]]:
        """Copies of this environment's leases in the cluster."""
        return self.objects(
            "configmaps", "-n", self.environment.platform.namespace, "-l", f"{OURS},frangible.io/lease,frangible.io/environment={self.namespace}"
        )

    def assert_nothing_left(self) -> None:
        """No pods and no lease in the cluster; the node schedulable, heard of, with no mark, no note and no rule; nothing stopped on it."""
        space = self.environment.platform.namespace
        assert [pod["metadata"]["name"] for pod in self.objects("pods", "-n", space, "-l", f"{OURS},frangible.io/environment={self.environment.name}")] == []
        assert [one["metadata"]["name"] for one in self.objects("configmaps", "-n", space, "-l", f"frangible.io/environment={self.environment.name}")] == []
        node = self.node_object()
        assert not node["spec"].get("unschedulable")
        assert not [key for key in node["metadata"].get("annotations", {}) if key.startswith("frangible.io/cordoned")]
        assert self.on_node("sh", "-c", "ls /run/frangible 2>/dev/null") == ""
        assert "frangible" not in self.on_node("nft", "list", "tables")
        assert self.stopped() == 0
        assert "T" not in self.on_node("ps", "-C", "kubelet", "-o", "stat=")


class Alive(BaseHTTPRequestHandler):
    """A series that is always there: what is judged here is no service, since these tests are about the faults."""

    def do_GET(self) -> None:
        text = b"alive 1\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def observer(folder: Path) -> Iterator[str]:
    """A Prometheus outside the cluster."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        job = {"job_name": "alive", "scrape_interval": "500ms", "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}
        with prometheus(folder, "", yaml.safe_dump({"scrape_configs": [job]})) as url:
            yield url
        server.shutdown()


@contextlib.contextmanager
def prepared(folder: Path, *nodes: str) -> Iterator[Ground]:
    """A namespace, a service in it, and an environment that is just that, on two nodes; faults are injected on the first."""
    with observer(folder / "prometheus") as prometheus_url:
        yield from _prepared(folder, prometheus_url, nodes)


def _prepared(folder: Path, prometheus_url: str, names: tuple[str, ...]) -> Iterator[Ground]:
    given = load_inventory(CACHE / "inventory.yaml").get("k8s-fragile").platform
    namespace = f"faults-{secrets.token_hex(3)}"
    platform = {
        "kind": "kubernetes",
        "kubeconfig": str(CACHE / "kubeconfig"),
        "context": given.context,
        "namespaces": [namespace],
        "namespace": given.namespace,
        "helper-image": given.helper_image,
    }
    entry = {
        "name": namespace,
        "region": "london",
        "tier": "staging",
        "owner": {"team": "tests"},
        "platform": platform,
        "prometheus": {"url": prometheus_url, "scrape-interval": "500ms"},
        "labels": {"job": "alive"},
        "nodes": [{"name": name, "cpus": 0.5} for name in names],
        "services": [{"name": "web"}],
        "limits": {"nodes-at-once": 1, "share-of-role": 1.0},
    }
    inventory = folder / "inventory.yaml"
    inventory.write_text(yaml.safe_dump({"environments": [entry]}))
    made = Ground(inventory, load_inventory(inventory).get(namespace), namespace, names[0], given.helper_image)
    made.kubectl("create", "namespace", namespace)
    try:
        yield made
    finally:
        made.kubectl("delete", "namespace", namespace, "--wait=false")


def experiment(folder: Path, module: str, func: str, **arguments: Any) -> Path:
    """An experiment that injects one fault, and its hypothesis, which holds whatever happens to the cluster."""
    (folder / "hypotheses").mkdir()
    stands = hypothesis("alive", gauge("alive", "alive{${labels}}", **{"when-absent": "broken"}), requires=None)
    (folder / "hypotheses" / "alive.yaml").write_text(yaml.safe_dump(stands))
    probe = {"type": "python", "module": "frangible.probes.steady_state", "func": "steady_state", "arguments": {"hypothesis": "alive"}}
    provider = {"type": "python", "module": f"frangible.actions.{module}", "func": func, "arguments": arguments}
    document = {
        "title": f"{module} {arguments}",
        "description": "One fault, and nothing that it could break.",
        "controls": [{"name": "frangible", "provider": {"type": "python", "module": "frangible.control"}}],
        "extensions": [{"name": "frangible", "baseline": "3s", "baseline-limit": "45s", "settle": "500ms", "observe-for": "8s"}],
        "runtime": {"rollbacks": {"strategy": "always"}},
        "steady-state-hypothesis": {"title": "alive", "probes": [{"type": "probe", "name": "alive", "tolerance": True, "provider": probe}]},
        "method": [{"type": "action", "name": "inject", "provider": provider}],
        "rollbacks": [],
    }
    path = folder / f"{module}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run(ground: Ground, folder: Path, path: Path, on_event: Callable[[Event], None] = lambda _: None) -> Ended:
    return execute(Home(folder / "home"), ground.inventory, ground.environment.name, path, on_event)


def processes_of(home: Path) -> Iterator[psutil.Process]:
    """Whoever has this home in its environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FRANGIBLE_HOME") == str(home):
                yield process


@contextlib.contextmanager
def running(ground: Ground, home: Path, path: Path, **variables: str) -> Iterator[None]:
    """A run in processes of its own, all of which are killed at the end."""
    command = [sys.executable, "-m", "frangible.cli", "run", str(path), "--environment", ground.environment.name, "--inventory", str(ground.inventory)]
    started = subprocess.Popen(
        command, env={**os.environ, "FRANGIBLE_HOME": str(home), **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        for process in processes_of(home):
            with contextlib.suppress(psutil.Error):
                process.kill()
        started.wait()


def recovered(ground: Ground, home: Path) -> bool:
    """Recover as another machine would that has the inventory; a run whose locks have not expired yet is left alone, so it is asked again."""
    command = [sys.executable, "-m", "frangible.cli", "recover", "--inventory", str(ground.inventory)]
    done = subprocess.run(command, env={**os.environ, "FRANGIBLE_HOME": str(home)}, capture_output=True, text=True, timeout=180)
    assert "revert-failed" not in done.stdout, done.stdout
    left = ground.leases()
    if left:
        time.sleep(1)
    return not left
