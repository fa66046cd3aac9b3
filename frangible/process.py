"""Who a process is: pid alone is reused, so start time and boot id belong to it. Where only containers are seen, who a container is."""

import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

__all__ = ["ContainerIdentity", "Identity", "ProcessIdentity", "boot_id", "counted", "host_processes", "identity_from_json"]


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


@dataclass(frozen=True, slots=True)
class ContainerIdentity:
    """One container of one pod of a cluster; equality means the very same start of it: what a platform sees of processes that it cannot look into."""

    node: str
    pod: str
    """`NAMESPACE/NAME`; pods of a StatefulSet have the same name again."""
    uid: str
    """The pod's own, never given twice."""
    container: str
    """The runtime's id, such as `containerd://5f1c...`; each restart has another."""

    def to_json(self) -> dict[str, str | int]:
        """Plain form for a lease."""
        return asdict(self)


type Identity = ProcessIdentity | ContainerIdentity
"""What lives of a node or a service, as exactly as its platform can tell."""


def identity_from_json(data: Mapping[str, object]) -> Identity:
    """Inverse of the `to_json` of either; raises KeyError or ValueError on anything else."""
    if "container" in data:
        return ContainerIdentity(*(str(data[name]) for name in ("node", "pod", "uid", "container")))
    return ProcessIdentity.from_json({name: str(data[name]) for name in ("host", "boot", "pid", "start")})


def counted(identities: tuple[Identity, ...]) -> str:
    """Say in words how many there are: `12 processes`, `1 container`."""
    what = ("container", "containers") if any(isinstance(identity, ContainerIdentity) for identity in identities) else ("process", "processes")
    return f"{len(identities)} {what[len(identities) != 1]}"


def host_processes(identities: tuple[Identity, ...]) -> tuple[ProcessIdentity, ...]:
    """Return those that are processes of a host."""
    return tuple(identity for identity in identities if isinstance(identity, ProcessIdentity))
