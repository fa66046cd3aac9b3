"""How files and facts of a target's host are reached: the few calls that `hosts` needs, over one transport a class.

A transport for OpenSSH needs the same five calls and nothing else, so faults, leases and locks never learn where a host is.
"""

import os
import platform as host
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from frangible.errors import PlatformError

__all__ = ["LocalTransport", "Transport"]


class Transport(Protocol):
    """Small text files and facts on the host where targets live. Every call raises `PlatformError`.

    Paths are absolute. A file is either wholly there or not at all, whatever dies in the middle.
    """

    kind: str

    def read(self, path: Path) -> str | None:
        """Return the text of a file, or None where there is none."""

    def write(self, path: Path, text: str) -> None:
        """Replace a file durably; missing folders are made. It survives a loss of power once this returned."""

    def delete(self, path: Path) -> None:
        """Remove a file durably, with whatever an interrupted write left of it; missing is fine."""

    def entries(self, folder: Path) -> tuple[str, ...]:
        """Return the names in a folder, sorted, unfinished writes left out; empty where there is no folder."""

    def facts(self) -> Mapping[str, str]:
        """Kernel, operating system and CPUs of the host: dotted names, sorted."""


class LocalTransport:
    """Targets on this very host. File system calls cannot be given a deadline: a hung mount hangs them."""

    kind = "local"

    def read(self, path: Path) -> str | None:
        """Return the text of a file, or None where there is none."""
        return _explained("read", path, lambda: _read(path))

    def write(self, path: Path, text: str) -> None:
        """Write beside the file, sync, rename over it, sync the folder: rename(2) is atomic, fsync(2) makes it last."""
        _explained("write", path, lambda: _write(path, text))

    def delete(self, path: Path) -> None:
        """Remove a file and its unfinished writes, and sync the folder; missing is fine."""
        _explained("delete", path, lambda: _delete(path))

    def entries(self, folder: Path) -> tuple[str, ...]:
        """Return the names in a folder, sorted; names that start with a dot are unfinished writes."""
        return _explained("list", folder, lambda: _entries(folder))

    def facts(self) -> Mapping[str, str]:
        """Look at this host through uname(2) and os-release(5)."""
        try:
            system = host.freedesktop_os_release().get("PRETTY_NAME", "unknown")
        except OSError:
            system = "unknown"  # os-release is optional, and a container may lack it
        return {
            "cpu.count": str(os.cpu_count() or "unknown"),
            "host.machine": host.machine(),
            "kernel.release": host.release(),
            "os.name": system,
            "python.version": host.python_version(),
        }


def _explained[Result](verb: str, path: Path, call: Callable[[], Result]) -> Result:
    try:
        return call()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PlatformError(
            f"transport local: cannot {verb} {path}: {reason}; frangible needs to read and write there: check the inventory's "
            f"`platform.root`, the folder's permissions, and free space"
        ) from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, text: str) -> None:
    _make_folders(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - from a descriptor
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:  # an interrupt as well must leave nothing half-written behind
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _make_folders(folder: Path) -> None:
    """Like mkdir -p, with each new folder's own entry synced: an fsync of the file alone does not keep its path."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _delete(path: Path) -> None:
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        # A writer that was killed in the middle leaves its unfinished file: whoever deletes means that too.
        if name == path.name or name.startswith(f".{path.name}."):
            path.with_name(name).unlink(missing_ok=True)
    _sync_folder(path.parent)


def _entries(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(name for name in os.listdir(folder) if not name.startswith(".")))  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
