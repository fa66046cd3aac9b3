"""JSON lines over a socket pair: how the two processes of a run, and whoever started it, talk.

The end of the stream is itself a message: the other side is gone. It is noticed in milliseconds, also after `kill -9`.
"""

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from frangible.errors import FrangibleError

__all__ = ["Channel", "ChannelClosed", "Message"]

type Message = dict[str, Any]
"""One JSON object. Its `type` says which of the others it has: see `frangible.admission` and `frangible.supervisor`."""

CHUNK = 65536


class ChannelClosed(FrangibleError):
    """The process at the other end is gone."""


class Channel:
    """One end of a socket pair. `send` may be called from any thread, `receive` and `messages` from one at a time."""

    def __init__(self, endpoint: socket.socket) -> None:
        """Take over a connected stream socket."""
        self._socket = endpoint
        self._sending = threading.Lock()
        self._pending = b""
        self._lines: deque[bytes] = deque()

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        """Return two connected ends, neither of which child processes inherit."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(left), cls(right)

    @classmethod
    def inherited(cls, descriptor: int) -> "Channel":
        """Take over an end that was passed to this process as an open file descriptor."""
        endpoint = socket.socket(fileno=descriptor)
        endpoint.set_inheritable(False)
        return cls(endpoint)

    def fileno(self) -> int:
        """Return the file descriptor, to be passed to a child process."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send one message; raise `ChannelClosed` when nobody is there any more."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosed(f"the process at the other end of the channel is gone: {error}") from error

    def receive(self) -> Message | None:
        """Wait for the next message; None when the other end is gone."""
        while not self._lines:
            try:
                chunk = self._socket.recv(CHUNK)
            except OSError:
                return None
            if not chunk:
                return None
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            self._lines.extend(lines)
        found: Message = json.loads(self._lines.popleft())
        return found

    def messages(self) -> Iterator[Message]:
        """Yield messages until the other end is gone."""
        while (message := self.receive()) is not None:
            yield message

    def close_here(self) -> None:
        """Close this process's copy of an end that a child process has taken over."""
        self._socket.close()

    def close(self) -> None:
        """Close this end; the other one sees the end of the stream."""
        with contextlib.suppress(OSError):  # the other end may have closed first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
