"""What a user of a cluster must be allowed to do, by primitive and by the level of `deploy/access/` that grants it. Pure.

The table names exactly the requests that this package makes; a test holds the manifests against it.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.environment import Environment

__all__ = ["HELPERS", "LEVELS", "RULES", "Level", "Permission", "Place", "Rule", "needed", "told"]


class Level(StrEnum):
    """What a group of people, or a runner, is trusted with; each includes those before it."""

    OBSERVE = "observe"
    RESTART = "restart"
    NODE = "node"


LEVELS = tuple(Level)


class Place(StrEnum):
    """Where a rule holds."""

    CLUSTER = "cluster"
    """Everywhere, or for what is in no namespace."""
    WORKLOADS = "workloads"
    """In each namespace of the environment."""
    OBSERVER = "observer"
    """Where Prometheus runs, if the inventory says that it runs in the cluster."""
    OWN = "own"
    """In frangible's own namespace."""
    SERVERS = "servers"
    """In the namespace that tells where the API servers are."""


SERVERS_NAMESPACE = "default"
LOOK = "look"
"""What every look at an environment needs: survey, facts, doctor."""
RUN = "run"
"""What every run that injects needs: locks, and the lease's copy."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Some verbs on some resources of one API group in one place, for what needs them."""

    level: Level
    place: Place
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    serves: tuple[str, ...]
    """Primitives, `look` or `run`."""


WORKLOADS = ("deployments", "statefulsets", "daemonsets")
HELPERS = ("pause", "kill", "cpu", "cut")
"""Primitives that pods of frangible give."""

RULES = (
    Rule(Level.OBSERVE, Place.CLUSTER, "", ("nodes",), ("get", "list"), (LOOK,)),
    Rule(Level.OBSERVE, Place.CLUSTER, "", ("namespaces",), ("list",), ("selected namespaces",)),
    Rule(Level.OBSERVE, Place.WORKLOADS, "", ("pods",), ("list",), (LOOK,)),
    Rule(Level.OBSERVE, Place.WORKLOADS, "apps", WORKLOADS, ("get", "list"), (LOOK,)),
    Rule(Level.OBSERVE, Place.OBSERVER, "", ("pods",), ("list",), (LOOK,)),
    Rule(Level.OBSERVE, Place.OBSERVER, "apps", WORKLOADS, ("get",), (LOOK,)),
    Rule(Level.OBSERVE, Place.OWN, "", ("namespaces",), ("get",), (LOOK,)),
    Rule(Level.OBSERVE, Place.OWN, "", ("pods",), ("get", "list"), (LOOK,)),
    Rule(Level.OBSERVE, Place.OWN, "", ("configmaps",), ("list",), (LOOK,)),
    Rule(Level.OBSERVE, Place.OWN, "coordination.k8s.io", ("leases",), ("list",), (LOOK,)),
    Rule(Level.RESTART, Place.OWN, "", ("configmaps",), ("create", "update", "delete"), (RUN,)),
    Rule(Level.RESTART, Place.OWN, "coordination.k8s.io", ("leases",), ("create", "update"), (RUN,)),
    Rule(Level.RESTART, Place.WORKLOADS, "", ("pods",), ("watch", "delete"), ("services",)),
    Rule(Level.RESTART, Place.WORKLOADS, "apps", WORKLOADS, ("patch",), ("rollout",)),
    Rule(Level.RESTART, Place.WORKLOADS, "", ("configmaps",), ("get", "patch"), ("load",)),
    Rule(Level.NODE, Place.CLUSTER, "", ("nodes",), ("patch",), ("drain",)),
    Rule(Level.NODE, Place.CLUSTER, "", ("pods",), ("list", "watch"), ("drain",)),
    Rule(Level.NODE, Place.CLUSTER, "", ("pods/eviction",), ("create",), ("drain",)),
    Rule(Level.NODE, Place.CLUSTER, "", ("nodes/proxy",), ("get",), ("cpu",)),
    Rule(Level.NODE, Place.OWN, "", ("pods",), ("create", "watch", "delete"), HELPERS),
    Rule(Level.NODE, Place.SERVERS, "discovery.k8s.io", ("endpointslices",), ("list",), ("cut",)),
)


@dataclass(frozen=True, slots=True)
class Permission:
    """One verb on one resource in one namespace, as a review asks for it."""

    verb: str
    group: str
    resource: str
    namespace: str
    """Empty for all, and for what is in none."""
    name: str
    """The one object that it is about; empty for any."""
    level: Level

    @property
    def attributes(self) -> dict[str, str]:
        """As a SelfSubjectAccessReview wants it."""
        resource, _, part = self.resource.partition("/")
        return {"verb": self.verb, "group": self.group, "resource": resource, "subresource": part, "namespace": self.namespace, "name": self.name}


def needed(environment: "Environment", namespaces: Iterable[str], primitives: Iterable[str], *, runs: bool) -> tuple[Permission, ...]:
    """Return what these primitives need in an environment whose workloads are in these namespaces; with `runs` also what every run needs.

    The load needs nothing of the cluster where commands set it, and the ConfigMap of that name only where it is one.
    """
    settings = environment.platform
    wanted = {LOOK, *([RUN] if runs else []), *(["selected namespaces"] if settings.namespace_selector else []), *primitives}
    if settings.load is None or settings.load.name is None:
        wanted.discard("load")
    places = {
        Place.CLUSTER: ("",),
        Place.WORKLOADS: tuple(namespaces),
        Place.OBSERVER: _observer(environment),
        Place.OWN: (settings.namespace,),
        Place.SERVERS: (SERVERS_NAMESPACE,),
    }
    found = (permission for rule in RULES if wanted & set(rule.serves) for permission in _permissions(rule, places[rule.place], environment))
    return tuple(dict.fromkeys(found))


def told(permissions: Iterable[Permission]) -> str:
    """Say permissions in words, the verbs of a resource together: `delete, watch pods in namespace robust`."""
    verbs: dict[tuple[str, str, str], list[str]] = {}
    for one in permissions:
        verbs.setdefault((one.resource, one.name, one.namespace), []).append(one.verb)
    return "; ".join(
        f"{', '.join(said)} {resource}{f' {name!r}' if name else ''}{f' in namespace {namespace}' if namespace else ' in the whole cluster'}"
        for (resource, name, namespace), said in verbs.items()
    )


def _observer(environment: "Environment") -> tuple[str, ...]:
    """Return the namespace of the workload that runs Prometheus, where it is named."""
    place = environment.prometheus.runs_on if environment.prometheus is not None else None
    namespace, *rest = (place or "").split("/")
    return (namespace,) if len(rest) == 2 else ()


def _permissions(rule: Rule, namespaces: Iterable[str], environment: "Environment") -> Iterator[Permission]:
    """Yield what a rule needs; that of the load is about one object alone."""
    load = environment.platform.load
    name = (load.name or "") if load is not None and "load" in rule.serves else ""
    for namespace in namespaces:
        for resource in rule.resources:
            for verb in rule.verbs:
                yield Permission(verb, rule.group, resource, namespace, name, rule.level)
