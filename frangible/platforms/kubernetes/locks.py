"""Resource keys as Leases of frangible's namespace, changed only at the resource version that was read, and expired by the API server's clock.

What counts is the annotation, the same text that a lock file has; the fields of `spec` say the same for whoever looks with kubectl.
"""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any

from frangible.platforms.kubernetes.client import Cluster, Conflict
from frangible.platforms.kubernetes.copies import missing_namespace
from frangible.platforms.kubernetes.labels import MANAGED, labels, object_name

__all__ = ["LeaseObjects"]

PREFIX = "frangible-lock-"
KEY = "frangible.io/lock-key"
TEXT = "frangible.io/lock"


@dataclass(frozen=True, slots=True)
class LeaseObjects:
    """Lock texts by key, one Lease (coordination.k8s.io/v1) each."""

    cluster: Cluster
    namespace: str
    _seen: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    """Text and resource version of each key when it was last looked at."""

    def place(self, key: str) -> str:
        """Name the object."""
        return f"lease {self.namespace}/{object_name(PREFIX, key)} of {self.cluster.environment}'s cluster"

    def look(self, key: str) -> tuple[str | None, float]:
        """Read it, in a list of one, which tells the server's clock also where there is none."""
        selector = f"metadata.name={object_name(PREFIX, key)}"
        answer = self.cluster.ask(self.cluster.coordination.list_namespaced_lease, self.namespace, field_selector=selector)
        item = next(iter(answer.items), None)
        text = _text(item) if item is not None else None
        self._seen[key] = (text, item["metadata"]["resourceVersion"] if item is not None else "")
        return text, answer.at if answer.at is not None else time.time()

    def swap(self, key: str, expected: str | None, text: str) -> bool:
        """Write it at the version whose text was `expected`; another's change in between makes that a conflict."""
        if self._seen.get(key, ("", ""))[0] != expected and self.look(key)[0] != expected:
            return False
        version = self._seen.pop(key)[1]
        body = _body(key, text)
        api, name = self.cluster.coordination, object_name(PREFIX, key)
        try:
            with missing_namespace(self.namespace):
                if version:
                    body["metadata"]["resourceVersion"] = version
                    self.cluster.ask(api.replace_namespaced_lease, name, self.namespace, body)
                else:
                    self.cluster.ask(api.create_namespaced_lease, self.namespace, body)
        except Conflict:
            return False
        return True

    def keys(self) -> tuple[str, ...]:
        """List what is ours."""
        listing = self.cluster.coordination.list_namespaced_lease
        found = self.cluster.pages(listing, self.namespace, label_selector="=".join(MANAGED))
        keys = (item["metadata"].get("annotations", {}).get(KEY) for item in found)
        return tuple(sorted(key for key in keys if key))


def _text(item: dict[str, Any]) -> str:
    return str(item["metadata"].get("annotations", {}).get(TEXT, ""))


def _body(key: str, text: str) -> dict[str, Any]:
    """Return the object; `leaseTransitions` is the epoch, `holderIdentity` who holds it for which run."""
    document = json.loads(text)
    held = document["holder"]
    spec: dict[str, Any] = {"leaseTransitions": document["epoch"]}
    if held is not None:
        now = time.time()
        spec |= {
            "holderIdentity": f"{held['note']} for run {held['run_id']}",
            "acquireTime": _micro(held["since"]),
            "renewTime": _micro(now),
            "leaseDurationSeconds": max(1, ceil(held["expires_at"] - now)),
        }
    metadata = {
        "name": object_name(PREFIX, key),
        "labels": labels(run=held["run_id"] if held is not None else ""),
        "annotations": {KEY: key, TEXT: text},
    }
    return {"metadata": metadata, "spec": spec}


def _micro(seconds: float) -> str:
    """Render a MicroTime (RFC 3339 with microseconds).

    Never a whole second: the library turns it into a time and back, and then without microseconds, which the server refuses.
    """
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=moment.microsecond or 1).isoformat()
