"""Processes of a run that are started before its plan is made: they import what they will need, and begin when they are told to.

Whoever started them may also ask what Chaos Toolkit thinks of an experiment: the chaoslib process has it imported. The end of the stream before
the word to begin means that there is no run, and the processes end without a trace.
"""

import atexit
import contextlib
import gc
import os
import selectors
import sys
import threading
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from frangible.channel import Channel

__all__ = ["JUDGING", "RUNNER", "SUPERVISOR", "imported", "leave", "log_to", "told_to_go"]

SUPERVISOR = (
    "frangible.supervisor.watch",
    "frangible.supervisor.concluding",
    "frangible.fingerprint",
    "frangible.guard",
    "frangible.journal.store",
    "frangible.ledger.store",
    "frangible.locks",
    "frangible.platforms.hosts",
)
"""What every run's supervisor imports sooner or later: all of it while its run is being planned."""
JUDGING = (
    "frangible.hypothesis",
    "frangible.injection",
    "frangible.inventory",
    "frangible.judge",
    "frangible.metrics",
    "frangible.observing",
    "scipy.special",
)
"""What is needed besides by the two processes of a run with a hypothesis."""
RUNNER = ("chaoslib.experiment", "frangible.control")
"""The same of a chaoslib process."""


def imported(names: Iterable[str]) -> Exception | None:
    """Import modules; return what went wrong, to be raised when there is a log to say it in.

    Nothing of what an import makes is garbage, so it is not looked for meanwhile, nor later in what was made here.
    """
    gc.disable()
    try:
        for name in names:
            import_module(name)
    except Exception as error:  # noqa: BLE001 - raised by the caller
        return error
    finally:
        gc.freeze()
        gc.enable()
    return None


def told_to_go(starter: Channel, asking: Channel | None = None) -> bool:
    """Wait for the word to begin; answer what is asked meanwhile. False when nobody will say it."""
    with selectors.DefaultSelector() as selector:
        selector.register(starter, selectors.EVENT_READ)
        if asking is not None:
            selector.register(asking, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is starter:
                    message = starter.receive()
                    return message is not None and message["type"] == "go"
                if asking is not None and not _answer(asking):
                    selector.unregister(asking)
                    asking = None


def _answer(asking: Channel) -> bool:
    """Answer one question; False when there will be no other."""
    from frangible import toolkit

    message = asking.receive()
    if message is None:
        asking.close()
        return False
    ours, sys.path[:] = list(sys.path), message["path"]  # as for whoever asks
    try:
        asking.send({"type": "complaints", "complaints": toolkit.complaints(message["experiment"])})
    finally:
        sys.path[:] = ours
    return True


def log_to(file: Path) -> None:
    """Write from now on what goes to stdout and stderr to the end of a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def leave(code: int) -> NoReturn:
    """End this process as the interpreter would, without the time that it takes to clear every module away."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
