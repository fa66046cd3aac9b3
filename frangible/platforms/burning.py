"""Burners on nodes: started, looked at and stopped by the name that their lease gave them, through the rack or on this host."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from frangible.errors import PlatformError
from frangible.platforms import BurnerState
from frangible.platforms.asking import DEADLINE, THIS_HOST, Host
from frangible.process import ProcessIdentity

__all__ = ["BurnerDriver", "BurnerFolder", "HostBurners", "RackBurners"]

STALE = 5.0
"""Seconds after which what a burner told last is no longer what it does."""
GRACE = 2.0
"""Seconds that a burner has to end after it was told to, before it is killed."""
KEPT = 3 * 86400.0
"""Seconds that state files are kept."""
SUFFIX = ".burner"


class BurnerDriver(Protocol):
    """Burners on the nodes of one environment. Each call has a deadline, is idempotent and raises `PlatformError`."""

    def start(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Start one; a name that runs or was stopped already is left alone."""

    def look(self, node: str, name: str) -> BurnerState:
        """Tell what one does; one that never was is gone."""

    def stop(self, node: str, name: str) -> None:
        """End one, and see to it that one of this name that is still being started ends at once."""

    def running(self, node: str) -> tuple[str, ...]:
        """Names of those that live."""


@dataclass(frozen=True, slots=True)
class BurnerFolder:
    """The state files of one node's burners, on the host that they run on."""

    path: Path

    def command(self, name: str, utilisation: float, seconds: float, *more: str) -> tuple[str, ...]:
        """Return the command line that starts one, with its folder made."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._tidy()
        return (
            *(sys.executable, "-m", "frangible.burner", "--state", str(self._state(name))),
            *("--utilisation", f"{utilisation:g}", "--seconds", f"{seconds:g}", *more),
        )

    def known(self, name: str) -> bool:
        """Whether one of this name was started, or stopped."""
        return self._state(name).exists() or self._stop(name).exists()

    def look(self, name: str) -> BurnerState:
        """Tell what one does, from its state file and its processes."""
        try:
            told = json.loads(self._state(name).read_text())
        except FileNotFoundError:
            return BurnerState(name, alive=False)
        alive = tuple(pid for pid in (told["pid"], *told["workers"]) if self._is_burner(pid, name))
        fresh = time.clock_gettime(time.CLOCK_BOOTTIME) - told["told"] < STALE
        whole = len(alive) == 1 + len(told["workers"])
        return BurnerState(name, bool(alive), told["achieved"] if whole and fresh else None, told["average"], told["duty"], alive)

    def stop(self, name: str) -> None:
        """Tell it to end, wait, kill what is left."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._stop(name).touch()
        end = time.monotonic() + GRACE
        while (state := self.look(name)).alive and time.monotonic() < end:
            time.sleep(0.02)
        for pid in state.processes:
            identity = ProcessIdentity.of(pid)
            if identity is not None and self._is_burner(pid, name):
                identity.kill()

    def running(self) -> tuple[str, ...]:
        """Names of those that live."""
        names = [file.name.removesuffix(SUFFIX) for file in self.path.glob(f"*{SUFFIX}")]
        return tuple(sorted(name for name in names if self.look(name).alive))

    def _tidy(self) -> None:
        """Remove what burners of days ago left; none of them lives that long."""
        for file in self.path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > KEPT:
                    file.unlink()

    def _is_burner(self, pid: int, name: str) -> bool:
        """Whether a process is this very burner: its command line names its state file, so a reused pid is told apart."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return os.fsencode(self._state(name)) in command.split(b"\0")  # empty for a zombie

    def _state(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
            raise PlatformError(f"{name!r} cannot name a burner: expected letters, digits and dashes")
        return self.path / f"{name}{SUFFIX}"

    def _stop(self, name: str) -> Path:
        return self._state(name).with_name(f"{name}{SUFFIX}.stop")


@dataclass(frozen=True, slots=True)
class HostBurners:
    """Burners on this very host, detached: they outlive whoever started them, until their deadline."""

    folder_of: Callable[[str], Path]

    def start(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Start one in a session of its own."""
        folder = BurnerFolder(self.folder_of(node))
        if not folder.known(name):
            _detached(folder.command(name, utilisation, seconds))

    def look(self, node: str, name: str) -> BurnerState:
        """Tell what one does."""
        return BurnerFolder(self.folder_of(node)).look(name)

    def stop(self, node: str, name: str) -> None:
        """End one."""
        BurnerFolder(self.folder_of(node)).stop(name)

    def running(self, node: str) -> tuple[str, ...]:
        """Names of those that live."""
        return BurnerFolder(self.folder_of(node)).running()


@dataclass(frozen=True, slots=True)
class RackBurners:
    """Burners that the lab's rack runs as processes of its nodes."""

    environment: str
    socket: Path
    host: Host = THIS_HOST

    def start(self, node: str, name: str, utilisation: float, seconds: float) -> None:
        """Ask for `burn`."""
        self._ask("burn", node, burner=name, utilisation=utilisation, seconds=seconds)

    def look(self, node: str, name: str) -> BurnerState:
        """Ask for `burner`."""
        reply = self._ask("burner", node, burner=name)
        try:
            achieved, average, duty, processes = reply["achieved"], reply["average"], reply["duty"], reply["processes"]
            pids = tuple(map(int, processes))  # type: ignore[call-overload]
            return BurnerState(name, bool(reply["alive"]), _number(achieved), _number(average), _number(duty), pids)
        except (KeyError, TypeError, ValueError) as error:
            raise PlatformError(f"environment {self.environment}, node {node}: the rack's answer about burner {name} cannot be read: {reply}") from error

    def stop(self, node: str, name: str) -> None:
        """Ask for `burn_stop`."""
        self._ask("burn_stop", node, burner=name)

    def running(self, node: str) -> tuple[str, ...]:
        """Ask for `burners`."""
        names = self._ask("burners", node)["burners"]
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def _ask(self, verb: str, node: str, **more: object) -> dict[str, object]:
        who = f"environment {self.environment}, node {node}: rack {self.socket}: {verb}"
        return self.host.ask_rack(self.socket, {"do": verb, "environment": self.environment, "node": node, **more}, who, DEADLINE)


def _number(value: object) -> float | None:
    return None if value is None else float(str(value))


def _detached(command: Sequence[str]) -> None:
    """Start a process that is nobody's child: a shell starts it in the background and ends."""
    script = 'exec </dev/null >/dev/null 2>&1; "$@" &'
    try:
        subprocess.run(["/bin/sh", "-c", script, "sh", *command], start_new_session=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise PlatformError(f"a burner could not be started on this host: {error}") from error
