"""What an environment was made of at the time of a run, so that a change of verdict can be laid beside a change of make."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.inventory import Environment
    from frangible.platforms import Platform

__all__ = ["Difference", "capture", "diff", "digest"]

type Difference = tuple[str, str | None, str | None]
"""Dotted name, value before, value after; None where it was absent."""


def capture(environment: "Environment", platform: "Platform") -> dict[str, str]:
    """Return what the inventory declares and what the platform sees, by dotted name, sorted.

    What the platform saw wins over what was declared. Raises `PlatformError` when the platform cannot be asked.
    """
    return dict(sorted({**_declared(environment), **platform.facts()}.items()))


def digest(fingerprint: Mapping[str, str]) -> str:
    """Return the SHA-256 of the fingerprint's canonical JSON (sorted, no spaces, UTF-8 escaped), hexadecimal."""
    canonical = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Difference, ...]:
    """Return what changed, sorted by name."""
    names = sorted(before.keys() | after.keys())
    return tuple((name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name))


def _declared(environment: "Environment") -> dict[str, str]:
    facts = {f"label.{label}": value for label, value in environment.labels.items()}
    for node in environment.nodes:
        facts[f"node.{node.name}.roles"] = _listed(node.roles)
        facts[f"node.{node.name}.cpus"] = "" if node.cpus is None else f"{node.cpus:g}"
    for service in environment.services:
        facts[f"service.{service.name}.version"] = service.version
        facts[f"service.{service.name}.role"] = service.role or ""
        facts[f"service.{service.name}.nodes"] = _listed(service.nodes)
    for package in environment.middleware:
        facts[f"middleware.{package.name}.version"] = package.version
        facts[f"middleware.{package.name}.nodes"] = _listed(package.nodes)
    return {name: value for name, value in facts.items() if value}


def _listed(names: tuple[str, ...]) -> str:
    """Order in a file has no meaning, so it must not look like a change."""
    return ",".join(sorted(names))
