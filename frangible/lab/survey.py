"""A look at a running lab: what is on, what is ready, what each node has left of its CPUs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from frangible.lab.client import ask
from frangible.lab.layout import OUTSIDE, node_key
from frangible.lab.state import LabState

__all__ = ["EnvironmentView", "NodeView", "survey"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, or what runs outside all nodes of an environment."""

    name: str
    roles: tuple[str, ...]
    powered: bool
    ready: bool
    cpus: float | None
    """What the node declares; None outside of nodes."""
    cpus_used: float
    """Mean of the time that was watched."""
    ports: dict[str, int]
    calibrated: float | None
    """The headroom that it had when the lab had come up."""

    @property
    def headroom(self) -> float | None:
        """Share of the declared CPUs that was unused; None for what declares none or is off."""
        return None if self.cpus is None or not self.powered else 1 - self.cpus_used / self.cpus


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """One environment with its nodes."""

    name: str
    description: str
    rate: float
    """Orders offered a second."""
    nodes: tuple[NodeView, ...]


def _look(state: LabState) -> dict[str, dict[str, object]]:
    """State by node key; what runs outside is added up per environment."""
    found: dict[str, dict[str, object]] = dict(ask(state.folder, {"do": "nodes"})["nodes"])
    for program in ask(state.folder, {"do": "outside"})["programs"]:
        found[f"{program['place']}/{OUTSIDE}/{program['name']}"] = {**program, "powered": bool(program["processes"])}
    return found


def survey(state: LabState, *, watch: float = 1.0) -> tuple[EnvironmentView, ...]:
    """Look twice, `watch` seconds apart, so that CPU use can be told."""
    before, began = _look(state), time.monotonic()
    time.sleep(watch)
    after, seconds = _look(state), time.monotonic() - began
    return tuple(_environments(state, before, after, seconds))


def _environments(state: LabState, before: dict[str, dict[str, object]], after: dict[str, dict[str, object]], seconds: float) -> Iterator[EnvironmentView]:
    def view(name: str, key: str, roles: tuple[str, ...], cpus: float | None) -> NodeView:
        # A node that was powered on in between begins at zero.
        used = max(0.0, float(str(after[key]["cpu_seconds"])) - float(str(before[key]["cpu_seconds"]))) / seconds
        prefix = key if cpus is not None else key.replace(f"/{OUTSIDE}", "")
        ports = {
            port.removeprefix(prefix).lstrip("/") or name: number for port, number in state.ports.items() if port == prefix or port.startswith(f"{prefix}/")
        }
        return NodeView(name, roles, bool(after[key]["powered"]), bool(after[key]["ready"]), cpus, used, ports, state.calibrated.get(key))

    for spec in state.estate:
        rate = float(ask(state.folder, {"do": "rate", "environment": spec.name})["rate"])
        nodes = [view(node.name, node_key(spec.name, node.name), node.roles, node.cpus) for node in spec.nodes]
        nodes += [view(name, f"{spec.name}/{OUTSIDE}/{name}", (), None) for name in ("generator", "auditor")]
        yield EnvironmentView(spec.name, spec.description, rate, tuple(nodes))
