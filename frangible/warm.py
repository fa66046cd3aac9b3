"""`python -m frangible.warm DESCRIPTOR`: the warm fork server of many runs.

It imports what both processes of a run need, and then only forks and reaps. It has one thread, holds no descriptor of any run beyond the one on which
it tells how a process ended, and opens no database: what it has is what every run may share. Each supervisor is in a session of its own and forks its
chaoslib process itself, so that who is whose parent, and who holds which end of which channel, is the same as when they are started directly.
"""

import contextlib
import gc
import json
import os
import platform
import select
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from setproctitle import setproctitle, setthreadtitle

from frangible import ahead
from frangible.channel import Channel, ChannelClosed, Message
from frangible.forkserver import FORK
from frangible.plan import Plan

__all__ = ["main"]

_kept = {0, 1, 2}
"""Descriptors that every process keeps: the standard ones, and what was opened while importing (by the interpreter itself, for `perf`)."""
ITSELF = ("frangible.rehearsal", "frangible.runner", "frangible.supervisor.child")


def main() -> int:
    """Serve until whoever started this is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numerics are imported with one thread: who has more must not fork
    # What fails here fails again, and is said, in the process that needs it.
    if ahead.imported((*ahead.SUPERVISOR, *ahead.RUNNER, *ITSELF)) is None:
        with contextlib.suppress(Exception):
            _prepare()
    gc.collect()
    gc.freeze()
    _kept.update(_opened() - {control.fileno()})
    Server(control).serve()
    return 0


def _prepare() -> None:
    """Do once what every run would do again."""
    from frangible.rehearsal import rehearse

    rehearse()
    platform.platform()  # the toolkit will ask for it, and it starts a process


class Server:
    """Forks what is asked for, and tells how it ended."""

    def __init__(self, control: socket.socket) -> None:
        """Answer those who hold the other end of `control`."""
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, socket.socket]] = {}
        """By the pidfd: the process's id, and where its end is told."""

    def serve(self) -> None:
        """Serve until the other end is closed."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._reap(descriptor)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        """Do one thing that is asked for; False when nobody will ask any more."""
        what, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if not what:
            return False
        asked = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if what == FORK and len(asked) == 2:
            self._fork(*asked)
        elif asked:
            with asked[0], contextlib.suppress(OSError, ValueError):
                ahead.imported(json.loads(asked[0].recv(65536)))  # what fails here fails again, and is said, where it is needed
        return True

    def _fork(self, answers: socket.socket, starter: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            _as_process(lambda: _supervise(answers.detach(), starter.detach()))
        starter.close()
        descriptor = os.pidfd_open(pid)
        self._children[descriptor] = (pid, answers)
        self._poll.register(descriptor, select.POLLIN)
        with contextlib.suppress(OSError):  # whoever asked is gone; the new process will notice
            socket.send_fds(answers, [json.dumps({"pid": pid}).encode()], [descriptor])

    def _reap(self, descriptor: int) -> None:
        pid, answers = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        with answers, contextlib.suppress(OSError):
            answers.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())


# --- in the new process -----------------------------------------------------------------------------------------------


def _as_process(what: Callable[[], int]) -> NoReturn:
    """Be a process of its own that ends as an interpreter does: nothing of the one that it was forked from is returned to."""
    code = 1
    try:
        code = what()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - the interpreter's own last resort
        traceback.print_exc()
    ahead.leave(code)


def _only(*descriptors: int) -> None:
    """Close every descriptor that is not this process's own: one that stays open would keep another run's end of stream from being seen."""
    first = 0
    for descriptor in sorted({*_kept, *descriptors}):
        if first < descriptor:  # an empty range from 0 would be all of them
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _opened() -> set[int]:
    """Return the descriptors that are open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is asked for
        with contextlib.suppress(OSError):  # the one with which these were listed
            os.fstat(int(name))
            found.add(int(name))
    return found


def _set_out(module: str, request: Message) -> Path:
    """Be seen by `ps` and `sys.argv` as the process that is started directly, with the variables of whoever asked; return the run's folder."""
    folder = Path(request["folder"])
    setproctitle(f"python -m {module} {folder}")
    setthreadtitle("python")  # a name with spaces leads those astray who split /proc/PID/stat, such as the interpreter's own count of its threads
    sys.argv[:] = [module, str(folder)]
    os.environ.clear()
    os.environ.update(request["variables"])
    return folder


def _supervise(answers: int, starter: int) -> int:
    """Be the supervisor of one run."""
    os.setsid()
    _only(answers, starter)
    asked = Channel.inherited(answers)
    request = asked.receive()
    asked.close_here()
    if request is None:
        return 0
    # Forked before this process has written to much of its memory: it would be copied twice.
    child, theirs = Channel.pair()
    pid = os.fork()
    if pid == 0:
        child.close_here()
        _as_process(lambda: _experiment(request, theirs))
    theirs.close_here()
    folder = _set_out("frangible.supervisor", request)
    channel = Channel.inherited(starter)
    from frangible.supervisor.child import ForkedProcess

    process = ForkedProcess(pid)
    if not ahead.told_to_go(channel):
        child.close()
        process.wait()
        return 0
    ahead.log_to(folder / "supervisor.log")
    with contextlib.suppress(ChannelClosed):  # the supervisor notices by itself
        child.send({"type": "go"})
    from frangible.supervisor.watch import Supervisor

    return Supervisor(Plan.load(folder), child, child_process=process, starter=channel).run()


def _experiment(request: Message, supervisor: Channel) -> int:
    """Be the chaoslib process of one run."""
    _only(supervisor.fileno())
    folder = _set_out("frangible.runner", request)
    if not ahead.told_to_go(supervisor):
        return 0
    ahead.log_to(folder / "chaos.log")
    from frangible.admission import Link
    from frangible.runner import run

    return run(Plan.load(folder), Link(supervisor))


if __name__ == "__main__":
    sys.exit(main())
