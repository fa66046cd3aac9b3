"""The processes of `frangible run`, started before its arguments are parsed where these plainly ask for one run."""

import contextlib
from collections.abc import Iterator, Sequence

from frangible.beforehand import Beforehand, processes

__all__ = ["asks_for_one_run", "forget", "processes_of_the_run", "started"]

OTHERWISE = frozenset({"--help", "--dry-run", "--select", "--repeat"})
"""Options with which there is no run, or more than one."""
ENVIRONMENT = frozenset({"-e", "--environment"})

_started: list[Beforehand] = []


def asks_for_one_run(arguments: Sequence[str]) -> bool:
    """Whether a command line is that of one run. Where this is wrong, the processes are ended again or started a little later."""
    if not arguments or arguments[0] != "run":
        return False
    names = [argument.partition("=")[0] for argument in arguments]
    return OTHERWISE.isdisjoint(names) and sum(name in ENVIRONMENT for name in names) == 1


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[None]:
    """Start the processes where one run is asked for; unless the command lets them begin, they do not outlive it."""
    with contextlib.ExitStack() as stack:
        if asks_for_one_run(arguments):
            with contextlib.suppress(OSError):  # the command will try again, and say what is wrong
                _started.append(stack.enter_context(processes()))
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
