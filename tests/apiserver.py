"""A real kube-apiserver with its etcd on loopback, as envtest has them: no nodes and no controllers; what a test needs of those it plays itself."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

__all__ = ["ApiServer", "Kubelet", "Objects", "kube_binary", "listening"]

LOCAL = Path(__file__).parents[1] / ".cache" / "cluster" / "bin"
TOKENS = {"admin": "system:masters", "observer": "observers", "stranger": "strangers"}
"""Users, and the one group that each is in."""


def kube_binary(name: str) -> str:
    """Where a program of the cluster is: FRANGIBLE_KUBE_BIN, what `make cluster` built, PATH; skip the test where it is not to be had."""
    places = os.pathsep.join([os.environ.get("FRANGIBLE_KUBE_BIN") or str(LOCAL), os.environ["PATH"]])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"not possible here without {name}: not in FRANGIBLE_KUBE_BIN, in .cache/cluster/bin (`make cluster` builds it) or on PATH")
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class ApiServer:
    """One API server; users `admin` (may all), `observer` and `stranger` (may nothing until a test says so)."""

    folder: Path
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make keys and tokens; choose ports that stay the same when it is killed and started again."""
        self._binaries = {name: kube_binary(name) for name in ("etcd", "kube-apiserver")}
        self.folder.mkdir(parents=True)
        self.port, self._etcd, self._peer = _free_ports(3)
        self._key = self.folder / "service-accounts"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(self._key)], check=True, stdin=subprocess.DEVNULL)
        rows = [f"{user}-token,{user},{user},{group}" for user, group in TOKENS.items()]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")

    def start(self) -> None:
        """Start both and wait until the API is ready."""
        etcd = f"http://127.0.0.1:{self._etcd}"
        peer = f"http://127.0.0.1:{self._peer}"
        self._spawn(
            "etcd",
            *("--data-dir", str(self.folder / "etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--unsafe-no-fsync"),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--log-level", "error"),
        )
        self.start_api()

    def start_api(self) -> None:
        """Start the API server, again perhaps, and wait until it is ready."""
        self._spawn(
            "kube-apiserver",
            *("--etcd-servers", f"http://127.0.0.1:{self._etcd}", "--bind-address", "127.0.0.1", "--secure-port", str(self.port)),
            *("--cert-dir", str(self.folder / "certificates"), "--token-auth-file", str(self.folder / "tokens.csv"), "--authorization-mode", "RBAC"),
            *("--service-cluster-ip-range", "10.0.0.0/24", "--service-account-issuer", "https://tests", "--allow-privileged"),
            *("--service-account-key-file", str(self._key), "--service-account-signing-key-file", str(self._key)),
            *("--disable-admission-plugins", "ServiceAccount", "--advertise-address", "127.0.0.1"),
        )
        deadline = time.monotonic() + 120
        while not self._ready():
            assert self._processes["kube-apiserver"].poll() is None, (self.folder / "kube-apiserver.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the API server does not get ready"
            time.sleep(0.1)

    def run(self, name: str, *options: str) -> None:
        """Start a program that works on this server, such as the scheduler; it ends with it."""
        self._binaries[name] = kube_binary(name)
        self._spawn(name, *options)

    def kill_api(self) -> None:
        """Take the API server away at once; etcd keeps what it knew."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End both."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()
        self._processes.clear()

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, user: str = "admin", **cluster: object) -> Path:
        """Write a kubeconfig whose only context `tests` is this user's; more fields of its cluster override."""
        path = self.folder / f"kubeconfig-{user}{len(list(self.folder.glob('kubeconfig-*')))}"
        where = {"server": self.url, "certificate-authority": str(self.folder / "certificates" / "apiserver.crt"), **cluster}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": where}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "current-context": "tests",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def _ready(self) -> bool:
        import ssl
        import urllib.request

        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": "Bearer admin-token"})
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(request, timeout=2, context=context) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _spawn(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen([self._binaries[name], *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@dataclass
class Objects:
    """Makes the objects that controllers and kubelets would, with the official client."""

    api: Any
    """Its ApiClient."""

    def __post_init__(self) -> None:
        """Open the API groups."""
        from kubernetes import client

        self.core, self.apps, self.coordination = client.CoreV1Api(self.api), client.AppsV1Api(self.api), client.CoordinationV1Api(self.api)

    def namespace(self, name: str, **labels: str) -> None:
        """Make a namespace."""
        self.core.create_namespace({"metadata": {"name": name, "labels": labels}})

    def node(self, name: str, *, ready: bool = True, cpus: str = "4", labels: Mapping[str, str] = MappingProxyType({})) -> None:
        """Make a node as its kubelet would."""
        self.core.create_node({"metadata": {"name": name, "labels": dict(labels)}})
        status = {
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            "allocatable": {"cpu": cpus},
            "nodeInfo": {
                **dict.fromkeys(("machineID", "systemUUID", "containerRuntimeVersion", "kubeProxyVersion"), ""),
                "bootID": f"boot-{name}",
                "kernelVersion": "6.1.0",
                "osImage": "Debian 12",
                "kubeletVersion": "v1.34.4",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        }
        self.core.patch_node_status(name, {"status": status})

    def workload(self, kind: str, namespace: str, name: str, replicas: int = 1, labels: Mapping[str, str] = MappingProxyType({})) -> None:
        """Make a Deployment, StatefulSet or DaemonSet, labelled with its name."""
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": f"{name}:1"}]}}
        spec: dict[str, Any] = {"selector": {"matchLabels": {"app": name}}, "template": template}
        if kind != "daemonset":
            spec["replicas"] = replicas
        if kind == "statefulset":
            spec["serviceName"] = name
        body = {"metadata": {"name": name, "labels": {"app.kubernetes.io/name": name, **labels}}, "spec": spec}
        spelt = {"deployment": "deployment", "statefulset": "stateful_set", "daemonset": "daemon_set"}[kind]
        getattr(self.apps, f"create_namespaced_{spelt}")(namespace, body)

    def pod(self, namespace: str, name: str, node: str = "", *, app: str = "", running: bool = True, started: int = 1) -> None:
        """Make a pod, on a node, running."""
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": f"{app or name}:1"}], "terminationGracePeriodSeconds": 30}
        if node:
            spec["nodeName"] = node
        made = self.core.create_namespaced_pod(namespace, {"metadata": {"name": name, "labels": {"app": app or name}}, "spec": spec})
        if running:
            self.run(namespace, name, made.metadata.uid, started)

    def run(self, namespace: str, name: str, uid: str, started: int = 1) -> None:
        """Say that a pod's container runs and is ready."""
        container = {
            "name": "main",
            "ready": True,
            "restartCount": started - 1,
            "image": f"{name}:1",
            "imageID": f"{name}@sha256:{'0' * 64}",
            "containerID": f"containerd://{uid}-{started}",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [container]}
        self.core.patch_namespaced_pod_status(name, namespace, {"status": status})


class Kubelet:
    """Plays kubelets and controllers: ends what is deleted, and has a successor run on the node that `place` names, after `delay` seconds."""

    def __init__(self, objects: Objects, namespace: str, place: Callable[[str], str], delay: float = 0.0) -> None:
        """Play nothing yet."""
        self._objects, self._namespace, self._place, self._delay = objects, namespace, place, delay
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self.graces: list[int] = []
        """Seconds that each deletion gave."""

    def __enter__(self) -> "Kubelet":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _play(self) -> None:
        number = 0
        while not self._stop.wait(0.05):
            for pod in self._objects.core.list_namespaced_pod(self._namespace).items:
                if pod.metadata.deletion_timestamp is None:
                    continue
                self.graces.append(pod.metadata.deletion_grace_period_seconds)
                self._objects.core.delete_namespaced_pod(pod.metadata.name, self._namespace, grace_period_seconds=0)
                self._stop.wait(self._delay)
                number += 1
                app = pod.metadata.labels["app"]
                self._objects.pod(self._namespace, f"{app}-new-{number}", self._place(pod.spec.node_name), app=app)


def listening(folder: Path) -> Iterator[ApiServer]:
    """Have one run, and end it."""
    server = ApiServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
