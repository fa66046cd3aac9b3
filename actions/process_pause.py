"""Process pause: every process of a service is stopped by a signal, as a long garbage collection or a frozen host would have it."""

from dataclasses import dataclass
from typing import ClassVar

from frangible.errors import Refused
from frangible.fault import Observation, Prior, Target, recorded_processes
from frangible.injection import Choice, perform
from frangible.platforms import Platform
from frangible.process import counted

__all__ = ["pause"]

MARGIN = 60.0
"""Seconds after the hold at which a pause that nobody reverts ends by itself, where its platform can see to that."""


@dataclass(frozen=True)
class ProcessPause:
    """SIGSTOP every process of a service and, to revert, SIGCONT those that ran before."""

    deadline: float = 80.0
    """Seconds after which they go on by themselves, whoever is left to revert: on Kubernetes. On hosts they do not."""

    kind: ClassVar[str] = "process-pause"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "service"
    needs: ClassVar[frozenset[str]] = frozenset({"pause"})
    least_proven: ClassVar[float] = 0.95

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Record the service's instance, its processes, and which of them are stopped already; refuse one that is down or paused."""
        service = platform.service(target.node, target.service)
        if not service.running:
            raise Refused(f"{target} does not run, so pausing it would show nothing; start it, or choose another")
        if service.paused:
            raise Refused(f"{target} is paused already, so pausing it would show nothing; let it go on (SIGCONT), or choose another")
        return {
            "instance": service.instance,
            "processes": [dict(process.to_json()) for process in service.processes],
            "stopped": [dict(process.to_json()) for process in service.stopped],
        }

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Pause it."""
        platform.pause_service(target.node, target.service, self.deadline)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while the same instance runs and every process of it is stopped."""
        service = platform.service(target.node, target.service)
        if not service.running:
            return Observation(real=False, detail="the service does not run any more, so it is not paused")
        if service.instance != prior["instance"]:
            return Observation(real=False, detail="the service was started anew meanwhile, by its supervisor or somebody else")
        if not service.paused:
            moving = len(service.processes) - len(service.stopped)
            return Observation(real=False, detail=f"{moving} of its {counted(service.processes)} are not stopped")
        return Observation(real=True, detail=f"its {counted(service.processes)} are stopped" if service.processes else "the platform says that it is paused")

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Let go on what ran before; what was stopped before stays stopped."""
        before = recorded_processes(prior, "stopped")
        ran = tuple(process for process in recorded_processes(prior) if process not in before)
        platform.resume_service(target.node, target.service, ran, before)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when nothing of the service is stopped but what was stopped before."""
        service = platform.service(target.node, target.service)
        left = [process for process in service.stopped if process not in recorded_processes(prior, "stopped")]
        if left or (service.paused and not service.processes):
            return Observation(real=False, detail=f"{len(left) or 'all'} of its processes are still stopped")
        return Observation(real=True, detail="its processes run again" if service.running else "the service does not run, so nothing of it is paused")


def pause(service: str, role: str = "", name: str = "", count: int = 1, share: float = 0.0, hold: float = 20.0, seed: int = 0) -> dict[str, object]:
    """Pause `service` on `count` nodes (or a `share` of them, 1 for all) of `role`, or on the node `name`, for `hold` seconds, then let it go on."""
    return perform(ProcessPause(deadline=hold + MARGIN), Choice(service=service, role=role, name=name, count=count, share=share, seed=seed), hold)
