"""Service stop: a service is stopped and stays down for a while, as after a deployment that went wrong."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import FaultError, Refused
from frangible.fault import Observation, Prior, Target, recorded_processes
from frangible.injection import Choice, perform
from frangible.platforms import Platform

__all__ = ["stop_services"]


@dataclass(frozen=True)
class ServiceStop:
    """Stop a service and, to revert, start it again."""

    grace: float = 5.0
    """Seconds that it has to end by itself; then it is killed. 0 kills it at once."""

    kind: ClassVar[str] = "service-stop"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "service"
    needs: ClassVar[frozenset[str]] = frozenset({"services"})
    least_proven: ClassVar[float] = 0.95

    def __post_init__(self) -> None:
        """Refuse what would be no grace, before anything is done."""
        if self.grace < 0:
            raise FaultError(f"`grace` must be 0 seconds or more, found {self.grace:g}")

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record which processes run; refuse a service that is down already: whoever stopped it wants it so."""
        service = platform.service(target.node, target.service)
        if not service.running:
            raise Refused(f"{target} does not run, so stopping it would show nothing; start it, or choose another")
        return {"processes": [dict(process.to_json()) for process in service.processes]}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Stop it. The platform keeps it down."""
        platform.stop_service(target.node, target.service, self.grace)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while it does not run and no process that it had is left. Whoever starts it meanwhile ends the proof."""
        if platform.service(target.node, target.service).running:
            return Observation(real=False, detail="the service runs")
        if not platform.processes_gone(recorded_processes(prior)):
            return Observation(real=False, detail="the service is stopped, and processes of it are still alive")
        return Observation(real=True, detail="the service does not run; its processes are gone")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Start it; it ran before, or `capture` would have refused. Starting what runs changes nothing."""
        platform.start_service(target.node, target.service)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when it runs. Until when it is ready is the environment's affair: the recovery window measures that."""
        running = platform.service(target.node, target.service).running
        return Observation(real=running, detail="the service runs again" if running else "the service still does not run")


def stop_services(
    service: str, role: str = "", name: str = "", count: int = 1, share: float = 0.0, grace: float = 5.0, hold: float = 20.0, seed: int = 0
) -> dict[str, object]:
    """Stop `service` on `count` nodes (or a `share` of them, 1 for all) of `role`, or on the node `name`, for `hold` seconds, then start it again."""
    return perform(ServiceStop(grace=grace), Choice(service=service, role=role, name=name, count=count, share=share, seed=seed), hold)
