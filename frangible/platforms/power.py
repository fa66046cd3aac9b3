"""Who switches nodes: the lab's rack over a Unix socket, or any command line (IPMI, Redfish, a cloud)."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from frangible.errors import PlatformError
from frangible.platforms import NodeState
from frangible.platforms.asking import DEADLINE, THIS_HOST, Host, identified, run_command, short

__all__ = ["CommandDriver", "ContainerDriver", "PowerDriver", "RackDriver"]

type RackVerb = Literal["power_on", "power_off", "node"]


class PowerDriver(Protocol):
    """Switches the nodes of one environment. Each call has a deadline, is idempotent and raises `PlatformError`."""

    def on(self, node: str) -> None:
        """Bring a node back."""

    def off(self, node: str) -> None:
        """Take a node away with everything that runs on it; it stays away."""

    def state(self, node: str) -> NodeState:
        """Look at one node."""


@dataclass(frozen=True, slots=True)
class RackDriver:
    """Talks JSON lines with a rack process, one connection a request.

    Request: `{"do": "power_on" | "power_off" | "node", "environment": ..., "node": ...}`.
    Reply: `{"ok": true, "powered": bool, "instance": str, "ready": bool, "processes": [{"pid": int, "start": int}]}`
    or `{"ok": false, "error": str}`.
    """

    environment: str
    socket: Path
    deadline: float = DEADLINE
    host: Host = THIS_HOST

    def on(self, node: str) -> None:
        """Ask the rack for `power_on`; what already runs is left alone."""
        self._ask("power_on", node)

    def off(self, node: str) -> None:
        """Ask the rack for `power_off`."""
        self._ask("power_off", node)

    def state(self, node: str) -> NodeState:
        """Ask the rack what it knows of the node."""
        reply = self._ask("node", node)
        try:
            return _node_state(self.host, node, reply)
        except (KeyError, TypeError, ValueError) as error:
            raise PlatformError(f"{self._who('node', node)}: expected `powered`, `instance`, `ready`, `processes`; got {short(json.dumps(reply))}") from error

    def _ask(self, verb: RackVerb, node: str) -> dict[str, object]:
        return self.host.ask_rack(self.socket, {"do": verb, "environment": self.environment, "node": node}, self._who(verb, node), self.deadline)

    def _who(self, verb: RackVerb, node: str) -> str:
        return f"environment {self.environment}, node {node}: rack {self.socket}: {verb}"


@dataclass(frozen=True, slots=True)
class CommandDriver:
    """Runs one command a switch, without a shell; `{node}` in an argument becomes the node's name.

    The state command prints `on` or `off` (`Chassis Power is on`, as ipmitool says it, will do). It knows neither the
    node's instance nor its processes, so those stay empty, and a powered node counts as ready.
    """

    environment: str
    on_command: tuple[str, ...]
    off_command: tuple[str, ...]
    state_command: tuple[str, ...]
    deadline: float = DEADLINE

    def on(self, node: str) -> None:
        """Run the `on` command; its failure is none when the node is on already."""
        self._switch("on", self.on_command, node, powered=True)

    def off(self, node: str) -> None:
        """Run the `off` command; its failure is none when the node is off already."""
        self._switch("off", self.off_command, node, powered=False)

    def state(self, node: str) -> NodeState:
        """Run the `state` command and read its one word."""
        output = self._run("state", self.state_command, node)
        match = re.fullmatch(r"(?:chassis power is )?(on|off)", output.strip(), re.IGNORECASE)
        if match is None:
            raise PlatformError(f"{self._who('state', node)}: expected `on` or `off` on stdout, got {short(output)}; wrap the command in a script that says so")
        powered = match[1].lower() == "on"
        return NodeState(node, powered=powered, instance="", ready=powered, processes=())

    def _switch(self, verb: str, command: tuple[str, ...], node: str, *, powered: bool) -> None:
        try:
            self._run(verb, command, node)
        except PlatformError as failure:
            # Many CLIs call it an error to switch off what is off; the state decides.
            if not self._is(node, powered=powered):
                raise failure from failure.__cause__

    def _is(self, node: str, *, powered: bool) -> bool:
        try:
            return self.state(node).powered is powered
        except PlatformError:
            return False

    def _run(self, verb: str, command: tuple[str, ...], node: str) -> str:
        argv = [argument.replace("{node}", node) for argument in command]
        return run_command(argv, self._who(verb, node), self.deadline, "platform.power")

    def _who(self, verb: str, node: str) -> str:
        return f"environment {self.environment}, node {node}: power command `{verb}`"


@dataclass(frozen=True, slots=True)
class ContainerDriver:
    """Switches nodes that are containers, as those of kind are: all processes of one are killed at once, as when its power goes."""

    environment: str
    runtime: str
    """Command of the container runtime: `podman` or `docker`."""
    deadline: float = DEADLINE

    def on(self, node: str) -> None:
        """Start the container; one that runs is left alone."""
        self._run("start", node)

    def off(self, node: str) -> None:
        """Kill the container's processes and wait until all of them are gone; one that does not run is left alone."""
        try:
            self._run("kill", node)
        except PlatformError as failure:
            if self.state(node).powered:
                raise failure from failure.__cause__
        until = time.monotonic() + self.deadline
        while self.state(node).powered:  # `wait` of podman 4 may not see the end of a container that has a restart policy
            if time.monotonic() > until:
                raise PlatformError(f"{self._who('kill', node)}: it still runs after {self.deadline:g} s")
            time.sleep(0.05)

    def state(self, node: str) -> NodeState:
        """Ask whether the container runs, and since when."""
        output = self._run("container", "inspect", "--format", "{{.State.Running}} {{.Id}} {{.State.StartedAt}}", node)
        match = re.fullmatch(r"(true|false) (\S+) (.+)", output.strip())
        if match is None:
            raise PlatformError(f"{self._who('inspect', node)}: expected `true` or `false`, an id and a time, got {short(output)}")
        powered = match[1] == "true"
        return NodeState(node, powered=powered, instance=f"{match[2]} {match[3]}" if powered else "", ready=powered, processes=())

    def _run(self, *command: str) -> str:
        return run_command([self.runtime, *command], self._who(command[0], command[-1]), self.deadline, "platform.power")

    def _who(self, verb: str, node: str) -> str:
        return f"environment {self.environment}, node {node}: {self.runtime} {verb}"


def _node_state(host: Host, node: str, reply: dict[str, object]) -> NodeState:
    powered, ready, instance, processes = reply["powered"], reply["ready"], reply["instance"], reply["processes"]
    if not (isinstance(powered, bool) and isinstance(ready, bool) and isinstance(instance, str) and isinstance(processes, list)):
        raise TypeError(reply)
    return NodeState(node, powered=powered, instance=instance, ready=ready, processes=identified(host, processes))
