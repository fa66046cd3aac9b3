"""Faults of Kubernetes on real nodes: each is real, each is gone afterwards, whoever dies in between, and nothing of it is left in cluster or node."""

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
import pytest
import yaml

from frangible.actions.process_pause import ProcessPause
from frangible.fault import Target
from frangible.home import Home
from frangible.inventory import Environment, load_inventory
from frangible.platforms import open_platform

from ..lab.runs import Ended, Event, execute, gauge, hypothesis
from ..unit.conftest import running as prometheus
from .conftest import CACHE, ROOT, eventually

PAUSING = ROOT / "benchmarks" / "pausing"
"""Lets a process of frangible stop at a step."""
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
        spec = {
            "terminationGracePeriodSeconds": 1,
            "topologySpreadConstraints": [spread],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": where}]}}},
            "containers": [main],
        }
        template = {"metadata": {"labels": labels}, "spec": spec}
        meta = {"name": "web", "namespace": self.namespace, "labels": {"app.kubernetes.io/name": "web"}}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template},
        }

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


@pytest.fixture(scope="module")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus outside the cluster."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        job = {"job_name": "alive", "scrape_interval": "500ms", "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}
        with prometheus(tmp_path_factory.mktemp("prometheus") / "data", "", yaml.safe_dump({"scrape_configs": [job]})) as url:
            yield url
        server.shutdown()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, observer: str) -> Iterator[Ground]:
    """A namespace, a service in it, and an environment that is just that, on two workers."""
    given = load_inventory(CACHE / "inventory.yaml").get("k8s-fragile").platform
    namespace = f"faults-{secrets.token_hex(3)}"
    command = [str(CACHE / "bin" / "kubectl"), f"--kubeconfig={CACHE / 'kubeconfig'}", "get", "nodes", "-o", "json"]
    nodes = [
        node for node in json.loads(subprocess.check_output(command))["items"] if "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"]
    ]
    names = sorted(node["metadata"]["name"] for node in nodes)[:2]
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
        "prometheus": {"url": observer, "scrape-interval": "500ms"},
        "labels": {"job": "alive"},
        "nodes": [{"name": name, "cpus": 0.5} for name in names],
        "services": [{"name": "web"}],
        "limits": {"nodes-at-once": 1, "share-of-role": 1.0},
    }
    inventory = tmp_path_factory.mktemp("inventory") / "inventory.yaml"
    inventory.write_text(yaml.safe_dump({"environments": [entry]}))
    made = Ground(inventory, load_inventory(inventory).get(namespace), namespace, names[0], given.helper_image)
    made.kubectl("create", "namespace", namespace)
    try:
        yield made
    finally:
        made.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def settled(ground: Ground) -> Iterator[Ground]:
    ground.settle()
    ground.assert_nothing_left()
    yield ground
    ground.assert_nothing_left()


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


def test_a_budget_that_allows_nothing_fails_the_drain_and_frees_the_node(settled: Ground, tmp_path: Path) -> None:
    """A person is told which budget it was; nobody has to uncordon anything."""
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "strict", "namespace": settled.namespace},
        "spec": {"minAvailable": REPLICAS, "selector": {"matchLabels": {"app": "web"}}},
    }
    settled.apply(budget)
    status = ["get", "poddisruptionbudget", "strict", "-n", settled.namespace, "-o", "jsonpath={.status.expectedPods}"]
    eventually(lambda: settled.kubectl(*status) == str(REPLICAS), 30, "the budget counts the pods")
    before = {pod["metadata"]["uid"] for pod in settled.pods()}
    try:
        ended = run(settled, tmp_path, experiment(tmp_path, "node_drain", "drain_nodes", name=settled.node, deadline=5.0, hold=4.0))
    finally:
        settled.kubectl("delete", "poddisruptionbudget", "strict", "-n", settled.namespace)
    told = json.dumps(ended.events)
    assert "disruption budget strict" in told, ended.why
    assert not any(proof.injected for proof in ended.record.proofs)
    assert {pod["metadata"]["uid"] for pod in settled.pods()} == before


def test_a_paused_service_stands_still_and_goes_on_afterwards(settled: Ground, tmp_path: Path) -> None:
    """Every process of it on the node is stopped, as the node's own process table says."""
    seen: list[int] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            seen.append(settled.stopped())

    running = len(settled.pods())
    ended = run(settled, tmp_path, experiment(tmp_path, "process_pause", "pause", service="web", name=settled.node, hold=4.0), look)
    assert seen == [running], ended.why
    assert [(one.injected, one.reverted, one.proven_share >= 0.95) for one in ended.record.proofs] == [(True, True, True)], ended.why


def test_a_liveness_probe_ends_a_pause_and_the_fault_is_no_longer_proven(settled: Ground, tmp_path: Path) -> None:
    """The kubelet kills what does not answer; what runs then was never paused."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
    http = {**probe, "httpGet": {"path": "/", "port": 8080}}
    del http["tcpSocket"]
    settled.apply(settled.service(livenessProbe=http))
    settled.kubectl("rollout", "status", "deployment/web", "-n", settled.namespace, "--timeout=120s")
    ended = run(settled, tmp_path, experiment(tmp_path, "process_pause", "pause", service="web", name=settled.node, hold=12.0))
    proof = ended.record.proofs[0]
    assert (proof.injected, proof.reverted, proof.proven_share < 0.95) == (True, True, True), proof
    settled.kubectl("rollout", "status", "deployment/web", "-n", settled.namespace, "--timeout=120s")


def test_a_pause_whose_pod_was_killed_is_undone_from_the_note_on_the_node(settled: Ground) -> None:
    """Deleted by force, its container is killed and cannot undo anything; the revert starts a pod that can."""
    fault, target = ProcessPause(deadline=120.0), Target("service", f"{settled.node}/web")
    platform = open_platform(settled.environment).for_lease(f"20261126-1800-07-3fa9-{secrets.token_hex(3)}")
    prior = fault.capture(platform, target)
    fault.inject(platform, target, prior)
    try:
        assert settled.stopped() == len(settled.pods())
        pods = settled.on_node("ps", "-eo", "pid,args")
        for line in pods.splitlines():
            if "frangible.helper.pause" in line:
                settled.on_node("kill", "-KILL", line.split()[0])
        settled.kubectl("delete", "pods", "-n", settled.environment.platform.namespace, "-l", f"frangible.io/environment={settled.namespace}", "--force")
        assert settled.stopped() == len(settled.pods())
    finally:
        fault.revert(platform, target, prior)
    assert fault.observe_reverted(platform, target, prior).real
    assert settled.stopped() == 0


def test_a_node_whose_kubelet_is_stopped_is_not_ready_and_comes_back(settled: Ground, tmp_path: Path) -> None:
    """The hold begins when the cluster has noticed; the revert reaches the node all the same. Its network is cut by the shipped experiment."""
    seen: list[str] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            conditions = settled.node_object()["status"]["conditions"]
            seen.append(next(one["status"] for one in conditions if one["type"] == "Ready"))

    ended = run(settled, tmp_path, experiment(tmp_path, "node_cut", "cut_nodes", what="kubelet", name=settled.node, hold=3.0), look)
    assert seen == ["Unknown"], ended.why
    assert [(one.injected, one.reverted, one.proven_share >= 0.9) for one in ended.record.proofs] == [(True, True, True)], ended.why


def test_cpus_are_held_at_what_is_asked_for(settled: Ground, tmp_path: Path) -> None:
    """Half of one CPU is declared; the node, which is a container, is brought to 80 % of that, and the fault says so itself."""
    measured: list[str] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] in {"proven", "reverted"}:
            measured.append(event["detail"])

    ended = run(settled, tmp_path, experiment(tmp_path, "cpu_saturation", "saturate_cpus", utilisation=80.0, name=settled.node, hold=15.0), look)
    assert [(one.injected, one.reverted) for one in ended.record.proofs] == [(True, True)], ended.why
    assert any(said.startswith("CPUs at ") for said in measured), measured
    assert "on average, asked for 80 %" in measured[-1], measured


MIDDLE: dict[str, tuple[str, str, dict[str, object]]] = {
    "node-drain": ("node_drain", "drain_nodes", {"deadline": 120.0, "hold": 300.0}),
    "process-pause": ("process_pause", "pause", {"service": "web", "hold": 300.0}),
    "node-cut": ("node_cut", "cut_nodes", {"what": "network", "hold": 300.0}),
}


@pytest.mark.parametrize("kind", MIDDLE)
def test_what_a_lost_operator_leaves_behind_is_recovered_with_the_kubeconfig_alone(settled: Ground, tmp_path: Path, kind: str) -> None:
    """Every process of the run is killed in the middle of the hold; another home, with another ledger, finds the lease in the cluster and reverts it."""
    module, func, arguments = MIDDLE[kind]
    path = experiment(tmp_path, module, func, name=settled.node, **arguments)
    lost, other = tmp_path / "lost", tmp_path / "other"
    with running(settled, lost, path):
        eventually(
            lambda: bool(settled.objects("configmaps", "-n", settled.environment.platform.namespace, "-l", f"{OURS},frangible.io/lease")), 150, "a lease"
        )
        in_force = {
            "node-drain": lambda: bool(settled.node_object()["spec"].get("unschedulable")) and not settled.pods(),
            "process-pause": lambda: settled.stopped() > 0,
            "node-cut": lambda: "frangible" in settled.on_node("nft", "list", "tables"),
        }
        eventually(in_force[kind], 120, "the fault is in force")
    assert in_force[kind]()
    eventually(lambda: recovered(settled, other), 120, "recover has nothing left to do")


KILLED_AT = {
    "admission": "supervisor:Journal.start:after",
    "copied, not injected": "runner:Ledger.begin_injecting:before",
    "injected, not recorded": "runner:Ledger.mark_injected:before",
    "reverting": "runner:KubernetesPlatform.resume_service:before",
    "reverted, not recorded": "runner:Ledger.mark_reverted:before",
}
"""Where one of a run's processes stops by itself, to be killed with all others. The effect is in MIDDLE."""


@pytest.mark.parametrize("step", KILLED_AT)
def test_a_run_that_is_killed_at_a_step_is_recovered_with_the_kubeconfig_alone(settled: Ground, tmp_path: Path, step: str) -> None:
    """Before anything was done, between doing and recording, and within the revert: another home leaves nothing of it."""
    path = experiment(tmp_path, "process_pause", "pause", service="web", name=settled.node, hold=2.0)
    lost = tmp_path / "lost"
    with running(settled, lost, path, FRANGIBLE_PAUSE_AT=KILLED_AT[step], PYTHONPATH=str(PAUSING)):
        eventually(lambda: any(process.status() == psutil.STATUS_STOPPED for process in processes_of(lost)), 90, f"a process stops at {KILLED_AT[step]}")
    assert (settled.stopped() > 0) == (step in {"injected, not recorded", "reverting"})
    eventually(lambda: recovered(settled, tmp_path / "other"), 120, "recover has nothing left to do")


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
    left = ground.objects(
        "configmaps", "-n", ground.environment.platform.namespace, "-l", f"{OURS},frangible.io/lease,frangible.io/environment={ground.namespace}"
    )
    if left:
        time.sleep(1)
    return not left
