"""Copies of leases as ConfigMaps in frangible's namespace: durable in etcd when the API has answered, and on no node that a fault takes down."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from frangible.errors import PlatformError
from frangible.platforms.kubernetes.client import Cluster, Conflict, NotFound
from frangible.platforms.kubernetes.labels import LEASE, MANAGED, labels, object_name

__all__ = ["LeaseCopies"]

PREFIX = "frangible-lease-"
KEY = "lease"
NAME = "frangible.io/lease-id"
"""Annotation with the lease's id as it is; a label may have had to be cut."""


@dataclass(frozen=True, slots=True)
class LeaseCopies:
    """The copies of all environments that use one namespace of one cluster."""

    cluster: Cluster
    namespace: str

    def put(self, target: str, lease_id: str, text: str) -> None:
        """Store a copy; one of this id is replaced."""
        name = object_name(PREFIX, lease_id)
        run, environment = _told(text)
        body = {
            "metadata": {
                "name": name,
                "labels": labels(run=run, lease=lease_id, environment=environment, node=target),
                "annotations": {NAME: lease_id},
            },
            "data": {KEY: text},
        }
        core = self.cluster.core
        try:
            with missing_namespace(self.namespace):
                self.cluster.ask(core.create_namespaced_config_map, self.namespace, body)
        except Conflict:
            self.cluster.ask(core.replace_namespaced_config_map, name, self.namespace, body)

    def delete(self, lease_id: str) -> None:
        """Remove a copy; missing is fine."""
        with contextlib.suppress(NotFound):
            self.cluster.ask(self.cluster.core.delete_namespaced_config_map, object_name(PREFIX, lease_id), self.namespace)

    def all(self) -> Mapping[str, str]:
        """Return every copy, of whichever environment: lease id to text; a lease says whose it is."""
        selector = f"{'='.join(MANAGED)},{LEASE}"
        found = self.cluster.pages(self.cluster.core.list_namespaced_config_map, self.namespace, label_selector=selector)
        return {item["metadata"].get("annotations", {}).get(NAME, item["metadata"]["name"]): item.get("data", {}).get(KEY, "") for item in found}


@contextlib.contextmanager
def missing_namespace(namespace: str) -> Iterator[None]:
    """Say what to do when frangible's namespace is not there: only a creation tells."""
    try:
        yield
    except NotFound as error:
        raise PlatformError(f"{error}; make it once with `kubectl create namespace {namespace}`, or name another with `platform.namespace`") from error


def _told(text: str) -> tuple[str, str]:
    """Return run and environment of a lease's text; empty for what is no lease."""
    with contextlib.suppress(ValueError):
        data = json.loads(text)
        if isinstance(data, dict):
            return str(data.get("run_id", "")), str(data.get("environment", ""))
    return "", ""
