"""What a fault is, and how one is found by its kind."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from frangible.errors import FaultError
from frangible.process import Identity, identity_from_json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from frangible.platforms import Platform

__all__ = ["PROOF_EVERY", "TOGETHER", "Fault", "FaultRegistry", "JsonValue", "LoadFault", "Observation", "Prior", "Target", "recorded_processes"]

type JsonValue = str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None
type Prior = dict[str, JsonValue]
"""What the target was like before the fault: all that a revert needs, as JSON."""

ENTRY_POINTS = "frangible.faults"
SHIPPED = "frangible.actions"
TOGETHER = f"{SHIPPED}.together"
"""The module of the action that puts several faults in force at the same time; no fault itself."""
PROOF_EVERY = 0.5
"""Seconds between two looks whether a fault is still real."""


@dataclass(frozen=True, slots=True)
class Target:
    """The one thing that one lease is about, such as node `app-1`."""

    kind: str
    """`node`, `service` (the firm's own or middleware) or `load` (what an environment is offered)."""
    name: str
    """A node's name, `NODE/SERVICE`, or the environment's name."""

    @property
    def node(self) -> str:
        """Where it is: the node, or for `load` the environment; lease copies lie under this name."""
        return self.name.partition("/")[0]

    @property
    def service(self) -> str:
        """The service's name; empty for other kinds."""
        return self.name.partition("/")[2]

    def __str__(self) -> str:
        """Render `node app-1`."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What the platform showed: is the fault (or its absence) real?"""

    real: bool
    """Whether what was looked for was seen."""
    detail: str
    """What was seen, in words for the journal."""
    measured: float | None = None
    """A number where the fault has one (achieved utilisation, for instance)."""


@runtime_checkable
class Fault(Protocol):
    """One kind of failure. A frozen dataclass whose fields are its parameters, with units in their docs.

    A fault composes platform primitives and never calls the operating system itself.
    `inject` may be interrupted at any point; `revert` is idempotent and works from `prior` alone.
    """

    kind: ClassVar[str]
    """Name of the kind, such as `node-loss`; unique, and the module's name with dashes."""
    version: ClassVar[int]
    """Version of the `Prior` format that this class writes."""
    target_kind: ClassVar[str]
    """`node`, `service` or `load`: what `Choice` chooses among."""
    needs: ClassVar[frozenset[str]]
    """Names of the platform primitives used; a platform that lacks one is a validation error."""
    least_proven: ClassVar[float]
    """Least share of the hold, 0 to 1, in which the fault must be proven real."""

    def capture(self, platform: "Platform", target: Target) -> Prior:
        """Record the target's state before anything is done; raise `Refused` when it is already faulty."""

    def inject(self, platform: "Platform", target: Target, prior: Prior) -> None:
        """Do it. Returns when the platform accepted it."""

    def observe(self, platform: "Platform", target: Target, prior: Prior) -> Observation:
        """Look whether the fault is real now, from the platform and never from the indicators."""

    def revert(self, platform: "Platform", target: Target, prior: Prior) -> None:
        """Undo what `inject` did and nothing else."""

    def observe_reverted(self, platform: "Platform", target: Target, prior: Prior) -> Observation:
        """Look whether nothing of the fault is left."""


@runtime_checkable
class LoadFault(Protocol):
    """What a fault on a load has beside: how much more it offers, for the guard."""

    def times(self, platform: "Platform") -> float:
        """Return how many times the present load would be offered."""


def recorded_processes(prior: Prior, key: str = "processes") -> tuple[Identity, ...]:
    """Return the processes (on Kubernetes: containers) that a `capture` recorded as the list of their `to_json`."""
    recorded = prior[key]
    return tuple(identity_from_json(item) for item in recorded if isinstance(item, dict)) if isinstance(recorded, list) else ()


def fault_parameters(fault: Fault) -> dict[str, JsonValue]:
    """Return the fault's parameters as JSON, for its lease."""
    return asdict(fault)  # type: ignore[call-overload, no-any-return]


def _brought() -> "EntryPoints":
    """Return the faults that other packages bring."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


class FaultRegistry:
    """Fault classes by kind: the shipped ones, then entry points of group `frangible.faults`."""

    def load(self, kind: str) -> type[Fault]:
        """Return the class of `kind`; raise `FaultError` when there is none or it cannot be imported."""
        for entry in _brought().select(name=kind):
            return self._checked(kind, entry.load())
        try:
            module = importlib.import_module(f"{SHIPPED}.{kind.replace('-', '_')}")
        except ImportError as error:
            known = ", ".join(self.kinds())
            raise FaultError(f"fault {kind!r} cannot be loaded: {error}; known faults: {known}") from error
        for value in vars(module).values():
            if isinstance(value, type) and getattr(value, "kind", None) == kind:
                return self._checked(kind, value)
        raise FaultError(f"module {module.__name__} has no class whose kind is {kind!r}")

    def exclusive(self, kind: str) -> frozenset[str]:
        """Return the parts of a machine (`cpu`) that faults of this kind need alone: the class's `exclusive`, where it declares one."""
        found: frozenset[str] = getattr(self.load(kind), "exclusive", frozenset())
        return found

    def build(self, kind: str, parameters: Mapping[str, JsonValue]) -> Fault:
        """Build the fault of a lease again from its recorded parameters."""
        try:
            return self.load(kind)(**parameters)
        except (TypeError, ValueError) as error:
            raise FaultError(f"fault {kind!r} does not take {dict(parameters)!r}: {error}") from error

    def kinds(self) -> tuple[str, ...]:
        """Return every known kind, sorted; nothing is imported but the package of shipped faults."""
        shipped = importlib.import_module(SHIPPED)
        modules = {f"{SHIPPED}.{module.name}" for module in pkgutil.iter_modules(shipped.__path__)} - {TOGETHER}
        names = {module.rpartition(".")[2].replace("_", "-") for module in modules}
        return tuple(sorted(names | {entry.name for entry in _brought()}))

    @staticmethod
    def _checked(kind: str, candidate: object) -> type[Fault]:
        required = ("capture", "inject", "observe", "revert", "observe_reverted", "needs", "least_proven", "target_kind")
        missing = [name for name in required if not hasattr(candidate, name)]
        if missing:
            raise FaultError(f"fault {kind!r} ({candidate!r}) lacks {', '.join(missing)}; see docs/faults.md")
        return candidate  # type: ignore[return-value]
