"""Asking others to act on an environment: a rack over its Unix socket, and any command line; and which host that rack is on."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from frangible.errors import PlatformError
from frangible.process import ProcessIdentity, boot_id

__all__ = ["DEADLINE", "THIS_HOST", "Host", "ThisHost", "accepted", "ask_rack", "exchange", "identified", "run_command", "short"]

DEADLINE = 15.0
"""Seconds that one request or command may take."""
LONGEST_REPLY = 1 << 20
"""Bytes; a rack's answer about one node is a few kilobytes."""
SHOWN = 300
"""Characters of foreign output that an error message repeats."""


class Host(Protocol):
    """The host that an environment's rack and processes are on. Every call raises `PlatformError`."""

    def ask_rack(self, path: Path, request: Mapping[str, object], who: str, deadline: float) -> dict[str, object]:
        """Send one JSON line to the rack there and return its answer; `who` begins each error. It may be sent twice when a connection is lost."""

    def origin(self) -> tuple[str, str]:
        """Return the host's name and the id of its boot: whose processes its rack tells of."""

    def processes_gone(self, processes: tuple[ProcessIdentity, ...], who: str) -> bool:
        """Whether none of these processes is alive; an error for one that ran on another host."""


@dataclass(frozen=True, slots=True)
class ThisHost:
    """The host that we run on ourselves."""

    def ask_rack(self, path: Path, request: Mapping[str, object], who: str, deadline: float) -> dict[str, object]:
        """Ask over the Unix socket."""
        return ask_rack(path, request, who, deadline)

    def origin(self) -> tuple[str, str]:
        """Return our own name and boot id."""
        return socket.gethostname(), boot_id()

    def processes_gone(self, processes: tuple[ProcessIdentity, ...], who: str) -> bool:
        """Look into /proc."""
        for process in processes:
            if not process.is_local:
                raise PlatformError(f"{who}: process {process.pid} ran on host {process.host}, which the local transport cannot see; ask on that host")
        return not any(process.is_alive() for process in processes)


THIS_HOST = ThisHost()


def ask_rack(path: Path, request: Mapping[str, object], who: str, deadline: float) -> dict[str, object]:
    """Send one JSON line to a rack on this host and return its answer; raise `PlatformError`, beginning with `who`, when it refuses or is silent."""
    try:
        line = exchange(path, request, deadline)
    except TimeoutError as error:
        raise PlatformError(f"{who}: no answer within {deadline:g} s; look at the rack's log (`frangible lab logs`)") from error
    except OSError as error:
        raise PlatformError(f"{who}: {error.strerror or error}; is the rack running? `frangible lab status` tells") from error
    return accepted(who, line)


def exchange(path: Path, request: Mapping[str, object], deadline: float) -> bytes:
    """Send one JSON line to a Unix socket and return the line that comes back, or what there was of it; raises OSError, of which TimeoutError is one."""
    until = time.monotonic() + deadline
    with _connected(path, until) as connection:
        connection.settimeout(_left(until))
        connection.sendall(f"{json.dumps(request)}\n".encode())
        return _read_line(connection, until)


def run_command(argv: list[str], who: str, deadline: float, declared: str) -> str:
    """Run a command of the inventory without a shell and return its stdout; raise `PlatformError` when it fails. `declared` is where it stands."""
    try:
        code, output, said = _finished(argv, deadline)
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"{who}: `{argv[0]}` did not end within {deadline:g} s and was killed") from error
    except (OSError, ValueError, IndexError) as error:
        raise PlatformError(f"{who}: cannot start {argv!r}: {error}; check `{declared}` in the inventory") from error
    if code != 0:
        raise PlatformError(f"{who}: `{' '.join(argv)}` ended with exit code {code}: {short(said.strip() or 'nothing on stderr')}")
    return output


def identified(host: Host, entries: Iterable[Mapping[str, int]]) -> tuple[ProcessIdentity, ...]:
    """Return processes of a rack's host from its `pid` and `start`; raises KeyError, TypeError or ValueError on anything else.

    The host is asked after the rack has answered: had it been restarted in between, these processes would be gone, and are called so.
    """
    found = [(int(entry["pid"]), int(entry["start"])) for entry in entries]
    if not found:
        return ()
    name, boot = host.origin()
    return tuple(ProcessIdentity(name, boot, pid, start) for pid, start in found)


def _finished(argv: list[str], deadline: float) -> tuple[int, str, str]:
    """Run to the end in a session of its own, so that Ctrl-C does not cut a revert short and a deadline ends the whole of it.

    What it says goes to files: a service that a `start` command leaves behind may keep its output open, and a pipe would be waited for.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=said, start_new_session=True)
        try:
            code = process.wait(timeout=deadline)
        except BaseException:  # a signal's exception as well must not leave the command behind
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return code, _text(output), _text(said)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(LONGEST_REPLY).decode(errors="replace")


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


def accepted(who: str, line: bytes) -> dict[str, object]:
    """Parse one reply line; a refusal, half a line or anything that is no object is an error."""
    try:
        reply = json.loads(line) if line.endswith(b"\n") else None
    except ValueError as error:
        raise PlatformError(f"{who}: expected one JSON line, got {short(line.decode(errors='replace'))}") from error
    if not isinstance(reply, dict):
        raise PlatformError(f"{who}: expected one JSON line with an object, got {short(line.decode(errors='replace'))}; the rack may have died")
    if reply.get("ok") is not True:
        raise PlatformError(f"{who}: the rack refused: {reply.get('error', 'no reason given')}")
    return reply


def short(text: str) -> str:
    """Repeat foreign output in an error message, cut."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
