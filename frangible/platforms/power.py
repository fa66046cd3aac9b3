"""Who switches nodes: the lab's rack over a Unix socket, or any command line (IPMI, Redfish, a cloud)."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from frangible.errors import PlatformError
from frangible.platforms import NodeState
from frangible.process import ProcessIdentity, boot_id

__all__ = ["CommandDriver", "PowerDriver", "RackDriver"]

DEADLINE = 15.0
"""Seconds that one request or command may take."""
LONGEST_REPLY = 1 << 20
"""Bytes; a rack's answer about one node is a few kilobytes."""
SHOWN = 300
"""Characters of foreign output that an error message repeats."""

type RackVerb = Literal["power_on", "power_off", "node", "burn", "burner", "burn_stop", "burners", "rate"]


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
    """Talks JSON lines with a rack process on this host, one connection a request.

    Request: `{"do": "power_on" | "power_off" | "node", "environment": ..., "node": ...}`.
    Reply: `{"ok": true, "powered": bool, "instance": str, "ready": bool, "processes": [{"pid": int, "start": int}]}`
    or `{"ok": false, "error": str}`.
    """

    environment: str
    socket: Path
    deadline: float = DEADLINE

    def on(self, node: str) -> None:
        """Ask the rack for `power_on`; what already runs is left alone."""
        self.ask("power_on", node)

    def off(self, node: str) -> None:
        """Ask the rack for `power_off`."""
        self.ask("power_off", node)

    def state(self, node: str) -> NodeState:
        """Ask the rack what it knows of the node."""
        reply = self.ask("node", node)
        try:
            return _node_state(node, reply)
        except (KeyError, TypeError, ValueError) as error:
            raise PlatformError(f"{self._who('node', node)}: expected `powered`, `instance`, `ready`, `processes`; got {_short(json.dumps(reply))}") from error

    def ask(self, verb: RackVerb, node: str, **more: object) -> dict[str, object]:
        """Send one request and return the accepted reply."""
        until = time.monotonic() + self.deadline
        request = json.dumps({"do": verb, "environment": self.environment, "node": node, **more}) + "\n"
        who = self._who(verb, node)
        try:
            with _connected(self.socket, until) as connection:
                connection.settimeout(_left(until))
                connection.sendall(request.encode())
                line = _read_line(connection, until)
        except TimeoutError as error:
            raise PlatformError(f"{who}: no answer within {self.deadline:g} s; look at the rack's log (`frangible lab logs`)") from error
        except OSError as error:
            raise PlatformError(f"{who}: {error.strerror or error}; is the rack running? `frangible lab status` tells") from error
        return _accepted(who, line)

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
            raise PlatformError(
                f"{self._who('state', node)}: expected `on` or `off` on stdout, got {_short(output)}; wrap the command in a script that says so"
            )
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
        who = self._who(verb, node)
        try:
            code, output, said = _finished(argv, self.deadline)
        except subprocess.TimeoutExpired as error:
            raise PlatformError(f"{who}: `{argv[0]}` did not end within {self.deadline:g} s and was killed") from error
        except (OSError, ValueError, IndexError) as error:
            raise PlatformError(f"{who}: cannot start {argv!r}: {error}; check `platform.power` in the inventory") from error
        if code != 0:
            raise PlatformError(f"{who}: `{' '.join(argv)}` ended with exit code {code}: {_short(said.strip() or 'nothing on stderr')}")
        return output

    def _who(self, verb: str, node: str) -> str:
        return f"environment {self.environment}, node {node}: power command `{verb}`"


def _finished(argv: list[str], deadline: float) -> tuple[int, str, str]:
    """Run to the end in a session of its own, so that Ctrl-C does not cut a revert short and a deadline ends the whole of it."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True, errors="replace"
    ) as process:
        try:
            output, said = process.communicate(timeout=deadline)
        except BaseException:  # a signal's exception as well must not leave the command behind
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output, said


@contextmanager
def _connected(path: Path, until: float) -> Iterator[socket.socket]:
    """Connect through /proc/self/fd, since sun_path holds 108 bytes (unix(7)) and a data folder may be deep."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, f"/proc/self/fd/{folder}/{path.name}", until)
            yield connection
    finally:
        os.close(folder)


def _connect(connection: socket.socket, address: str, until: float) -> None:
    while True:
        connection.settimeout(_left(until))
        try:
            connection.connect(address)
        except BlockingIOError:  # the listener's backlog is full: unix(7) does not queue us
            time.sleep(0.01)
        else:
            return


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read_line(connection: socket.socket, until: float) -> bytes:
    received = b""
    while b"\n" not in received:
        connection.settimeout(_left(until))
        chunk = connection.recv(65536)
        if not chunk or len(received) > LONGEST_REPLY:
            break
        received += chunk
    return received


def _accepted(who: str, line: bytes) -> dict[str, object]:
    """Parse one reply line; a refusal, half a line or anything that is no object is an error."""
    try:
        reply = json.loads(line) if line.endswith(b"\n") else None
    except ValueError as error:
        raise PlatformError(f"{who}: expected one JSON line, got {_short(line.decode(errors='replace'))}") from error
    if not isinstance(reply, dict):
        raise PlatformError(f"{who}: expected one JSON line with an object, got {_short(line.decode(errors='replace'))}; the rack may have died")
    if reply.get("ok") is not True:
        raise PlatformError(f"{who}: the rack refused: {reply.get('error', 'no reason given')}")
    return reply


def _node_state(node: str, reply: dict[str, object]) -> NodeState:
    powered, ready, instance, processes = reply["powered"], reply["ready"], reply["instance"], reply["processes"]
    if not (isinstance(powered, bool) and isinstance(ready, bool) and isinstance(instance, str) and isinstance(processes, list)):
        raise TypeError(reply)
    here, boot = socket.gethostname(), boot_id()
    identities = tuple(ProcessIdentity(here, boot, int(entry["pid"]), int(entry["start"])) for entry in processes)
    return NodeState(node, powered=powered, instance=instance, ready=ready, processes=identities)


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
