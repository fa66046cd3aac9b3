"""Pods of frangible on a node of the environment, for what the API alone cannot do: stop processes by a signal, hold CPUs, cut the node off.

Each is pinned to its node, tolerates every taint, is started once, and carries its own deadline twice: in the program that it runs, and as
`activeDeadlineSeconds`. It is ended by its deletion, and what its container said last tells whether what it did is undone.
"""

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from frangible.errors import PlatformError
from frangible.helper.api import TOLD
from frangible.platforms.kubernetes.client import Conflict, NotFound
from frangible.platforms.kubernetes.copies import missing_namespace
from frangible.platforms.kubernetes.labels import MANAGED, labels, object_name, value
from frangible.platforms.kubernetes.survey import Looker

__all__ = ["ACCOUNT", "STALE", "HelperPods", "Job", "Seen", "manifest"]

ACCOUNT = "frangible-helper"
"""Service account of the pods: it may change its own namespace's pods, to tell what they see."""
JOB = "frangible.io/job"
OF = "frangible.io/of"
"""Label of what it is about: a service, a burner's name."""
GRACE = 30
"""Seconds that a pod has to undo what it did, from its deletion."""
SLACK = 30.0
"""Seconds after the program's own deadline at which the kubelet ends the pod."""
COME_UP = 45.0
"""Seconds that a pod has until it tells for the first time."""
ENDING = ("undo", "kill")
"""Kinds that end by themselves."""
STALE = 5.0
"""Seconds without news, which come twice a second, after which what a pod told last is no longer what it does."""
HOPELESS = ("ErrImage", "ImagePull", "InvalidImageName", "CreateContainer", "RunContainerError")
"""Beginnings of the reasons for which a container will not start however long one waits."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one pod does on one node."""

    kind: str
    """A module of `frangible.helper`."""
    node: str
    of: str
    """What it is about; at most one of a kind is about it on a node at a time."""
    seconds: float
    """The program's own deadline."""
    arguments: tuple[str, ...] = ()
    node_access: bool = True
    """Whether it acts on the node's processes: `hostPID`, privileged."""
    node_network: bool = False
    """Whether it shares the node's network (`hostNetwork`)."""
    node_cgroups: bool = False
    """Whether it may read the node's cgroups, at `/node/cgroups`."""
    cpus: float = 0.2
    """CPU limit: a CFS quota."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One helper pod as the API shows it."""

    name: str
    node: str
    kind: str
    of: str
    lease: str
    deleting: bool
    phase: str
    told: Mapping[str, Any]
    """What it told last; empty before."""
    exit_code: int | None
    """None while it runs, or was never started."""
    said: str
    """Why it waits or has ended."""

    @classmethod
    def of_item(cls, item: Mapping[str, Any]) -> "Seen":
        """Parse one pod."""
        meta, status = item["metadata"], item.get("status") or {}
        state = next((one.get("state") or {} for one in status.get("containerStatuses") or ()), {})
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        told = ended or waiting
        said = ": ".join(text for text in (status.get("reason"), status.get("message"), told.get("reason"), told.get("message")) if text)
        return cls(
            name=meta["name"],
            node=(item.get("spec") or {}).get("nodeName", ""),
            kind=meta["labels"].get(JOB, ""),
            of=meta["labels"].get(OF, ""),
            lease=(meta.get("annotations") or {}).get("frangible.io/lease-id", ""),
            deleting="deletionTimestamp" in meta,
            phase=status.get("phase", ""),
            told=_json((meta.get("annotations") or {}).get(TOLD, "")),
            exit_code=int(ended["exitCode"]) if ended else None,
            said=said.strip(),
        )

    @property
    def alive(self) -> bool:
        """Whether it runs, or may still be started."""
        return self.exit_code is None and self.phase not in {"Succeeded", "Failed"}

    @property
    def hopeless(self) -> bool:
        """Whether it will never start."""
        return self.phase == "Failed" or self.said.startswith(HOPELESS)


@dataclass(frozen=True, slots=True)
class HelperPods:
    """The helper pods of one environment, on behalf of one lease. Raises `PlatformError`."""

    looker: Looker
    lease: str
    heard: dict[str, tuple[object, float]] = field(default_factory=dict, compare=False)
    """The newest beat of each pod, and when it was first seen, on the monotonic clock."""

    @property
    def namespace(self) -> str:
        """Where they are."""
        return self.looker.environment.platform.namespace

    @property
    def image(self) -> str:
        """What they run; empty where the inventory names none."""
        return self.looker.environment.platform.helper_image

    def start(self, job: Job) -> Seen:
        """Start one, wait until it tells that it does its job, and return that. One that was started for this lease before is left as it is."""
        cluster, name = self.looker.cluster, self._create(job)
        seen: Seen | None = None
        for items in cluster.follow(cluster.core.list_namespaced_pod, self.namespace, field_selector=f"metadata.name={name}", seconds=COME_UP):
            seen = Seen.of_item(items[0]) if items else None
            if seen is None or seen.deleting or seen.told or not seen.alive or seen.hopeless:
                break
        if seen is not None and seen.told and seen.alive:
            return seen
        why = "it was deleted" if seen is None or seen.deleting else seen.said or f"{seen.phase}, and it tells nothing"
        raise PlatformError(f"{self._who(job.node)}: pod {name} ({self.image}) does not do its job: {why}")

    def end(self, node: str, kind: str, of: str = "") -> bool:
        """End the pods of one kind that this lease has on a node; return whether each told that what it did is undone, and there was one."""
        ended = [self._end(seen) for seen in self.all(node, kind) if seen.lease == self.lease and of in {"", seen.of}]
        return bool(ended) and all(ended)

    def undo(self, node: str) -> None:
        """Undo what this lease has left on a node, by a pod of its own: for when the one that did it did not say that it is undone."""
        self.run(Job("undo", node, of=self.lease, seconds=60.0))

    def all(self, node: str, kind: str = "") -> tuple[Seen, ...]:
        """Return the pods that are on a node, of one kind or all; also those that have ended and were not removed."""
        cluster = self.looker.cluster
        selector = f"{'='.join(MANAGED)},{JOB}" + (f"={kind}" if kind else "")
        items = cluster.pages(cluster.core.list_namespaced_pod, self.namespace, label_selector=selector, field_selector=f"spec.nodeName={node}")
        return tuple(map(Seen.of_item, items))

    def _end(self, seen: Seen) -> bool:
        """Delete one and wait until it is gone; return whether it ended by itself, saying that nothing is left."""
        cluster, last = self.looker.cluster, seen
        try:
            cluster.ask(cluster.core.delete_namespaced_pod, seen.name, self.namespace, body={"gracePeriodSeconds": GRACE})
        except NotFound:
            return False
        for items in cluster.follow(cluster.core.list_namespaced_pod, self.namespace, field_selector=f"metadata.name={seen.name}", seconds=GRACE + SLACK):
            if not items:
                return last.exit_code == 0
            last = Seen.of_item(items[0])
        raise PlatformError(f"{self._who(seen.node)}: pod {seen.name} is still there {GRACE + SLACK:g} s after its deletion; is the node's kubelet well?")

    def run(self, job: Job) -> None:
        """Run one to its end, and remove it; raise where it did not do its job."""
        cluster, name = self.looker.cluster, self._create(job)
        last: Seen | None = None
        for items in cluster.follow(cluster.core.list_namespaced_pod, self.namespace, field_selector=f"metadata.name={name}", seconds=COME_UP):
            last = Seen.of_item(items[0]) if items else last
            if not items or (last is not None and (not last.alive or last.hopeless)):
                break
        with contextlib.suppress(NotFound):
            cluster.ask(cluster.core.delete_namespaced_pod, name, self.namespace, body={"gracePeriodSeconds": 0})
        if last is None or last.exit_code != 0:
            raise PlatformError(f"{self._who(job.node)}: pod {name} did not do its job: {last.said if last else 'it is not there'}")

    def silent(self, seen: Seen) -> float:
        """Return for how many seconds a pod has told nothing new, since it was first looked at; 0 for one that has not told anything yet."""
        beat, now = seen.told.get("beat"), time.monotonic()
        if self.heard.get(seen.name, (None, now))[0] != beat:
            self.heard[seen.name] = (beat, now)
        return now - self.heard.get(seen.name, (None, now))[1]

    def _create(self, job: Job) -> str:
        """Create the pod of a job, unless it is there already, and return its name."""
        cluster = self.looker.cluster
        body = manifest(job, self.lease, self.looker.environment.name, self.image)
        try:
            with contextlib.suppress(Conflict), missing_namespace(self.namespace):
                cluster.ask(cluster.core.create_namespaced_pod, self.namespace, body)
        except PlatformError as error:
            if "serviceaccount" in str(error):
                raise PlatformError(f"{error}; create it: deploy/frangible has the manifest") from error
            raise
        return str(body["metadata"]["name"])

    def _who(self, node: str) -> str:
        return f"environment {self.looker.environment.name}, node {node}"


def manifest(job: Job, lease: str, environment: str, image: str) -> dict[str, Any]:
    """Return the pod of a job. Pure.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
    """
    what = {"kind": job.kind, "of": job.of} if job.of != lease else {"kind": job.kind}
    name = object_name(f"frangible-{job.kind}-", "-".join([lease, *([job.of] if "of" in what else [])]))
    tags = labels(run=lease.rpartition("-")[0], lease=lease, environment=environment, node=job.node)
    volumes = [{"name": "cgroups", "hostPath": {"path": "/sys/fs/cgroup", "type": "Directory"}}] if job.node_cgroups else []
    own = ["--seconds", f"{job.seconds:g}"] if job.kind not in ENDING else []
    container = {
        "name": job.kind,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", f"frangible.helper.{job.kind}", "--lease", lease, *own, *job.arguments],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": f"{max(1, round(job.cpus * 1000))}m", "memory": "128Mi"}},
        "securityContext": {"privileged": True} if job.node_access else {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": one["name"], "mountPath": f"/node/{one['name']}", "readOnly": True} for one in volumes],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**tags, JOB: job.kind, OF: value(job.of)},
            "annotations": {"frangible.io/lease-id": lease},
        },
        "spec": {
            "nodeName": job.node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": max(1, round(job.seconds + SLACK)),
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": [{"operator": "Exists"}],
            "hostPID": job.node_access,
            "hostNetwork": job.node_network,
            "enableServiceLinks": False,
            "serviceAccountName": ACCOUNT,
            "containers": [container],
            "volumes": volumes,
        },
    }


def only(seen: Iterable[Seen]) -> Seen | None:
    """Return the one that lives, else one that has ended, or None."""
    ordered = sorted(seen, key=lambda one: (not one.alive, one.name))
    return ordered[0] if ordered else None


def _json(text: str) -> Mapping[str, Any]:
    with contextlib.suppress(ValueError):
        data = json.loads(text)
        if isinstance(data, dict):
            return data
    return {}
