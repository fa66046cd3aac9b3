"""The services of one node, as its supervisord runs them: looked at, stopped so that they stay stopped, started, paused and resumed."""

import base64
import http.client
import socket
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterable
from signal import SIGCONT
from typing import Any

from frangible.errors import LabError
from frangible.lab.programs import Program
from frangible.lab.tree import Process, descendants, freeze, kill_until_gone, send, snapshot

__all__ = ["Supervised", "healthy"]

type Identities = frozenset[tuple[int, int]]
"""Pid and start of processes."""

PROBE_TIMEOUT = 0.5
SWITCH_TIMEOUT = 5.0
"""Seconds that supervisord has to answer when a service is looked at or switched."""
LONGEST_START = 120.0
"""Seconds for which a started service is watched until it is ready."""
NOT_RUNNING, ALREADY_STARTED = 70, 60
"""Faults of supervisord (supervisor.xmlrpc.Faults) that mean: it is so already."""


def healthy(program: Program) -> bool:
    """Whether a program answers where it should."""
    try:
        if program.health is None:
            with socket.create_connection(("127.0.0.1", program.port), PROBE_TIMEOUT):
                return True
        connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=PROBE_TIMEOUT)
        try:
            connection.request("GET", program.health)
            return connection.getresponse().status == http.client.OK
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


class _Impatient(xmlrpc.client.Transport):
    """XML-RPC with a deadline."""

    def __init__(self, credentials: str, timeout: float) -> None:
        super().__init__(headers=[("Authorization", f"Basic {credentials}")])
        self._timeout = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401 - the type it has in xmlrpc.client
        connection = super().make_connection(host)
        connection.timeout = self._timeout
        return connection


class Supervised:
    """One node's services. They are switched one after the other; looking waits for nobody."""

    def __init__(self, key: str, programs: tuple[Program, ...], port: int, password: str, node_is_on: Callable[[], bool]) -> None:
        """Describe them; supervisord is asked when something is wanted of it."""
        self._key = key
        self._programs = {program.name: program for program in programs}
        self._address = f"http://127.0.0.1:{port}/RPC2"
        self._credentials = base64.b64encode(f"lab:{password}".encode()).decode()
        self._node_is_on = node_is_on
        self._switching = threading.Lock()
        self._stopped_at: dict[str, float] = {}
        self._ready_after: dict[str, float] = {}

    def all_running(self) -> bool:
        """Whether supervisord says RUNNING of every program."""
        try:
            states = self._ask("getAllProcessInfo", timeout=PROBE_TIMEOUT)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False
        return len(states) == len(self._programs) and all(program["statename"] == "RUNNING" for program in states)

    def look(self, name: str) -> dict[str, Any]:
        """Tell the state of one service with its live processes; `ready_after` counts from its last stop."""
        program = self._program(name)
        members = self._members(self._main(name))
        main = members[0] if members else None
        stopped = [process for process in members if process.stopped]
        return {
            "running": main is not None,
            "instance": f"{main.pid}-{main.start}" if main is not None else "",
            "ready": main is not None and not stopped and healthy(program),
            "ready_after": self._ready_after.get(name) if main is not None else None,
            "processes": _plain(members),
            "paused": _plain(stopped),
        }

    def stop(self, name: str, grace: float) -> dict[str, Any]:
        """Have it end by itself within `grace` seconds, else, or at once where that is 0, kill all of it. It stays stopped."""
        self._program(name)
        with self._switching:
            if self._node_is_on():
                self._stop(name, grace)
        return {}

    def _stop(self, name: str, grace: float) -> None:
        known = {process.pid: process for process in self._members(self._main(name))}

        def alive() -> list[Process]:
            """Its processes and whatever descends from them, orphans too."""
            processes = snapshot()
            for process in [*known.values(), *self._members(self._main(name))]:
                live = processes.get(process.pid)
                if live is not None and live.start == process.start:
                    known.update({each.pid: each for each in (live, *descendants(live.pid, processes))})
            return [live for pid, process in known.items() if (live := processes.get(pid)) is not None and live.start == process.start]

        if known:
            self._ready_after.pop(name, None)
            self._stopped_at[name] = time.monotonic()
        if grace <= 0:
            freeze(alive)  # so that it cannot act on the signal that supervisord sends first
        self._switch("stopProcess", name, NOT_RUNNING)
        deadline = time.monotonic() + grace
        while grace > 0 and alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        kill_until_gone(alive)

    def start(self, name: str) -> dict[str, Any]:
        """Start it unless it runs."""
        self._program(name)
        with self._switching:
            self._need_node(name)
            deadline = time.monotonic() + SWITCH_TIMEOUT
            while self._info(name)["statename"] == "STOPPING" and time.monotonic() < deadline:
                time.sleep(0.01)  # dead, and not reaped yet
            self._switch("startProcess", name, ALREADY_STARTED)
        since = self._stopped_at.get(name)
        if since is not None and name not in self._ready_after:
            threading.Thread(target=self._measure, args=(name, since), name=f"ready-{name}", daemon=True).start()
        return {}

    def pause(self, name: str) -> dict[str, Any]:
        """SIGSTOP every process of it, the first one first, until all are stopped."""
        self._program(name)
        with self._switching:
            self._need_node(name)
            main = self._main(name)
            if not self._members(main):
                raise LabError(f"{name} of {self._key} does not run, so it cannot be paused")
            freeze(lambda: self._members(main))
        return {}

    def resume(self, name: str, processes: Identities, leave: Identities) -> dict[str, Any]:
        """SIGCONT what is stopped of it, and of `processes` what still lives, but nothing of `leave`."""
        self._program(name)
        with self._switching:
            living = snapshot().values()
            named = [process for process in living if (process.pid, process.start) in processes]
            for process in {each.pid: each for each in (*self._members(self._main(name)), *named)}.values():
                if process.stopped and (process.pid, process.start) not in leave:
                    send(process, SIGCONT)
        return {}

    def _measure(self, name: str, since: float) -> None:
        """Note how long after it was stopped a service is ready again."""
        program, deadline = self._programs[name], time.monotonic() + LONGEST_START
        while self._stopped_at.get(name) == since and name not in self._ready_after and time.monotonic() < deadline:
            if healthy(program):
                self._ready_after[name] = round(time.monotonic() - since, 3)
                return
            time.sleep(0.02)

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            raise LabError(f"no service {name!r} on {self._key}; there are {', '.join(self._programs) or 'none'}")
        return self._programs[name]

    def _need_node(self, name: str) -> None:
        if not self._node_is_on():
            raise LabError(f"{name} of {self._key} cannot be switched: the node is off; power it on first")

    def _main(self, name: str) -> int:
        """Pid of the service's first process; 0 while it does not run."""
        return int(self._info(name)["pid"]) if self._node_is_on() else 0

    @staticmethod
    def _members(main: int) -> list[Process]:
        """The first process of a service, if it lives, then what descends from it."""
        processes = snapshot()
        live = processes.get(main)
        return [live, *descendants(main, processes)] if live is not None else []

    def _info(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._ask("getProcessInfo", name)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise LabError(f"the supervisord of {self._key} does not tell about {name}: {error}; read its log with `frangible lab logs`") from error
        return found

    def _switch(self, method: str, name: str, accepted: int) -> None:
        try:
            self._ask(method, name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != accepted:
                raise LabError(f"the supervisord of {self._key} refused {method} {name}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise LabError(f"the supervisord of {self._key} did not answer {method} {name}: {error}") from error

    def _ask(self, method: str, *arguments: object, timeout: float = SWITCH_TIMEOUT) -> Any:  # noqa: ANN401 - what supervisord answers
        with xmlrpc.client.ServerProxy(self._address, transport=_Impatient(self._credentials, timeout)) as supervisord:
            return getattr(supervisord.supervisor, method)(*arguments)


def _plain(processes: Iterable[Process]) -> list[dict[str, int]]:
    return [{"pid": process.pid, "start": process.start} for process in processes]
