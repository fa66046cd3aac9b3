"""Container kill: every process of a service on a node is killed inside its containers, as a crash or the kernel's out-of-memory killer does."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.actions.middleware_restart import Restart
from frangible.fault import Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import Platform

__all__ = ["kill_containers"]


@dataclass(frozen=True)
class ContainerKill(Restart):
    """Kill what runs in the containers; the pods stay where they are, and whoever runs them starts the containers again."""

    kind: ClassVar[str] = "container-kill"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "service"
    needs: ClassVar[frozenset[str]] = frozenset({"services", "kill"})
    least_proven: ClassVar[float] = 0.95

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Kill it."""
        platform.kill_service(target.node, target.service)


def kill_containers(service: str, role: str = "", name: str = "", count: int = 1, share: float = 0.0, hold: float = 0.0, seed: int = 0) -> dict[str, object]:
    """Kill `service` inside its containers on `count` nodes (or a `share` of them, 1 for all) of `role`, or on the node `name`; watch for `hold` seconds.

    The kill itself lasts no time, so the experiment states `observe-for`, or a `hold`, for its effect.
    """
    return perform(ContainerKill(), Choice(service=service, role=role, name=name, count=count, share=share, seed=seed), hold)
