"""The chaoslib process as its supervisor sees it: what is told to it, its signs of life, and its end."""

import contextlib
import os
import select
import signal
from dataclasses import dataclass, field
from typing import Protocol

from frangible.channel import Channel, ChannelClosed, Message
from frangible.clock import Clock, SystemClock
from frangible.process import ProcessIdentity

__all__ = ["LEAVE_PATIENCE", "Child", "ForkedProcess", "Process"]

LEAVE_PATIENCE = 5.0
"""Seconds that a chaoslib process without faults in force has to end by itself."""


class Process(Protocol):
    """A child process of this one: a `subprocess.Popen`, or one that was forked."""

    pid: int

    def kill(self) -> None:
        """Send SIGKILL; nothing happens when it was waited for already."""

    def wait(self) -> int:
        """Wait until it has ended and return its exit code."""


@dataclass
class ForkedProcess:
    """A child that this process has forked. One thread waits for it."""

    pid: int
    returncode: int | None = None
    """None until it was waited for."""

    def kill(self) -> None:
        """Send SIGKILL; nothing happens when it was waited for already."""
        if self.returncode is None:  # while nobody has waited for it, its id is nobody else's
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended and return its exit code, negative for a signal."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


@dataclass
class Child:
    """The chaoslib process of one run."""

    channel: Channel
    process: "Process | None"
    """The process where the supervisor started it; None under `chaos run`, which started the supervisor."""
    clock: Clock = field(default_factory=SystemClock)
    injector: ProcessIdentity | None = None
    """Who it is, as it said itself; None before it has."""
    gone: bool = False

    def __post_init__(self) -> None:
        """Count from now."""
        self._last_beat = self.clock.monotonic()

    def tell(self, message: Message) -> None:
        """Send a message; that nobody is there any more is heard elsewhere."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send(message)

    def answer(self, number: int, **content: object) -> None:
        """Answer the question of that number."""
        self.tell({"type": "answer", "number": number, **content})

    def beat(self) -> None:
        """Note a sign of life."""
        self._last_beat = self.clock.monotonic()

    def silent_for(self) -> float:
        """Seconds since the last sign of life."""
        return self.clock.monotonic() - self._last_beat

    def kill(self) -> None:
        """End it for good; its end of the channel closes, and `gone` follows."""
        if self.injector is not None:
            self.injector.kill()
        elif self.process is not None:
            self.process.kill()

    def end(self) -> None:
        """Let a process of ours leave, then make sure; `chaos run` is not ours to end."""
        if self.process is None:
            return
        if not _ended_within(self.process.pid, LEAVE_PATIENCE):
            self.process.kill()
        self.process.wait()


def _ended_within(pid: int, seconds: float) -> bool:
    """Wait for a child of this process; pidfd_open(2) tells at once what `Popen.wait` with a timeout looks for now and then."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:  # it has been waited for
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
