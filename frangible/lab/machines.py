"""What the rack holds: machines (nodes) that are powered off and on as a whole, and single programs outside of them."""

import dataclasses
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

from frangible.errors import LabError
from frangible.lab.layout import EnvironmentSpec, Folder, NodeSpec, node_key
from frangible.lab.programs import Program, node_programs
from frangible.lab.state import LabState
from frangible.lab.supervised import Supervised, healthy
from frangible.lab.tree import LAB_VARIABLE, NODE_VARIABLE, Process, descendants, environment_of, find, kill, kill_until_gone, snapshot, still
from frangible.platforms.burning import BurnerFolder

__all__ = ["LAB_VARIABLE", "Machine", "Outside", "Roots", "spawn_environment"]

type Roots = set[tuple[int, int]]
"""Pid and start of everything that the rack has started itself. Its other children are orphans of some node."""


def spawn_environment(folder: Path) -> dict[str, str]:
    """Environment variables of everything in the lab: whose it is, and unbuffered logs."""
    return {LAB_VARIABLE: str(folder), "PYTHONUNBUFFERED": "1"}


def _spawn(command: tuple[str, ...], log: Path, node: str) -> Process | None:
    """Start a program in a session of its own, with its output in a log and nothing inherited; None when it has ended already."""
    # Coverage measures the program under test, not the estate that it is tested on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE_"))}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        command,
        {**environment, NODE_VARIABLE: node},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
        setsigmask=[],
    )
    return find(pid)


class Machine:
    """One node. Its requests are served one after the other."""

    def __init__(self, state: LabState, environment: EnvironmentSpec, node: NodeSpec, roots: Roots) -> None:
        """Describe the node; it is off."""
        self._roots = roots
        self._key = node_key(environment.name, node.name)
        self._home = Folder(state.folder).node(environment.name, node.name)
        self._log = Folder(state.folder).log(environment.name, node.name, "supervisord")
        self._programs = tuple(node_programs(state, environment, node))
        self._burners = BurnerFolder(self._home / "burners")
        self.services = Supervised(self._key, self._programs, state.ports[f"{self._key}/supervisord"], state.password, self._has_root)
        self._lock = threading.Lock()
        self._root: Process | None = None
        self._instance = ""

    def power_on(self) -> dict[str, Any]:
        """Start the node's supervisord unless the node is on."""
        with self._lock:
            if not self._members():
                # The node's tree is empty, so whoever this file names is not our PostgreSQL; its number may be somebody else's by now.
                (self._home / "postgres" / "postmaster.pid").unlink(missing_ok=True)
                command = (sys.executable, "-m", "frangible.lab.node", str(self._home / "supervisord.conf"))
                self._root = _spawn(command, self._log, self._key)
                if self._root is None:
                    raise LabError(f"the supervisord of {self._key} ended at once; read {self._log}")
                self._roots.add((self._root.pid, self._root.start))
                self._instance = uuid4().hex
            return {"powered": True, "instance": self._instance}

    def power_off(self) -> dict[str, Any]:
        """Kill the node's whole process tree and return when nothing of it is left."""
        with self._lock:
            root = self._root
            if root is not None:
                # A stopped supervisord starts nothing anew while its children die, and stays their ancestor.
                self._signal(root, signal.SIGSTOP)
                kill_until_gone(lambda: [process for process in self._members() if process.pid != root.pid])
                kill(root)
            kill_until_gone(self._members)
            self._root, self._instance = None, ""
            return {"powered": False}

    def look(self) -> dict[str, Any]:
        """Tell the node's state with its live processes."""
        with self._lock:
            members, instance = self._members(), self._instance
            root = self._root
        powered = bool(members)
        whole = root is not None and any(process.pid == root.pid for process in members)
        return {
            "powered": powered,
            "instance": instance if powered else "",
            "ready": whole and self._ready(),
            "processes": [{"pid": process.pid, "start": process.start} for process in members],
            "cpu_seconds": sum(process.cpu_seconds for process in members),
        }

    def burn(self, name: str, utilisation: float, seconds: float) -> dict[str, Any]:
        """Start a burner as a process of this node, which it dies with; a name is started once, and never after its stop."""
        with self._lock:
            root = self._root
            if root is None or not still(root.pid, root.start):
                raise LabError(f"{self._key} is off, so nothing can burn its CPUs")
            if not self._burners.known(name):
                cpus = ",".join(map(str, sorted(os.sched_getaffinity(root.pid))))
                command = self._burners.command(name, utilisation, seconds, "--cpus", cpus, "--parent", str(os.getpid()))
                # Not one of the rack's roots: a child of the rack that was born on a node belongs to that node.
                _spawn(command, self._log, self._key)
            return {}

    def burner(self, name: str) -> dict[str, Any]:
        """Tell what a burner does."""
        return dataclasses.asdict(self._burners.look(name))

    def burn_stop(self, name: str) -> dict[str, Any]:
        """End a burner."""
        with self._lock:
            self._burners.stop(name)
            return {}

    def burners(self) -> dict[str, Any]:
        """Name the burners that live."""
        return {"burners": list(self._burners.running())}

    def _members(self) -> list[Process]:
        """The node's processes: its root's tree, and what was orphaned to the rack when the root died by another hand."""
        processes = snapshot()
        root = self._root
        found = []
        if root is not None and (live := processes.get(root.pid)) is not None and live.start == root.start:
            found = [live, *descendants(root.pid, processes)]
        known = {process.pid for process in found}
        for process in processes.values():
            orphan = process.parent == os.getpid() and (process.pid, process.start) not in self._roots
            if orphan and process.pid not in known and self._is_ours(process.pid):
                found += [process, *descendants(process.pid, processes)]
        return found

    def _is_ours(self, pid: int) -> bool:
        """Whether an orphan was born on this node. PostgreSQL overwrites its environment, but works inside its data folder."""
        born_on = environment_of(pid).get(NODE_VARIABLE)
        if born_on is not None:
            return born_on == self._key
        try:
            return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self._home)
        except OSError:
            return False

    def _ready(self) -> bool:
        return self.services.all_running() and all(map(healthy, self._programs))

    def _has_root(self) -> bool:
        """Whether the node's first process lives: without it no service can be switched."""
        root = self._root
        return root is not None and still(root.pid, root.start)

    @staticmethod
    def _signal(process: Process, number: signal.Signals) -> None:
        if still(process.pid, process.start):
            os.kill(process.pid, number)


class Outside:
    """One program outside all nodes, such as an environment's generator."""

    def __init__(self, state: LabState, place: str, program: Program, roots: Roots) -> None:
        """Describe the program; it does not run."""
        self._roots = roots
        self._program = program
        self._place = place
        self._log = Folder(state.folder).log(place, program.name)
        self._process: Process | None = None
        self._started = False

    def start(self) -> None:
        """Start it."""
        self._process = process = _spawn(self._program.command, self._log, f"outside {self._place}")
        if process is not None:
            self._roots.add((process.pid, process.start))
        self._started = True

    def stop(self) -> None:
        """Kill it with whatever it started."""
        process = self._process
        if process is not None:
            kill_until_gone(lambda: self._members(process))

    def look(self) -> dict[str, Any]:
        """Tell whether it is healthy."""
        members = self._members(self._process) if self._process else []
        return {
            "place": self._place,
            "name": self._program.name,
            "port": self._program.port,
            "started": self._started,
            "ready": bool(members) and healthy(self._program),
            "processes": [{"pid": process.pid, "start": process.start} for process in members],
            "cpu_seconds": sum(process.cpu_seconds for process in members),
        }

    @staticmethod
    def _members(process: Process) -> list[Process]:
        processes = snapshot()
        live = processes.get(process.pid)
        return [live, *descendants(live.pid, processes)] if live is not None and live.start == process.start else []
