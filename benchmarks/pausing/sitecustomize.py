"""Lets a test stop one of frangible's processes exactly at one step: the process sends itself SIGSTOP there.

Python imports this module at start-up when its folder is on PYTHONPATH. `FRANGIBLE_PAUSE_AT` is `PROCESS:CLASS.METHOD:before|after`,
such as `runner:Ledger.begin_injecting:after`; PROCESS is `runner` (the chaoslib process, on both paths), `supervisor` or `recover`.
A number after it, as in `runner:Ledger.begin_injecting:after:2`, means that call instead of the first. Nothing in frangible knows of it.
"""

import functools
import importlib.abc
import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

CLASSES = {
    "Ledger": "frangible.ledger.store",
    "HostsPlatform": "frangible.platforms.hosts",
    "FileLockStore": "frangible.locks",
    "Journal": "frangible.journal.store",
}


def _process() -> str:
    """Which of frangible's processes this is, from its command line."""
    words = " ".join(sys.orig_argv)
    if "frangible.supervisor" in words:
        return "supervisor"
    if "frangible.runner" in words or "chaos run" in words or "chaos --" in words:
        return "runner"
    return "recover" if " recover" in words else "other"


class _Pausing(importlib.abc.MetaPathFinder):
    """Wraps one method of one class when its module is imported."""

    def __init__(self, module: str, owner: str, method: str, moment: str, call: int) -> None:
        self.module, self.owner, self.method, self.moment, self.call = module, owner, method, moment, call

    def find_spec(self, name: str, _path: object, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Let the other finders find the module, then wrap it once it has been executed."""
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            owner = getattr(module, self.owner)
            setattr(owner, self.method, _paused(getattr(owner, self.method), self.moment, self.call))

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def _paused[**P, R](method: Callable[P, R], moment: str, call: int) -> Callable[P, R]:
    calls = itertools.count(1)

    @functools.wraps(method)
    def pausing(*args: P.args, **kwargs: P.kwargs) -> R:
        now = next(calls) == call
        if now and moment == "before":
            os.kill(os.getpid(), signal.SIGSTOP)
        result = method(*args, **kwargs)
        if now and moment == "after":
            os.kill(os.getpid(), signal.SIGSTOP)
        return result

    return pausing


def _install() -> None:
    wanted = os.environ.get("FRANGIBLE_PAUSE_AT")
    if not wanted:
        return
    process, place, moment, *call = wanted.split(":")
    owner, method = place.split(".")
    if process == _process():
        sys.meta_path.insert(0, _Pausing(CLASSES[owner], owner, method, moment, int(call[0]) if call else 1))


_install()
