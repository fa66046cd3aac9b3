"""Who a process is: pid alone is reused, so start time and boot id belong to it."""

import os
import signal
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["ProcessIdentity", "boot_id"]


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot (proc(5), random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on (proc(5)), or None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot of one host; equality means the very same process."""

    host: str
    boot: str
    pid: int
    start: int
    """Start time in clock ticks after boot (proc(5), field 22)."""

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """Return the identity of a live local process, or None when it is gone or a zombie."""
        fields = _stat_fields(pid)
        if fields is None or fields[0] in {"Z", "X"}:
            return None
        return cls(socket.gethostname(), boot_id(), pid, int(fields[19]))

    @classmethod
    def current(cls) -> "ProcessIdentity":
        """Return this process's own identity."""
        identity = cls.of(os.getpid())
        if identity is None:  # pragma: no cover - a running process is in /proc
            raise ProcessLookupError(os.getpid())
        return identity

    @property
    def is_local(self) -> bool:
        """Whether this host, in this boot, is where the process was seen."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether the very same process still runs here; a zombie does not. Only for local ones."""
        return self.boot == boot_id() and ProcessIdentity.of(self.pid) == self

    def kill(self, *, wait: float = 5.0) -> bool:
        """SIGKILL the process if it is still the same one, wait for its death; return whether it is dead.

        A pidfd (pidfd_open(2)) closes the gap between looking and killing.
        """
        if not self.is_local:
            return False
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.is_alive():
                return True
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return True
        finally:
            os.close(descriptor)
        deadline = time.monotonic() + wait
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def to_json(self) -> dict[str, str | int]:
        """Plain form for a database row or a file."""
        return {"host": self.host, "boot": self.boot, "pid": self.pid, "start": self.start}

    @classmethod
    def from_json(cls, data: "dict[str, str | int]") -> "ProcessIdentity":
        """Inverse of `to_json`; raises KeyError or ValueError on anything else."""
        return cls(str(data["host"]), str(data["boot"]), int(data["pid"]), int(data["start"]))
