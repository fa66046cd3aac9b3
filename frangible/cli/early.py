"""The processes of `frangible run`, started before its arguments are parsed: those of the run where these plainly ask for one, else the fork server."""

import contextlib
from collections.abc import Iterator, Sequence

from frangible.beforehand import Beforehand, processes
from frangible.forkserver import ForkServer, fork_server

__all__ = ["asks_for_many_runs", "asks_for_one_run", "forget", "fork_server_of_the_runs", "processes_of_the_run", "started"]

NO_RUN = frozenset({"--help", "--dry-run"})
"""Options with which there is no run."""
MANY = frozenset({"--select", "--repeat"})
"""Options with which there is more than one."""
ENVIRONMENT = frozenset({"-e", "--environment"})

_started: list[Beforehand] = []
_servers: list[ForkServer] = []


def asks_for_one_run(arguments: Sequence[str]) -> bool:
    """Whether a command line is that of one run. Where this is wrong, the processes are ended again or started a little later."""
    names = _names(arguments)
    return MANY.isdisjoint(names) and sum(name in ENVIRONMENT for name in names) == 1


def asks_for_many_runs(arguments: Sequence[str]) -> bool:
    """Whether a command line is that of several runs, with the same consequences where this is wrong."""
    names = _names(arguments)
    return not MANY.isdisjoint(names) or sum(name in ENVIRONMENT for name in names) > 1


def _names(arguments: Sequence[str]) -> list[str]:
    """Return the options without their values; nothing where no run is asked for."""
    if not arguments or arguments[0] != "run":
        return []
    names = [argument.partition("=")[0] for argument in arguments]
    return names if NO_RUN.isdisjoint(names) else []


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[None]:
    """Start the processes where one run is asked for; unless the command lets them begin, they do not outlive it."""
    with contextlib.ExitStack() as stack:
        if asks_for_one_run(arguments):
            with contextlib.suppress(OSError):  # the command will try again, and say what is wrong
                _started.append(stack.enter_context(processes()))
        elif asks_for_many_runs(arguments):
            with contextlib.suppress(OSError):
                _servers.append(stack.enter_context(fork_server()))
        yield


def forget() -> None:
    """End what was started: it is something else that is asked for."""
    while _started:
        _started.pop().forget()


@contextlib.contextmanager
def processes_of_the_run() -> Iterator[Beforehand]:
    """Yield the processes of the one run that this command is about: those that were started, else started now."""
    if _started:
        yield _started.pop()
        return
    with processes() as now:
        yield now


@contextlib.contextmanager
def fork_server_of_the_runs() -> Iterator[ForkServer]:
    """Yield the fork server for the many runs that this command is about: the one that was started, else one that starts now."""
    if _servers:
        yield _servers.pop()
        return
    with fork_server() as now:
        yield now
