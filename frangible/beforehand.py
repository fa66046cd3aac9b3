"""Starting the processes of a run before anything else: while they import, the command reads its files and plans the run.

Only what comes with the interpreter is imported here, since a command waits for it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from frangible.channel import Channel, ChannelClosed
from frangible.home import Home

__all__ = ["Beforehand", "free_run_id", "new_run_id", "processes", "spawn", "variables"]


def new_run_id(now: datetime | None = None) -> str:
    """Return a run id that sorts by time, such as `20261123-2351-07-3fa9`."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%d-%H%M-%S}-{os.urandom(2).hex()}"


def free_run_id(runs: Path) -> str:
    """Return one that no run in this folder has: hundreds of runs that are planned in one second would sooner or later draw the same."""
    while (runs / (run_id := new_run_id())).exists():
        pass
    return run_id


@dataclass
class Beforehand:
    """A supervisor and its chaoslib process, started before their run is planned: they import meanwhile, and begin with `go`.

    Without it they end: when this process does, when it closes the channel, or at once with `forget`.
    """

    run_id: str
    supervisor: "subprocess.Popen[bytes]"
    channel: Channel
    asking: Channel
    """To the chaoslib process."""
    over: bool = False
    """Whether they were told to begin, or forgotten."""

    def complaints(self, experiment: object) -> tuple[str, ...]:
        """Ask the toolkit in the chaoslib process, which has it imported; here where it cannot be asked."""
        try:
            self.asking.send({"type": "complaints", "experiment": json.loads(json.dumps(experiment, default=str)), "path": sys.path})
            answer = self.asking.receive()
        except (ChannelClosed, TypeError, ValueError, RecursionError):  # keys that JSON does not have
            answer = None
        if answer is None:
            from frangible import toolkit

            return toolkit.complaints(experiment)
        return tuple(answer["complaints"])

    def go(self) -> bool:
        """Let them begin with the plan in the run's folder; False when they are not there any more."""
        try:
            self.channel.send({"type": "go"})
        except ChannelClosed:
            return False
        self.over = True
        return True

    def forget(self) -> None:
        """End both at once, unless they have begun: they are a process group of their own, and have done nothing yet."""
        self.asking.close()
        if self.over:
            return
        self.over = True
        if self.supervisor.returncode is None:  # while nobody has waited for it, its id is nobody else's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.supervisor.pid, signal.SIGKILL)
            self.supervisor.wait()
        self.channel.close()


@contextlib.contextmanager
def processes() -> Iterator[Beforehand]:
    """Start the processes of a run that is still to be planned; whatever comes in between, they do not stay behind."""
    runs = Home.plain().runs
    run_id = free_run_id(runs)
    ours, theirs = Channel.pair()
    asking, asked = Channel.pair()
    options = ["--starter", str(theirs.fileno()), "--ahead", str(asked.fileno())]
    started = Beforehand(run_id, spawn(runs / run_id, options, (theirs, asked)), ours, asking)
    try:
        yield started
    finally:
        started.forget()


def variables() -> dict[str, str]:
    """Return the environment variables of a run's processes: those of this one, and that nothing which is written waits in a buffer."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def spawn(folder: Path, options: Sequence[str], ends: Sequence[Channel], log: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """Start a supervisor in a session of its own, and close here the ends of channels that it takes over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "frangible.supervisor", str(folder), *options],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=tuple(end.fileno() for end in ends),
        start_new_session=True,
        env=variables(),
    )
    for end in ends:
        end.close_here()
    return process
