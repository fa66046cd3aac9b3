"""Lets a test stop one of frangible's processes exactly at one step: the process sends itself SIGSTOP there.

Python imports this module at start-up when its folder is on PYTHONPATH. `FRANGIBLE_PAUSE_AT` is `PROCESS:CLASS.METHOD:before|after`,
such as `runner:Ledger.begin_injecting:after`; PROCESS is `runner` (the chaoslib process, on both paths), `supervisor` or `recover`.
A number after it, as in `runner:Ledger.begin_injecting:after:2`, means that call instead of the first. Nothing in frangible knows of it.
`FRANGIBLE_PAUSE_ON` is an environment's name: where several runs are started together, only the processes of its run stop.
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
from pathlib import Path
from types import ModuleType

CLASSES = {
    "Ledger": "frangible.ledger.store",
    "HostsPlatform": "frangible.platforms.hosts",
    "KubernetesPlatform": "frangible.platforms.kubernetes.platform",
    "FileLockStore": "frangible.locks",
    "Journal": "frangible.journal.store",
}


def _process() -> str:
    """Which of frangible's processes this is, from its command line as `ps` shows it: one that was forked has another than its interpreter."""
    words = _words()
    if "frangible.supervisor" in words:
        return "supervisor"
    if "frangible.runner" in words or "chaos run" in words or "chaos --" in words:
        return "runner"
    return "recover" if " recover" in words else "other"


def _words() -> str:
    return Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def _is_meant(process: str) -> bool:
    """Whether this is the process that stops, and of the right run."""
    if process != _process():
        return False
    name = os.environ.get("FRANGIBLE_PAUSE_ON")
    if not name:
        return True
    return f'\\"name\\":\\"{name}\\"' in _plan().read_text().replace(": ", ":")


def _plan() -> Path:
    """The run's folder is an argument of its processes."""
    places = (Path(word) / "plan.json" for word in _words().split())
    return next(place for place in places if place.is_file())


class _Pausing(importlib.abc.MetaPathFinder):
    """Wraps one method of one class when its module is imported."""

    def __init__(self, process: str, module: str, owner: str, method: str, moment: str, call: int) -> None:
        self.process, self.module, self.owner, self.method, self.moment, self.call = process, module, owner, method, moment, call

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
            setattr(owner, self.method, _paused(getattr(owner, self.method), self.process, self.moment, self.call))

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def _paused[**P, R](method: Callable[P, R], process: str, moment: str, call: int) -> Callable[P, R]:
    calls = itertools.count(1)

    @functools.wraps(method)
    def pausing(*args: P.args, **kwargs: P.kwargs) -> R:
        now = _is_meant(process) and next(calls) == call  # the fork server rehearses, and is not meant
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
    if process == _process() or "frangible.warm" in _words():
        sys.meta_path.insert(0, _Pausing(process, CLASSES[owner], owner, method, moment, int(call[0]) if call else 1))


_install()
