"""Stop every process of some containers of this node: `python3 -m frangible.helper.pause --lease L --seconds 60 --containers ID,ID`.

The pod needs the node's process ids (`hostPID`) and must be privileged.
"""

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from frangible.helper.holding import hold
from frangible.helper.notes import Note, Process, all_notes, processes

__all__ = ["Pause", "container_of", "inside", "main"]

TURNS = 50
"""How often processes that were only just started are looked for, before what was found counts as all."""
SETTLE = 0.02
"""Seconds that a stopped process has until the kernel calls it so."""


def container_of(cgroup: str, containers: Sequence[str]) -> str:
    """Return which of these containers a process is in, from its /proc/PID/cgroup; empty for none of them.

    Whatever the hierarchy (cgroup v1 or v2) and the driver (`.../pod<uid>/<id>` or `...-pod<uid>.slice/cri-containerd-<id>.scope`), and from
    whatever namespace it is read, one part of some line's path holds the container's id, which is 64 hexadecimal digits.
    """
    parts = {part for line in cgroup.splitlines() for part in line.rpartition(":")[2].split("/")}
    return next((one for one in containers if any(one in part for part in parts)), "")


def inside(containers: Sequence[str]) -> dict[str, list[Process]]:
    """Return the processes that run in each of these containers; one without any is missing."""
    found: dict[str, list[Process]] = {}
    for process in processes():
        try:
            container = container_of(Path(f"/proc/{process.pid}/cgroup").read_text(), containers)
        except OSError:
            continue
        if container:
            found.setdefault(container, []).append(process)
    return found


class Pause:
    """SIGSTOP whatever runs in the containers, SIGCONT what was stopped so."""

    def __init__(self, lease: str, containers: Sequence[str]) -> None:
        """Take the containers' ids, without the runtime's name before them."""
        self._lease = lease
        self._containers = tuple(containers)
        self._note = Note(lease)

    def begin(self) -> None:
        """Stop everything, also what is started while that goes on."""
        there = inside(self._containers)
        missing = [one[:12] for one in self._containers if one not in there]
        if missing:
            raise ValueError(f"no process of container {', '.join(missing)} on this node")
        for _ in range(TURNS):
            if not self._stop(inside(self._containers)):
                return
            time.sleep(SETTLE)

    def look(self) -> dict[str, object]:
        """Count processes and stopped ones of each container; what was started since is stopped too."""
        self._stop(inside(self._containers))
        time.sleep(SETTLE)
        return {"containers": {name: [len(them), sum(one.state == "T" for one in them)] for name, them in inside(self._containers).items()}}

    def undo(self) -> list[str]:
        """Let go on what was stopped, and nothing that was stopped before."""
        return [left for note in all_notes(self._lease) for left in note.undo()]

    def _stop(self, inside: Mapping[str, Sequence[Process]]) -> bool:
        """Note what runs, then stop it; return whether there was any."""
        running = [one for them in inside.values() for one in them if one.state != "T"]
        fresh = {one.pid: one.start for one in running}
        if fresh.items() - self._note.stopped.items():
            self._note.stopped |= fresh
            self._note.write()
        for one in running:
            one.signal(signal.SIGSTOP)
        return bool(running)


def main(arguments: Sequence[str]) -> int:
    """Pause until the deadline, SIGTERM or the pod's deletion."""
    parser = argparse.ArgumentParser(prog="pause", description="Stop every process of some containers of this node for a while.")
    parser.add_argument("--lease", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--containers", required=True, help="ids with commas")
    asked = parser.parse_args(arguments)
    return hold(Pause(asked.lease, asked.containers.split(",")), asked.seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
