"""Doing something to a node for a bounded time: one process does it and looks at it, its parent sees to it that it is undone.

The parent does nothing but wait: for the deadline, for SIGTERM, and for the end of the other, which ends when its pod is deleted. Then it kills the
other and undoes. So whatever goes wrong in the doing, the undoing does not share it.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from frangible.helper.api import Api

__all__ = ["Job", "hold"]

EVERY = 0.5
"""Seconds between two looks."""
GLANCE = 0.05
"""Seconds between two looks of the parent."""
SAID = Path("/dev/termination-log")
"""Where the kubelet reads what a container said last."""
LONGEST = 4000
"""Bytes of that which the kubelet keeps."""


class Job(Protocol):
    """What is done to the node."""

    def begin(self) -> None:
        """Do it; raise OSError or ValueError with the reason when it cannot be done."""

    def look(self) -> dict[str, object]:
        """Return what is real of it now, as JSON."""

    def undo(self) -> list[str]:
        """Undo it; return what could not be. Idempotent; called by the parent, which has not begun it itself."""


def hold(job: Job, seconds: float, addresses: Sequence[str] = ()) -> int:
    """Do a job for at most `seconds`, then undo it; return an exit code: 0 undone, 1 it could not be done, 2 it could not be undone."""
    until = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    asked = _signalled()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900")
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reading)
        _in_child(lambda: _work(job, Api(addresses)), writing)
    os.close(writing)
    try:
        code = _wait(worker, until, asked)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        failed = _read(reading)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(worker, 0)
    return _undo(job, code, failed)


def _undo(job: Job, code: int, failed: str) -> int:
    left = ["not tried"]
    for _ in range(20):
        try:
            left = job.undo()
        except (OSError, ValueError) as error:
            left = [str(error)]
        if not left:
            break
        time.sleep(GLANCE)
    _say({"undone": not left, "left": left, "failed": failed or (f"ended by signal {-code}" if code < 0 else "")})
    return 2 if left else 1 if failed else 0


def _work(job: Job, api: Api) -> None:
    """Do it and tell what is seen, until the pod is being deleted."""
    job.begin()
    beat = 0
    while True:
        beat += 1
        begun = time.monotonic()
        if api.tell({"beat": beat, **job.look()}):
            return
        time.sleep(max(0.0, begun + EVERY - time.monotonic()))


def _in_child(work: Callable[[], None], writing: int) -> None:
    """Work, say why it failed, and end here whatever happens."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent's to act on
    code = 1
    try:
        work()
        code = 0
    except (OSError, ValueError) as error:
        os.write(writing, str(error).encode()[:LONGEST])
    finally:
        os._exit(code)


def _signalled() -> Callable[[], bool]:
    """Return whether somebody has asked to end."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    return lambda: bool(asked)


def _wait(worker: int, until: float, asked: Callable[[], bool]) -> int:
    """Wait for the first of: deadline, signal, the worker's end; return the worker's exit code, 0 while it lives."""
    while time.clock_gettime(time.CLOCK_BOOTTIME) < until and not asked():
        pid, status = os.waitpid(worker, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(GLANCE)
    return 0


def _read(reading: int) -> str:
    """Return what the worker wrote; it is dead or about to be, so the end of the file comes."""
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def _say(what: dict[str, object]) -> None:
    """Leave the result where the kubelet and a log reader find it."""
    text = json.dumps(what)
    with contextlib.suppress(OSError):
        SAID.write_text(text[:LONGEST])
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
