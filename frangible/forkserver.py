"""The warm fork server as a command sees it: a process that has imported everything, of which supervisors are forked instead of started.

It is a process of its own, since a command has threads and a process with threads must not fork. It forks when it is asked to, says the new process's
id, and later how it ended; it holds nothing of a run. When it dies, runs go on without it, and those still to come start directly.

Only what comes with the interpreter is imported here, since a command starts it before anything else.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from frangible.beforehand import variables
from frangible.channel import Channel

__all__ = ["FORK", "IMPORT", "ForkServer", "Forked", "fork_server"]

FORK, IMPORT = b"f", b"i"
"""What is asked for, with the descriptors that belong to it: of a fork the ends of its answers and of the starter's channel, of an import that of its names."""
PATIENCE = 30.0
"""Seconds that the server has to answer; it may still be importing. After that a run starts directly."""
CODE_PATIENCE = 5.0
"""Seconds that the server has to say how a process ended that is seen to have ended."""


@dataclass
class Forked:
    """A supervisor that the server forked: as much of it as whoever started it directly would have."""

    pid: int
    returncode: int | None
    """None while it runs, and where the server died before it could tell."""
    _descriptor: int
    """A pidfd (pidfd_open(2)), made by the process's parent: it cannot be that of another one."""
    _answers: socket.socket
    _over: bool = False

    def wait(self) -> int | None:
        """Wait until it has ended, whether or not the server lives; return its exit code, as `Popen.wait` does, where that is known."""
        if not self._over:
            self._over = True
            ended = select.poll()  # select(2) knows no descriptor above 1023
            ended.register(self._descriptor, select.POLLIN)
            ended.poll()
            os.close(self._descriptor)
            self._answers.settimeout(CODE_PATIENCE)
            with self._answers, contextlib.suppress(OSError, ValueError):  # the server is gone
                self.returncode = json.loads(self._answers.recv(64))["code"]
        return self.returncode


class ForkServer:
    """The server, from its start to its end. Calls come from one thread."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        """Use `fork_server` instead."""
        self.process = process
        self._control = control

    @classmethod
    def start(cls) -> "ForkServer":
        """Start it, in a session of its own; it imports meanwhile, and ends when this process does."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "frangible.warm", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=variables(),
            )
        return cls(process, ours)

    def imports(self, names: Iterable[str]) -> None:
        """Let it import some more before it forks again."""
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, answers, contextlib.suppress(OSError):  # `fork` notices that it is gone
            answers.sendall(json.dumps(list(names)).encode())
            socket.send_fds(self._control, [IMPORT], [theirs.fileno()])

    def fork(self, folder: Path, starter: Channel) -> Forked | None:
        """Fork the supervisor of a run, which waits for the word to begin on the channel `starter`; None when the server is not there any more.

        Without the word, and when the other end of the channel is closed, it ends and leaves no trace.
        """
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        answers.settimeout(PATIENCE)
        try:
            with theirs:
                socket.send_fds(self._control, [FORK], [theirs.fileno(), starter.fileno()])
            answers.sendall(json.dumps({"folder": str(folder), "variables": variables()}).encode() + b"\n")
            told, descriptors, _, _ = socket.recv_fds(answers, 64, 1)
        except OSError:
            told, descriptors = b"", []
        if not descriptors:
            answers.close()
            return None
        os.set_inheritable(descriptors[0], False)
        return Forked(json.loads(told)["pid"], None, descriptors[0], answers)

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._control.close()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def fork_server() -> Iterator[ForkServer]:
    """Start the server; it does not outlive the block."""
    server = ForkServer.start()
    try:
        yield server
    finally:
        server.close()
