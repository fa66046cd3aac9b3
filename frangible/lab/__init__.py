"""The embedded lab: a miniature trading estate made of real parts, in one folder, on loopback, without root.

`up(folder, progress)`, `down(folder)` and `status(folder)`; `docs/lab.md` says what is in it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.lab.state import LabState

__all__ = ["down", "log_files", "status", "up"]

# The lab's programs import this package when they start: what only its user needs is imported late.


def up(folder: Path, progress: Callable[[str], None], environments: tuple[str, ...] = ()) -> "LabState":
    """Start the lab in a folder; return once orders flow in time in each environment and Prometheus has seen them.

    It has the environments that are named, all of the estate where none is.
    Raise `LabError`, with nothing left running, when that fails. A lab that is up already is returned as it is.
    """
    from frangible.lab import lifecycle

    return lifecycle.up(folder, progress, environments)


def down(folder: Path, *, keep_data: bool = False) -> bool:
    """End every process of the lab in a folder, remove its data, return whether there was anything."""
    from frangible.lab import lifecycle

    return lifecycle.down(folder, keep_data=keep_data)


def status(folder: Path) -> "LabState | None":
    """Return the running lab of a folder, or None."""
    from frangible.lab import lifecycle

    return lifecycle.status(folder)


def log_files(folder: Path) -> tuple[Path, ...]:
    """Return the lab's logs, sorted by name: ENVIRONMENT_NODE_PROGRAM.log."""
    from frangible.lab.layout import Folder

    return tuple(sorted(Folder(folder).logs.glob("*.log")))
