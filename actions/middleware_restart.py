"""Middleware restart: NATS, PostgreSQL or a service ends, gracefully or at once, and is started again."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import FaultError, Refused
from frangible.fault import Observation, Prior, Target, recorded_processes
from frangible.injection import Choice, perform
from frangible.platforms import Platform, ServiceState

__all__ = ["Restart", "restart"]


class Restart:
    """What is the same of everything by which a service ends and is started again."""

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record which instance runs and its processes; refuse a service that is down, or whose instances cannot be told apart."""
        service = platform.service(target.node, target.service)
        if not service.running:
            raise Refused(f"{target} does not run, so restarting it would show nothing; start it, or choose another")
        if not service.instance:
            raise Refused(f"which instance of {target} runs is not known, so its restart could not be proven; let `state` of `platform.services` tell")
        return {"instance": service.instance, "processes": [dict(process.to_json()) for process in service.processes]}

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real once the instance that ran before is gone with all its processes, whether or not the new one is ready."""
        service = platform.service(target.node, target.service)
        if service.instance == prior["instance"]:
            return Observation(real=False, detail="the same instance runs as before: it was not restarted")
        if not platform.processes_gone(recorded_processes(prior)):
            return Observation(real=False, detail="processes of the old instance are still alive")
        return Observation(real=True, detail=_now(service), measured=service.ready_after)

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Start it unless it runs: it ran before, or `capture` would have refused."""
        platform.start_service(target.node, target.service)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when the service runs; until when it is ready is told, and what that does is what recovery measures."""
        service = platform.service(target.node, target.service)
        return Observation(real=service.running, detail=_now(service), measured=service.ready_after)


@dataclass(frozen=True)
class MiddlewareRestart(Restart):
    """Stop a service, start it again at once, and see to it that it runs at the end."""

    graceful: bool = True
    """Whether it is asked to end by itself; else it is killed (SIGKILL)."""
    grace: float = 10.0
    """Seconds that it has for that; then it is killed."""

    kind: ClassVar[str] = "middleware-restart"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "service"
    needs: ClassVar[frozenset[str]] = frozenset({"services"})
    least_proven: ClassVar[float] = 0.95

    def __post_init__(self) -> None:
        """Refuse a grace that would not be one."""
        if self.graceful and not self.grace > 0:
            raise FaultError(f"a graceful restart needs `grace` of more than 0 seconds, found {self.grace:g}; `graceful: false` kills at once")

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Stop it and start it. How long it then needs until it is ready is its own affair, and measured."""
        platform.stop_service(target.node, target.service, self.grace if self.graceful else 0.0)
        platform.start_service(target.node, target.service)


def _now(service: ServiceState) -> str:
    """Say in the same words at each look what is the same, so that it is news once."""
    if not service.running:
        return "the old instance is gone, and no new one runs"
    if service.ready_after is not None:
        return f"a new instance, ready {service.ready_after:.2f} s after the stop"
    return "a new instance, ready" if service.ready else "a new instance, not ready yet"


def restart(
    service: str,
    role: str = "",
    name: str = "",
    count: int = 1,
    share: float = 0.0,
    graceful: bool = True,
    grace: float = 10.0,
    hold: float = 0.0,
    seed: int = 0,
) -> dict[str, object]:
    """Restart `service` on `count` nodes (or a `share` of them, 1 for all) of `role`, or on the node `name`; watch the new instance for `hold` seconds.

    The restart itself lasts no time, so the experiment states `observe-for`, or a `hold`, for its effect.
    """
    choice = Choice(service=service, role=role, name=name, count=count, share=share, seed=seed)
    return perform(MiddlewareRestart(graceful=graceful, grace=grace), choice, hold)
