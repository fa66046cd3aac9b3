"""Who switches services: the lab's rack over a Unix socket, or any command line (systemctl over ssh)."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from frangible.errors import PlatformError
from frangible.platforms import ServiceState
from frangible.platforms.asking import DEADLINE, THIS_HOST, Host, identified, run_command, short
from frangible.process import ProcessIdentity

__all__ = ["CommandServices", "RackServices", "ServiceDriver"]

type RackVerb = Literal["service", "service_stop", "service_start", "service_pause", "service_resume"]
type Processes = tuple[ProcessIdentity, ...]

STATES = {
    "running": ("running", "active", "reloading", "up"),
    "starting": ("starting", "activating"),
    "paused": ("paused",),
    "stopped": ("stopped", "inactive", "failed", "dead", "down"),
}
"""Words that a state command may print, ours and systemd's."""


class ServiceDriver(Protocol):
    """Switches the services of one environment. Each call has a deadline, is idempotent and raises `PlatformError`."""

    @property
    def can_pause(self) -> bool:
        """Whether `pause` and `resume` can be asked for."""

    def state(self, node: str, service: str) -> ServiceState:
        """Look at one service."""

    def stop(self, node: str, service: str, grace: float) -> None:
        """Have it end by itself within `grace` seconds, else kill it; 0 kills at once. It stays stopped."""

    def start(self, node: str, service: str) -> None:
        """Start it."""

    def pause(self, node: str, service: str) -> None:
        """SIGSTOP every process of it."""

    def resume(self, node: str, service: str, processes: Processes, leave: Processes) -> None:
        """SIGCONT it and what lives of `processes`, but nothing of `leave`."""


@dataclass(frozen=True, slots=True)
class RackServices:
    """Talks JSON lines with a rack process, one connection a request; see docs/lab.md for the verbs."""

    environment: str
    socket: Path
    deadline: float = DEADLINE
    host: Host = THIS_HOST

    can_pause = True

    def state(self, node: str, service: str) -> ServiceState:
        """Ask the rack what it knows of the service."""
        reply = self._ask("service", node, service)
        try:
            return _service_state(self.host, node, service, reply)
        except (KeyError, TypeError, ValueError) as error:
            who = _who(self.environment, node, service, "rack: service")
            raise PlatformError(f"{who}: expected `running`, `ready`, `instance`, `processes`, `paused`; got {short(json.dumps(reply))}") from error

    def stop(self, node: str, service: str, grace: float) -> None:
        """Ask the rack for `service_stop`, which answers when it is gone."""
        self._ask("service_stop", node, service, grace=grace)

    def start(self, node: str, service: str) -> None:
        """Ask the rack for `service_start`."""
        self._ask("service_start", node, service)

    def pause(self, node: str, service: str) -> None:
        """Ask the rack for `service_pause`, which answers when all of it is stopped."""
        self._ask("service_pause", node, service)

    def resume(self, node: str, service: str, processes: Processes, leave: Processes) -> None:
        """Ask the rack for `service_resume`."""
        self._ask("service_resume", node, service, processes=_plain(processes), leave=_plain(leave))

    def _ask(self, verb: RackVerb, node: str, service: str, **more: object) -> dict[str, object]:
        grace = more.get("grace")
        deadline = self.deadline + (grace if isinstance(grace, float | int) else 0.0)
        request = {"do": verb, "environment": self.environment, "node": node, "service": service, **more}
        return self.host.ask_rack(self.socket, request, _who(self.environment, node, service, f"rack {self.socket}: {verb}"), deadline)


@dataclass(frozen=True, slots=True)
class CommandServices:
    """Runs one command a request, without a shell; `{node}`, `{service}` and `{grace}` in an argument are replaced.

    The state command prints `running`, `stopped` or `paused` (systemd's words will do), then, in the next word, something that changes at each
    start, such as the main process's id. It knows no processes, so what is gone or stopped is known from its words alone.
    """

    environment: str
    start_command: tuple[str, ...]
    stop_command: tuple[str, ...]
    kill_command: tuple[str, ...]
    state_command: tuple[str, ...]
    pause_command: tuple[str, ...] = ()
    resume_command: tuple[str, ...] = ()
    deadline: float = DEADLINE
    _stopped_at: dict[tuple[str, str], float] = field(default_factory=dict, compare=False, repr=False)
    _ready_after: dict[tuple[str, str], float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def can_pause(self) -> bool:
        """Whether the inventory has commands for it."""
        return bool(self.pause_command and self.resume_command)

    def state(self, node: str, service: str) -> ServiceState:
        """Run the `state` command and read its words; `ready_after` is as exact as it is asked often."""
        output = self._run("state", self.state_command, node, service)
        match = re.fullmatch(r"\s*(\S+)(?:\s+(\S+))?\s*", output)
        word = next((state for state, words in STATES.items() if match is not None and match[1].lower() in words), "")
        if match is None or not word:
            raise PlatformError(
                f"{_who(self.environment, node, service, 'command `state`')}: expected `running`, `stopped` or `paused`, then the main process's id, "
                f"on stdout, got {short(output)}; wrap the command in a script that says so"
            )
        key, ready = (node, service), word == "running"
        if ready and key in self._stopped_at:
            self._ready_after.setdefault(key, round(time.monotonic() - self._stopped_at[key], 3))
        running = word != "stopped"
        return ServiceState(
            node,
            service,
            running=running,
            ready=ready,
            instance=(match[2] or "") if running else "",
            paused=word == "paused",
            ready_after=self._ready_after.get(key) if running else None,
        )

    def stop(self, node: str, service: str, grace: float) -> None:
        """Run `stop`, or `kill` where no grace is given; what does not stop within its grace is killed."""
        key = (node, service)
        self._stopped_at[key] = time.monotonic()
        self._ready_after.pop(key, None)
        if grace > 0:
            try:
                self._run("stop", self.stop_command, node, service, grace)
            except PlatformError:
                self._switch("kill", self.kill_command, node, service, ("stopped",))
                return
            until = time.monotonic() + grace
            while self.state(node, service).running:
                if time.monotonic() >= until:
                    break
                time.sleep(0.05)
            else:
                return
        self._switch("kill", self.kill_command, node, service, ("stopped",))

    def start(self, node: str, service: str) -> None:
        """Run `start`; its failure is none when the service runs already."""
        self._switch("start", self.start_command, node, service, ("running", "paused"))

    def pause(self, node: str, service: str) -> None:
        """Run `pause`; its failure is none when the service is paused already."""
        self._switch("pause", self.pause_command, node, service, ("paused",))

    def resume(self, node: str, service: str, processes: Processes, leave: Processes) -> None:  # noqa: ARG002 - what the command does is its own affair
        """Run `resume`; its failure is none when the service is not paused."""
        self._switch("resume", self.resume_command, node, service, ("running", "stopped"))

    def _switch(self, verb: str, command: tuple[str, ...], node: str, service: str, fine: Sequence[str]) -> None:
        try:
            self._run(verb, command, node, service)
        except PlatformError as failure:
            # Many command lines call it an error to stop what is stopped; the state decides.
            if self._word(node, service) not in fine:
                raise failure from failure.__cause__

    def _word(self, node: str, service: str) -> str:
        try:
            state = self.state(node, service)
        except PlatformError:
            return ""
        return "paused" if state.paused else "running" if state.running else "stopped"

    def _run(self, verb: str, command: tuple[str, ...], node: str, service: str, grace: float = 0.0) -> str:
        argv = [argument.replace("{node}", node).replace("{service}", service).replace("{grace}", f"{grace:g}") for argument in command]
        return run_command(argv, _who(self.environment, node, service, f"command `{verb}`"), self.deadline + grace, "platform.services")


def _who(environment: str, node: str, service: str, asked: str) -> str:
    return f"environment {environment}, service {service} on {node}: {asked}"


def _plain(processes: Processes) -> list[dict[str, int]]:
    return [{"pid": process.pid, "start": process.start} for process in processes]


def _service_state(host: Host, node: str, service: str, reply: dict[str, object]) -> ServiceState:
    running, ready, instance, processes, stopped = (reply[key] for key in ("running", "ready", "instance", "processes", "paused"))
    after = reply.get("ready_after")
    if not (isinstance(running, bool) and isinstance(ready, bool) and isinstance(instance, str) and isinstance(processes, list) and isinstance(stopped, list)):
        raise TypeError(reply)
    known = identified(host, [*processes, *stopped])
    return ServiceState(
        node,
        service,
        running=running,
        ready=ready,
        instance=instance,
        processes=known[: len(processes)],
        paused=running and len(stopped) == len(processes),
        stopped=known[len(processes) :],
        ready_after=float(after) if isinstance(after, float | int) else None,
    )
