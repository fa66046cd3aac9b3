"""Which nodes or services an action hits: chosen by role or name, drawn without replacement from a recorded seed. Pure."""

import random
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

from frangible.errors import Refused
from frangible.fault import Target

if TYPE_CHECKING:
    from frangible.environment import Environment

__all__ = ["Choice", "candidates", "draw", "new_seed", "service_nodes"]

ROUNDING = 1e-9
"""So that a third of three nodes is one node, whatever the last digit of the share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which targets an action wants. What is empty does not restrict."""

    role: str = ""
    """Nodes that have this role."""
    name: str = ""
    """The node of this name."""
    service: str = ""
    """The service or middleware of this name; for faults on services only."""
    count: int = 1
    share: float = 0.0
    """Above 0: this share of what matches instead of `count`, rounded down to whole targets, at least one; 1 means all."""
    seed: int = 0
    """0: the run's; whichever was used is in the activity's output."""

    @classmethod
    def of(cls, arguments: Mapping[str, object]) -> "Choice":
        """Return what an activity's arguments ask for; arguments that choose nothing are left alone."""
        return cls(
            role=str(arguments.get("role", "")),
            name=str(arguments.get("name", "")),
            service=str(arguments.get("service", "")),
            count=int(str(arguments.get("count", 1))),
            share=float(str(arguments.get("share", 0.0))),
            seed=int(str(arguments.get("seed", 0))),
        )

    def wanted(self, matching: int) -> int:
        """Return how many of so many targets are asked for."""
        return self.count if self.share <= 0 else max(1, floor(self.share * matching + ROUNDING))

    def __str__(self) -> str:
        """Say what is asked for, in words."""
        parts = [f"{what} {value!r}" for what, value in (("service", self.service), ("name", self.name), ("role", self.role)) if value]
        return " and ".join(parts) or "any name"


def service_nodes(environment: "Environment") -> Mapping[str, tuple[str, ...]]:
    """Return the nodes that each service and each middleware package runs on, by its name."""
    found: dict[str, tuple[str, ...]] = {}
    for service in environment.services:
        by_role = environment.nodes_of(service.role) if service.role else ()
        found[service.name] = tuple(dict.fromkeys([*service.nodes, *(node.name for node in by_role)]))
    for package in environment.middleware:
        found[package.name] = package.nodes
    return found


def candidates(environment: "Environment", kind: str, choice: Choice) -> tuple[Target, ...]:
    """Return everything of a kind (`node`, `service` or `load`) that a choice means, sorted by name."""
    match kind:
        case "load":
            return (Target("load", environment.name),)
        case "service":
            names = (Target("service", f"{node}/{service}") for service, node in _placed(environment) if choice.service in ("", service))
            return tuple(sorted((target for target in names if _matches(environment, choice, target.node)), key=str))
        case _:
            return tuple(Target("node", name) for name in sorted(node.name for node in environment.nodes) if _matches(environment, choice, name))


def new_seed() -> int:
    """Return a seed that nobody can foresee."""
    return secrets.randbelow(2**31 - 1) + 1


def draw(environment: "Environment", kind: str, choice: Choice, seed: int) -> tuple[tuple[Target, ...], int]:
    """Return the chosen targets, drawn without replacement, and the seed that drew them; raise `Refused` when there are too few.

    The seed is the choice's own, else the given one.
    """
    found = candidates(environment, kind, choice)
    if not found:
        raise Refused(f"environment {environment.name} has no {kind} of {choice}; it has {_listed(environment, kind)}")
    wanted = choice.wanted(len(found))
    if not 1 <= wanted <= len(found):
        raise Refused(f"asked for {wanted} {kind}s, {len(found)} match in environment {environment.name} ({', '.join(target.name for target in found)})")
    used = choice.seed or seed
    return tuple(random.Random(used).sample(found, wanted)), used  # noqa: S311 - reproducible, not secret


def _placed(environment: "Environment") -> Iterator[tuple[str, str]]:
    return ((service, node) for service, nodes in service_nodes(environment).items() for node in nodes)


def _matches(environment: "Environment", choice: Choice, name: str) -> bool:
    roles = {node.name: node.roles for node in environment.nodes}
    return choice.name in ("", name) and (not choice.role or choice.role in roles.get(name, ()))


def _listed(environment: "Environment", kind: str) -> str:
    return ", ".join(target.name for target in candidates(environment, kind, Choice())) or "none"
