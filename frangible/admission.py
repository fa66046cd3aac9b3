"""The chaoslib process's side of a run: what was admitted, and the link to the supervisor that watches it.

An action injects only while this module holds an admitted run, and only the supervisor's `ready` sets one. A control that is
missing, broken or raising therefore never leads to an injection.

Messages to the supervisor: `hello`, `ask` (baseline, hypothesis, inject, recovery, verdict), `fault`, `beat`, `finished`, `interrupted`.
Messages from it: `ready`, `refused`, `answer`, `abort`.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from frangible.channel import Channel, ChannelClosed, Message
from frangible.errors import FrangibleError, Refused
from frangible.process import ProcessIdentity

if TYPE_CHECKING:
    from frangible.fault import FaultRegistry
    from frangible.ledger import Ledger
    from frangible.plan import Plan
    from frangible.platforms import Platform

__all__ = ["Admission", "Link", "RunAborted", "admit", "current", "interruptible", "withdraw"]

BEAT_EVERY = 0.5
"""Seconds between two signs of life."""
UNHEARD = 0.5
"""Seconds in which code of ours has noticed that the supervisor is gone."""
INTERRUPT_EVERY = 5.0
"""Seconds after which somebody else's code that has swallowed the interruption is interrupted again."""


class RunAborted(FrangibleError):
    """The supervisor asked to stop, or is gone: revert what is in force and end."""


class Link:
    """The open line to the supervisor, read by a thread of its own.

    That thread is the dead-man's switch: our own code sees for itself that the supervisor is gone, but somebody else's activity may take long, so
    it is interrupted as SIGTERM would. Never while an action of ours is at work, which stops and reverts by itself, and never once the
    experiment has come to its rollbacks.
    """

    def __init__(self, channel: Channel) -> None:
        """Start reading and beating."""
        self.stop = threading.Event()
        self.supervisor_gone = False
        self.abort_reason = ""
        self._channel = channel
        self._turn = threading.Lock()
        self._at_work = 0
        self._over = threading.Event()
        self._over.set()
        self._numbers = itertools.count(1)
        self._answers: dict[int, SimpleQueue[Message]] = {}
        self._admission: SimpleQueue[Message] = SimpleQueue()
        threading.Thread(target=self._read, name="supervisor-link", daemon=True).start()
        threading.Thread(target=self._beat, name="supervisor-beat", daemon=True).start()

    def hello(self) -> Message:
        """Say who we are; return the supervisor's `ready` or `refused`. Raise `RunAborted` when it is gone."""
        me = ProcessIdentity.current()
        self.tell({"type": "hello", "process": me.to_json()})
        answer = self._wait(self._admission)
        if answer["type"] == "ready":
            self._over.clear()
        return answer

    def ask(self, what: str, **details: object) -> Message:
        """Ask and wait for the answer; raise `RunAborted` when the run ends instead."""
        number = next(self._numbers)
        queue = self._answers[number] = SimpleQueue()
        self.tell({"type": "ask", "what": what, "number": number, **details})
        try:
            return self._wait(queue)
        finally:
            del self._answers[number]

    def ask_last(self, what: str) -> Message:
        """Ask also when the run has been stopped; raise `RunAborted` only when the supervisor is gone."""
        number = next(self._numbers)
        queue = self._answers[number] = SimpleQueue()
        self.tell({"type": "ask", "what": what, "number": number})
        while not self.supervisor_gone:
            with contextlib.suppress(Empty):
                message = queue.get(timeout=0.1)
                if message["type"] != "ended":
                    return message
        raise RunAborted(self.abort_reason)

    def tell(self, message: Message) -> None:
        """Send without waiting; raise `RunAborted` when the supervisor is gone."""
        try:
            self._channel.send(message)
        except ChannelClosed as error:
            self._end("the supervisor of this run is gone", gone=True)
            raise RunAborted(self.abort_reason) from error

    def check(self) -> None:
        """Raise `RunAborted` when the run has been stopped."""
        if self.stop.is_set():
            raise RunAborted(self.abort_reason)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While an action of ours is at work, nothing interrupts it; it looks at `stop`. Raise `RunAborted` when the run has been stopped before it."""
        with self._turn:
            self.check()
            self._at_work += 1
        try:
            yield
        finally:
            with self._turn:
                self._at_work -= 1

    def method_over(self) -> None:
        """Say that what is left is rollbacks and the verdict: nothing of that is interrupted because the supervisor is gone."""
        from chaoslib.exceptions import InterruptExecution

        try:
            with self._turn:
                self._over.set()
        except InterruptExecution:
            if not self.supervisor_gone:
                raise
            self._over.set()  # our own interruption has come too late to be one

    def close(self) -> None:
        """Hang up."""
        self._over.set()
        self._channel.close()

    def _wait(self, queue: "SimpleQueue[Message]") -> Message:
        while True:
            self.check()
            try:
                # Short waits let the main thread notice signals and the end of the run.
                message = queue.get(timeout=0.1)
            except Empty:
                continue
            if message["type"] != "ended":
                return message

    def _read(self) -> None:
        for message in self._channel.messages():
            match message["type"]:
                case "ready" | "refused":
                    self._admission.put(message)
                case "answer":
                    queue = self._answers.get(message["number"])
                    if queue is not None:
                        queue.put(message)
                case "abort":
                    self._end(message["reason"], gone=False)
        self._end("the supervisor of this run is gone", gone=True)
        self._interrupt()

    def _interrupt(self) -> None:
        """Interrupt whatever the main thread is in, unless it is ours, until the experiment has come to its end."""
        main = threading.main_thread().ident
        while not self._over.wait(UNHEARD):
            with self._turn:
                if not self._at_work and not self._over.is_set() and main is not None:
                    signal.pthread_kill(main, signal.SIGTERM)  # Chaos Toolkit's handler raises InterruptExecution there
            if self._over.wait(INTERRUPT_EVERY):
                return

    def _beat(self) -> None:
        while not self.stop.wait(BEAT_EVERY):
            try:
                self._channel.send({"type": "beat"})
            except ChannelClosed:
                return

    def _end(self, reason: str, *, gone: bool) -> None:
        self.supervisor_gone = self.supervisor_gone or gone
        self.abort_reason = self.abort_reason or reason
        self.stop.set()
        for queue in (self._admission, *list(self._answers.values())):
            queue.put({"type": "ended"})


@dataclass
class Admission:
    """An admitted run, as its actions and probes see it."""

    plan: "Plan"
    link: Link
    open_ledger: "Callable[[], Ledger]"
    open_platform: "Callable[[], Platform]"
    registry: "FaultRegistry"
    failed: str = ""
    """Why an earlier action of this run failed; nothing is injected after that."""
    _opened: dict[str, Any] = field(default_factory=dict)
    _draws: Iterator[int] = field(default_factory=itertools.count)

    def next_seed(self) -> int:
        """Return the seed of the run's next draw: the plan's, then the numbers after it, so that no two draw alike."""
        return self.plan.seed + next(self._draws)

    @property
    def ledger(self) -> "Ledger":
        """The ledger, opened at first use."""
        return self._once("ledger", self.open_ledger)

    @property
    def platform(self) -> "Platform":
        """The environment's platform, opened at first use."""
        return self._once("platform", self.open_platform)

    def _once[Opened](self, name: str, opening: Callable[[], Opened]) -> Opened:
        if name not in self._opened:
            self._opened[name] = opening()
        return self._opened[name]  # type: ignore[no-any-return]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the end of the run into chaoslib's own: the only exception that ends an experiment from within an activity."""
    try:
        yield
    except RunAborted as error:
        from chaoslib.exceptions import InterruptExecution

        raise InterruptExecution(f"frangible: {error}") from error


_admitted: list[Admission] = []


def admit(admission: Admission) -> None:
    """Let the actions of this process inject within this run."""
    _admitted[:] = [admission]


def withdraw() -> None:
    """Let nothing inject any more."""
    _admitted.clear()


def current() -> Admission:
    """Return the admitted run of this process; raise `Refused` when there is none."""
    if not _admitted:
        raise Refused(
            "no admitted run: the experiment must declare the control `frangible.control` and be started with "
            "`frangible run`, or with `chaos run` and FRANGIBLE_ENVIRONMENT set"
        )
    return _admitted[0]
