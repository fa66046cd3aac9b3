"""Bringing the lab up and down: everything or nothing."""

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from frangible.errors import LabError
from frangible.lab.client import ask
from frangible.lab.files import remove_data, write_all
from frangible.lab.layout import Folder, chosen, node_key
from frangible.lab.machines import LAB_VARIABLE
from frangible.lab.parts import find_tools
from frangible.lab.ports import choose_ports
from frangible.lab.programs import port_names
from frangible.lab.state import LabState
from frangible.lab.survey import survey
from frangible.lab.tree import Process, environment_of, kill_until_gone, snapshot
from frangible.process import ProcessIdentity

__all__ = ["down", "status", "up"]

UP_WITHIN = 120.0
"""Seconds after which starting is given up; it takes about ten on two idle CPUs."""
POLL = 0.2


def status(folder: Path) -> LabState | None:
    """Return the running lab of a folder, or None when there is none."""
    state = LabState.read(folder.resolve())
    return state if state is not None and state.alive else None


def up(folder: Path, progress: Callable[[str], None], environments: tuple[str, ...] = ()) -> LabState:
    """Start the lab in a folder and return once orders flow in time and Prometheus has seen them.

    A lab that runs already is returned as it is. When starting fails, nothing is left running and the `LabError` names the log to read.
    """
    wanted = tuple(spec.name for spec in chosen(environments))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # PostgreSQL, which may run as another user, passes through; others may not list.
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with _working(folder):
        running = status(folder)
        if running is not None:
            missing = [name for name in wanted if environments and name not in {spec.name for spec in running.estate}]
            if missing:
                raise LabError(f"the lab is up already, without {', '.join(missing)}; take it down with `frangible lab down`, then start it with them")
            progress(f"the lab is up already: {folder}")
            return running
        _remove(folder)
        with contextlib.ExitStack() as undo:
            undo.callback(_remove, folder, Folder(folder).logs)
            state = _start(folder, progress, wanted)
            undo.pop_all()
    return state


def down(folder: Path, *, keep_data: bool = False) -> bool:
    """End every process of the lab in a folder and remove its data; return whether there was anything. Works without a rack too."""
    folder = folder.resolve()
    if not folder.exists():
        return False
    with _working(folder):
        found = Folder(folder).state.exists() or bool(_processes(folder))
        _end_processes(folder)
        Folder(folder).socket.unlink(missing_ok=True)
        Folder(folder).state.unlink(missing_ok=True)
        if not keep_data:
            remove_data(folder)
            folder.rmdir()
    return found


@contextlib.contextmanager
def _working(folder: Path) -> Iterator[None]:
    """One `up` or `down` at a time."""
    lock = Folder(folder).lock
    while True:
        with lock.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # A `down` that held the lock before us has removed the file that we have just locked.
            try:
                same = os.fstat(stream.fileno()).st_ino == lock.stat().st_ino
            except FileNotFoundError:
                same = False
            if same:
                yield
                return
        folder.mkdir(parents=True, exist_ok=True)


def _start(folder: Path, progress: Callable[[str], None], environments: tuple[str, ...]) -> LabState:
    began = time.monotonic()
    tools = find_tools()
    found = ", ".join(f"{name} {number}" for name, number in tools.versions.items())
    progress(f"parts: {found}")
    state = LabState(folder, None, choose_ports(port_names(chosen(environments))), secrets.token_urlsafe(24), tools, environments)
    estate = state.estate
    progress("making databases and the configuration")
    write_all(state)
    progress(f"starting {sum(len(spec.nodes) for spec in estate)} nodes in {len(estate)} environments")
    _start_rack(folder)
    state = _wait_for_rack(folder)
    _wait_for(lambda: _nodes_not_ready(state), "nodes", state, began)
    progress("nodes are ready, waiting for orders in Prometheus")
    for spec in estate:  # only now: what was offered before would have to be worked off, by some for minutes
        ask(folder, {"do": "rate", "environment": spec.name, "rate": spec.rate})
    _wait_for(lambda: _environments_without_orders(state), "orders acknowledged in time in", state, began)
    state = state.with_headroom(_headroom(state))
    state.write()
    progress(f"up after {time.monotonic() - began:.1f} s: orders flow in {', '.join(spec.name for spec in estate)}")
    return state


def _headroom(state: LabState) -> dict[str, float]:
    """Measure what each node has left of the CPUs that it declares, now that orders flow."""
    views = survey(state)
    found = {node_key(view.name, node.name): node.headroom for view in views for node in view.nodes}
    return {key: round(headroom, 4) for key, headroom in found.items() if headroom is not None}


def _start_rack(folder: Path) -> None:
    log = Folder(folder).log("lab", "rack")
    with log.open("a") as output:
        # The rack detaches itself: this returns at once.
        command = [sys.executable, "-m", "frangible.lab.rack", str(folder)]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True, cwd="/", start_new_session=True)


def _wait_for_rack(folder: Path) -> LabState:
    deadline = time.monotonic() + 15
    while True:
        try:
            ask(folder, {"do": "ping"})
        except LabError as error:
            if time.monotonic() > deadline:
                raise LabError(f"the rack did not start; read {Folder(folder).log('lab', 'rack')}") from error
            time.sleep(0.05)
        else:
            state = status(folder)
            if state is not None:
                return state


def _wait_for(missing: Callable[[], list[str]], what: str, state: LabState, began: float) -> None:
    """Wait until nothing is missing any more."""
    while names := missing():
        if not state.alive:
            raise LabError(f"the rack has died while the lab started; read {Folder(state.folder).log('lab', 'rack')}")
        if time.monotonic() > began + UP_WITHIN:
            logs = Folder(state.folder).logs
            raise LabError(f"the lab is not up after {UP_WITHIN:.0f} s: still no {what} {', '.join(names)}; read the logs of those in {logs}")
        time.sleep(POLL)


def _nodes_not_ready(state: LabState) -> list[str]:
    nodes = ask(state.folder, {"do": "nodes"})["nodes"]
    programs = ask(state.folder, {"do": "outside"})["programs"]
    for one in programs:
        if one["started"] and not one["processes"]:  # nobody restarts these
            raise LabError(f"{one['name']} has ended while the lab started; read {Folder(state.folder).log(one['place'], one['name'])}")
    return [key for key, node in nodes.items() if not node["ready"]] + [f"{one['place']}/{one['name']}" for one in programs if not one["ready"]]


SEEN = 'sum by (environment) (order_outcomes_total{outcome="in_time"}) > 20 and sum by (environment) (1 - up{environment!=""}) == 0'


def _environments_without_orders(state: LabState) -> list[str]:
    """Environments of which Prometheus has not yet seen orders in time and every target."""
    query = urllib.parse.urlencode({"query": SEEN})
    try:
        with urllib.request.urlopen(f"{state.prometheus_url}/api/v1/query?{query}", timeout=2) as response:  # noqa: S310
            found = json.load(response)["data"]["result"]
    except (OSError, ValueError):
        return ["prometheus"]
    seen = {series["metric"]["environment"] for series in found}
    return [spec.name for spec in state.estate if spec.name not in seen]


def _remove(folder: Path, *keep: Path) -> None:
    """End and remove whatever an earlier or a failed lab left."""
    _end_processes(folder)
    remove_data(folder, Folder(folder).lock, *keep)


def _end_processes(folder: Path) -> None:
    """Ask the rack to end everything; then, rack or not, kill every process that carries the lab's mark."""
    with contextlib.suppress(LabError):
        ask(folder, {"do": "shutdown"})
    kill_until_gone(lambda: _processes(folder), limit=10)


def _processes(folder: Path) -> list[Process]:
    """Live processes of the lab: the rack, and all that carry its mark."""
    state = LabState.read(folder)
    rack = state.rack if state is not None else None
    return [process for process in snapshot().values() if process.pid != os.getpid() and _belongs(process, folder, rack)]


def _belongs(process: Process, folder: Path, rack: ProcessIdentity | None) -> bool:
    if rack is not None and rack.is_alive() and (rack.pid, rack.start) == (process.pid, process.start):
        return True
    if environment_of(process.pid).get(LAB_VARIABLE) == str(folder):
        return True
    # PostgreSQL overwrites its environment; it works inside its data folder.
    try:
        links = Path(f"/proc/{process.pid}/exe"), Path(f"/proc/{process.pid}/cwd")
        program, place = (link.readlink() for link in links)
    except OSError:
        return False
    return program.name == "postgres" and place.is_relative_to(folder)
