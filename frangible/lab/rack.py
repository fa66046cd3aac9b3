"""The rack: the parent of all nodes of the lab. `python -m frangible.lab.rack FOLDER`.

It powers nodes off and on when asked over its Unix socket, and reaps what dies. It restarts nothing: a node that is off stays off.

One JSON object a line, each answered by one: `{"do": "power_off", "environment": "lab-london", "node": "app-1"}` -> `{"ok": true, ...}` or
`{"ok": false, "error": "..."}`. What may be asked for is in docs/lab.md, and in the answer to anything else.
"""

import json
import logging
import os
import signal
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frangible.errors import FrangibleError, LabError
from frangible.lab.layout import EnvironmentSpec, Folder, node_key
from frangible.lab.machines import Machine, Outside, Roots, spawn_environment
from frangible.lab.node import become_subreaper
from frangible.lab.programs import outside_programs, prometheus_program
from frangible.lab.state import LabState
from frangible.lab.supervised import Supervised
from frangible.process import ProcessIdentity

__all__ = ["Rack", "main"]

type Message = dict[str, Any]

log = logging.getLogger("rack")


class Rack:
    """All machines of the lab, and what loads and observes them."""

    def __init__(self, state: LabState) -> None:
        """Build the machines, all off."""
        self.state = state
        self.folder = Folder(state.folder)
        roots: Roots = set()
        self.machines = {node_key(spec.name, node.name): Machine(state, spec, node, roots) for spec in state.estate for node in spec.nodes}
        self.outside = [Outside(state, OUTSIDE_OF_ALL, prometheus_program(state), roots)]
        self.outside += [Outside(state, spec.name, program, roots) for spec in state.estate for program in outside_programs(state, spec)]
        self.ended = threading.Event()

    def start(self) -> None:
        """Power everything on."""
        for machine in self.machines.values():
            machine.power_on()
        for program in self.outside:
            program.start()

    def answer(self, request: Message) -> Message:
        """Do what one request asks."""
        doing: dict[str, Callable[[Message], Message]] = {
            "ping": lambda _: {"process": ProcessIdentity.current().to_json()},
            "node": lambda asked: self._machine(asked).look(),
            "nodes": lambda _: {"nodes": {key: machine.look() for key, machine in self.machines.items()}},
            "outside": lambda _: {"programs": [program.look() for program in self.outside]},
            "power_on": lambda asked: self._machine(asked).power_on(),
            "power_off": lambda asked: self._machine(asked).power_off(),
            "burn": lambda asked: self._machine(asked).burn(_burner(asked), float(asked["utilisation"]), float(asked["seconds"])),
            "burner": lambda asked: self._machine(asked).burner(_burner(asked)),
            "burn_stop": lambda asked: self._machine(asked).burn_stop(_burner(asked)),
            "burners": lambda asked: self._machine(asked).burners(),
            "service": lambda asked: self._services(asked).look(_service(asked)),
            "service_stop": lambda asked: self._services(asked).stop(_service(asked), _grace(asked)),
            "service_start": lambda asked: self._services(asked).start(_service(asked)),
            "service_pause": lambda asked: self._services(asked).pause(_service(asked)),
            "service_resume": lambda asked: self._services(asked).resume(_service(asked), _those(asked, "processes"), _those(asked, "leave")),
            "rate": self._rate,
            "shutdown": lambda _: self.shutdown(),
        }
        what = request.get("do")
        if what not in doing:
            raise LabError(f'expected "do" to be one of {", ".join(doing)}, found {what!r}')
        return doing[what](request)

    def _machine(self, request: Message) -> Machine:
        key = node_key(str(request.get("environment")), str(request.get("node")))
        try:
            return self.machines[key]
        except KeyError:
            raise LabError(f"no node {key!r} in this lab; there are {', '.join(self.machines)}") from None

    def _services(self, request: Message) -> Supervised:
        return self._machine(request).services

    def _environment(self, request: Message) -> EnvironmentSpec:
        for spec in self.state.estate:
            if spec.name == request.get("environment"):
                return spec
        raise LabError(f"no environment {request.get('environment')!r} in this lab; there are {', '.join(spec.name for spec in self.state.estate)}")

    def _rate(self, request: Message) -> Message:
        """Tell, and where `rate` is given set, the orders offered a second."""
        file = self.folder.rate(self._environment(request).name)
        if "rate" in request:
            rate = request["rate"]
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 10_000:
                raise LabError(f"expected a rate from 0 to 10000 orders a second, found {rate!r}")
            fresh = file.with_suffix(".new")
            fresh.write_text(f"{rate!r}\n")
            fresh.replace(file)
        return {"rate": float(file.read_text())}

    def shutdown(self) -> Message:
        """End everything, outside first so that nobody counts what the end of the lab does; then the rack itself."""
        for program in self.outside:
            program.stop()
        for machine in self.machines.values():
            machine.power_off()
        self.ended.set()
        return {}


OUTSIDE_OF_ALL = "lab"
LONGEST_GRACE = 600


def _service(request: Message) -> str:
    return str(request.get("service"))


def _grace(request: Message) -> float:
    grace = request.get("grace", 0)
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= LONGEST_GRACE:
        raise LabError(f"expected a grace from 0 to {LONGEST_GRACE} seconds, found {grace!r}")
    return float(grace)


def _those(request: Message, key: str) -> frozenset[tuple[int, int]]:
    """Pid and start of the processes that a request names."""
    try:
        return frozenset((int(process["pid"]), int(process["start"])) for process in request.get(key, ()))
    except (KeyError, TypeError, ValueError):
        raise LabError(f'expected "{key}" to be a list of {{"pid": ..., "start": ...}}, found {request.get(key)!r}') from None


def _burner(request: Message) -> str:
    return str(request.get("burner"))


class _Handler(socketserver.StreamRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        for line in self.rfile:
            try:
                answer = {"ok": True, **self.server.rack.answer(json.loads(line))}
            except (FrangibleError, KeyError, ValueError, OSError) as error:
                log.warning("%s: %s", line.decode(errors="replace").strip(), error)
                answer = {"ok": False, "error": str(error)}
            try:
                self.wfile.write(json.dumps(answer).encode() + b"\n")
            except OSError:
                return


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        # A Unix socket's path is limited to 107 bytes, so it is bound by its name alone, from inside the folder.
        os.chdir(rack.folder.path)
        name = rack.folder.socket.name
        Path(name).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            super().__init__(name, _Handler)
        finally:
            os.umask(before)


def _reap() -> None:
    """Collect whatever died below the rack, orphans of nodes too: an uncollected PostgreSQL could not be started again."""
    wake = threading.Event()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            wake.wait(0.05)  # nothing runs below the rack right now


def _detach() -> None:
    """Leave the caller's session and terminal: the lab lives on when they close."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()


def main(folder: Path) -> None:
    """Run the rack of one lab until it is told to shut down."""
    _detach()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    state = LabState.read(folder)
    if state is None:
        raise LabError(f"no lab in {folder}; start one with `frangible lab up`")
    become_subreaper()
    state = state.with_rack(ProcessIdentity.current())
    state.write()
    os.environ.update(spawn_environment(state.folder))
    rack = Rack(state)
    threading.Thread(target=_reap, name="reaper", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: rack.ended.set())
    with _Server(rack) as server:
        threading.Thread(target=server.serve_forever, name="socket", daemon=True).start()
        rack.start()
        while not rack.ended.wait(3600):
            continue
        rack.shutdown()
        threading.Event().wait(0.05)  # the answer to `shutdown` is on its way
        server.shutdown()
    rack.folder.socket.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
