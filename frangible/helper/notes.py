"""What was done to a node, written down on the node before it is done, and undone from there by whoever is left.

A note lies in the node's /run, which a reboot empties together with everything that a note can speak of.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Note", "Process", "all_notes", "on_node", "processes"]

ROOT = Path("/proc/1/root")
"""The node's own file system, seen through its first process: the pod shares the node's process ids."""
FOLDER = ROOT / "run/frangible"
CLONE_NEWNS = 0x00020000
"""From <linux/sched.h>."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the node: a pid is reused, its start time is not."""

    pid: int
    start: int
    """Clock ticks after boot (proc(5), field 22)."""
    state: str
    """Letter of its state (proc(5), field 3): T is stopped, Z has ended."""

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return a process as it is now, or None when there is none, or it has ended."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]), fields[0])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, if it is still there."""
        now = Process.of(self.pid)
        if now is not None and now.start == self.start:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def processes() -> Iterator[Process]:
    """Yield every process of the node."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := Process.of(int(entry.name))) is not None:
            yield found


def on_node(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of the node's own, in its file system; raises OSError where the node has no such command."""

    def enter() -> None:
        os.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), CLONE_NEWNS)
        os.chdir("/")

    return subprocess.run(
        command, input=text, text=True, capture_output=True, timeout=10, check=False, preexec_fn=enter, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    )


@dataclass(slots=True)
class Note:
    """What one lease did to this node."""

    lease: str
    stopped: dict[int, int] = field(default_factory=dict)
    """Processes that were stopped: pid to start time."""
    table: str = ""
    """The nft table that drops the node's traffic."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / f"{self.lease}.json"

    def write(self) -> None:
        """Put it on the node, whole or not at all."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"lease": self.lease, "stopped": sorted(self.stopped.items()), "table": self.table}))
        fresh.replace(self.path)

    def undo(self) -> list[str]:
        """Undo all of it, then forget it; return what could not be undone. Idempotent."""
        left = [*self._continue(), *self._connect()]
        if not left:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                FOLDER.rmdir()
        return left

    def _continue(self) -> list[str]:
        for pid, start in self.stopped.items():
            Process(pid, start, "").signal(signal.SIGCONT)
        there = [now for pid, start in self.stopped.items() if (now := Process.of(pid)) is not None and now.start == start]
        return [f"process {now.pid} is still stopped" for now in there if now.state == "T"]

    def _connect(self) -> list[str]:
        if not self.table:
            return []
        done = on_node("nft", "delete", "table", "inet", self.table)
        gone = done.returncode == 0 or on_node("nft", "list", "table", "inet", self.table).returncode != 0
        return [] if gone else [f"table {self.table}: {done.stderr.strip()}"]


def all_notes(lease: str = "") -> Sequence[Note]:
    """Return the notes that lie on this node, or those of one lease."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        data = json.loads(path.read_text())
        if lease in {"", data["lease"]}:
            found.append(Note(data["lease"], dict(data["stopped"]), data["table"]))
    return found
