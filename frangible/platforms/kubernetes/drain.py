"""Draining a node: it is cordoned, and its pods are evicted side by side, as their PodDisruptionBudgets allow, until none is left.

What was cordoned here is marked on the node itself, in the same write: so it is known to whoever looks, and only that is ever undone.
"""

import contextlib
import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tenacity import Retrying, retry_always, retry_if_exception_type, stop_after_attempt, stop_when_event_set, wait_exponential, wait_random
from tenacity.nap import sleep_using_event

from frangible.errors import PlatformError
from frangible.platforms import DrainState
from frangible.platforms.kubernetes.client import Answer, Cluster, Conflict, NotFound
from frangible.platforms.kubernetes.labels import MANAGED
from frangible.platforms.kubernetes.objects import Pod

__all__ = ["CORDONED_BY", "Drains"]

CORDONED_BY = "frangible.io/cordoned-by"
"""Annotation of a node: the lease that it was cordoned for. A node that was unschedulable before has none."""
MIRROR = "kubernetes.io/config.mirror"
"""Annotation of what a kubelet runs from a file: the API only shows it."""
AT_ONCE = 16
"""Evictions that are asked for side by side; an API server takes some hundred requests at once from everybody together."""
SHOWN = 3
"""Pods that an error names."""
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Evictable:
    """One pod that a drain ends."""

    pod: Pod
    controller: str
    """Kind of what starts it again elsewhere; empty where nothing does."""

    def __str__(self) -> str:
        """Render `namespace/name`."""
        return f"{self.pod.namespace}/{self.pod.name}"


@dataclass(frozen=True, slots=True)
class Drains:
    """Drains the nodes of one cluster on behalf of one lease. Raises `PlatformError`."""

    cluster: Cluster
    lease: str

    def state(self, node: str) -> DrainState:
        """Look at one node, and at what a drain would evict from it now."""
        found = self.cluster.ask(self.cluster.core.read_node, node)
        here = evictable(self.cluster.pages(self.cluster.core.list_pod_for_all_namespaces, field_selector=_on(node)))
        return DrainState(
            node=node,
            cordoned=_is_cordoned(found),
            by=_cordoned_by(found),
            pods=tuple(sorted(one.pod.uid for one in here)),
            alone=tuple(sorted(str(one) for one in here if not one.controller)),
        )

    def drain(self, node: str, seconds: float) -> None:
        """Cordon, then evict until no pod is left; raise when some are left after `seconds`. What was cordoned stays so."""
        self.cordon(node)
        evictor = Evictor(self.cluster)
        thread = threading.Thread(target=evictor.run, name=f"evict-{node}", daemon=True)
        try:
            for items in self.cluster.follow(self.cluster.core.list_pod_for_all_namespaces, field_selector=_on(node), seconds=seconds):
                evictor.see(evictable(items))
                if not evictor.here:
                    return
                if thread.ident is None:
                    evictor.turn()  # here, so that a missing permission is told at once
                    thread.start()
        finally:
            evictor.stop.set()
        raise PlatformError(
            f"node {node}: {evictor.told()} after {seconds:g} s; see to it that their PodDisruptionBudgets allow it, or give a longer `deadline`"
        )

    def cordon(self, node: str) -> None:
        """Let nothing be scheduled there any more, and mark it as ours; a node that is cordoned already is left as it is."""
        for attempt in _anew():
            with attempt:
                found = self.cluster.ask(self.cluster.core.read_node, node)
                if not _is_cordoned(found):
                    self._patch(node, found, unschedulable=True, by=self.lease)

    def uncordon(self, node: str) -> None:
        """Let it be scheduled to again if it was cordoned for this lease; whatever else stands there is left alone."""
        for attempt in _anew():
            with attempt:
                found = self.cluster.ask(self.cluster.core.read_node, node)
                if _cordoned_by(found) == self.lease:
                    self._patch(node, found, unschedulable=None, by=None)

    def _patch(self, node: str, found: Answer, *, unschedulable: bool | None, by: str | None) -> None:
        """Change flag and mark in one write, or neither: what somebody has written since it was read is a conflict."""
        body = {"metadata": {"resourceVersion": found.version, "annotations": {CORDONED_BY: by}}, "spec": {"unschedulable": unschedulable}}
        self.cluster.ask(self.cluster.core.patch_node, node, body, _content_type=MERGE)


@dataclass(slots=True)
class Evictor:
    """Evicts what is there, again and again what was refused, until it is told to stop."""

    cluster: Cluster
    here: Mapping[str, Evictable] = field(default_factory=dict)
    """What is left on the node, by uid."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why the newest request of each was refused, by uid; empty for what is ending."""
    stop: threading.Event = field(default_factory=threading.Event)

    def see(self, here: Iterable[Evictable]) -> None:
        """Take in what is left."""
        self.here = {one.pod.uid: one for one in here}

    def turn(self) -> None:
        """Ask once for each that is not ending, a bounded number side by side; one that is refused keeps no other waiting."""
        asked = [one for uid, one in self.here.items() if self.refused.get(uid, "not asked yet") and not one.pod.deleting]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="evict") as pool:
            self.refused |= dict(zip((one.pod.uid for one in asked), pool.map(self._evict, asked), strict=True))

    def run(self) -> None:
        """Ask in turns until told to stop: also for what comes to the node meanwhile."""
        retrying = Retrying(
            retry=retry_always,
            stop=stop_when_event_set(self.stop),
            wait=wait_exponential(multiplier=0.1, max=1.0) + wait_random(0, 0.1),
            sleep=sleep_using_event(self.stop),
            retry_error_callback=lambda _: None,
        )
        retrying(self.turn)

    def told(self) -> str:
        """Say what is left, and why."""
        left = [f"{one} ({self.refused.get(uid) or 'evicted, and still ending'})" for uid, one in self.here.items()]
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        return f"{len(left)} of its pods are still there, {', '.join(left[:SHOWN])}{more}"

    def _evict(self, one: Evictable) -> str:
        """Ask for one eviction; return why it was refused for now, or nothing. The uid keeps a successor of its name from being meant."""
        if self.stop.is_set():
            return "not asked any more"
        pod = one.pod
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        try:
            self.cluster.ask(self.cluster.core.create_namespaced_pod_eviction, pod.name, pod.namespace, body, repeat=False)
        except NotFound:
            return ""
        except PlatformError as error:
            if getattr(error.__cause__, "status", 500) in {401, 403, 422}:
                raise
            return _reasons(error)
        return ""


def evictable(items: Iterable[Mapping[str, Any]]) -> tuple[Evictable, ...]:
    """Return those of a node's pods that a drain ends: not what a DaemonSet or the kubelet itself would start again there, nor ended ones, nor ours."""
    found = []
    for item in items:
        meta = item["metadata"]
        controller = next((str(owner["kind"]) for owner in meta.get("ownerReferences") or () if owner.get("controller")), "")
        pod = Pod.of(item)
        ours = pod.labels.get(MANAGED[0]) == MANAGED[1]
        if not (pod.ended or ours or controller == "DaemonSet" or MIRROR in (meta.get("annotations") or {})):
            found.append(Evictable(pod, controller))
    return tuple(found)


def _on(node: str) -> str:
    return f"spec.nodeName={node}"


def _is_cordoned(node: Answer) -> bool:
    return bool((node.data.get("spec") or {}).get("unschedulable"))


def _cordoned_by(node: Answer) -> str:
    return str((node.data["metadata"].get("annotations") or {}).get(CORDONED_BY, ""))


def _anew() -> Retrying:
    """Read and write anew when somebody has written in between: every kubelet writes its node all the time."""
    return Retrying(retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(20), wait=wait_random(0.01, 0.1), reraise=True)


def _reasons(error: PlatformError) -> str:
    """Return why an eviction was refused: the budget's own words, where the API server has passed them on."""
    with contextlib.suppress(TypeError, ValueError, KeyError):
        status = json.loads(getattr(error.__cause__, "body", None) or "")
        causes = [str(cause["message"]) for cause in (status.get("details") or {}).get("causes") or ()]
        return "; ".join(causes) or str(status["message"])
    return str(error)
