"""Power drivers against a real Unix-socket server and real commands."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frangible.errors import PlatformError
from frangible.platforms import NodeState
from frangible.platforms.power import CommandDriver, RackDriver
from frangible.process import ProcessIdentity, host_processes

pytestmark = pytest.mark.once

type Answer = Callable[[dict[str, str]], bytes | None]
type StartRack = Callable[[Answer], Path]


class Rack(threading.Thread):
    """A tiny rack: one request line a connection; no answer at all where the answer is None."""

    def __init__(self, path: Path, answer: Answer) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.requests: list[dict[str, str]] = []
        self.silent: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        here = os.open(path.parent, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
        self.listener.listen()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection.makefile("rb") as lines:
                self.requests.append(json.loads(lines.readline()))
            reply = self.answer(self.requests[-1])
            if reply is None:
                self.silent.append(connection)
                continue
            with connection, contextlib.suppress(ConnectionError):  # the client may have heard enough
                connection.sendall(reply)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join()
        for connection in self.silent:
            connection.close()


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[list[Rack]]:
    started: list[Rack] = []
    yield started
    for rack in started:
        rack.stop()


@pytest.fixture
def start(racks: list[Rack], tmp_path: Path) -> StartRack:
    def start(answer: Answer) -> Path:
        path = tmp_path / "rack.sock"
        rack = Rack(path, answer)
        rack.start()
        racks.append(rack)
        return path

    return start


def reply(**fields: object) -> bytes:
    return json.dumps({"ok": True, "powered": True, "instance": "i-1", "ready": False, "processes": [], **fields}).encode() + b"\n"


def test_the_rack_is_asked_in_its_own_words(start: StartRack, racks: list[Rack]) -> None:
    driver = RackDriver("nyc-1", start(lambda _: reply()))
    driver.on("app-1")
    driver.off("app-1")
    driver.state("app-1")
    assert racks[0].requests == [{"do": verb, "environment": "nyc-1", "node": "app-1"} for verb in ("power_on", "power_off", "node")]


def test_a_nodes_state_carries_processes_that_can_be_looked_for(start: StartRack) -> None:
    me = ProcessIdentity.current()
    driver = RackDriver("nyc-1", start(lambda _: reply(ready=True, processes=[{"pid": me.pid, "start": me.start}])))
    state = driver.state("app-1")
    assert state == NodeState("app-1", powered=True, instance="i-1", ready=True, processes=(me,))
    assert host_processes(state.processes)[0].is_alive()


def test_a_socket_path_longer_than_the_kernel_takes_works(racks: list[Rack], tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    rack = Rack(folder / "rack.sock", lambda _: reply())
    rack.start()
    racks.append(rack)
    assert RackDriver("nyc-1", folder / "rack.sock").state("app-1").powered


def test_a_reply_in_pieces_is_put_together(start: StartRack) -> None:
    processes = [{"pid": pid, "start": pid} for pid in range(1, 20_000)]
    assert len(RackDriver("nyc-1", start(lambda _: reply(processes=processes))).state("app-1").processes) == 19_999


def test_a_refusal_of_the_rack_is_passed_on(start: StartRack) -> None:
    path = start(lambda _: b'{"ok": false, "error": "no such node"}\n')
    with pytest.raises(PlatformError, match=r"environment nyc-1, node app-1: rack .*: power_off: the rack refused: no such node"):
        RackDriver("nyc-1", path).off("app-1")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\n", b"not json\n", b'{"ok": true', b"[]\n", b"3\n", b"\xff\n", b'{"ok": 1}\n', b"{}\n", b"x" * 3_000_000],
    ids=["nothing", "empty line", "no json", "half a line", "a list", "a number", "no text", "ok is no boolean", "no ok", "endless"],
)
def test_anything_but_a_reply_is_an_error_that_says_who(start: StartRack, answer: bytes) -> None:
    path = start(lambda _: answer)
    with pytest.raises(PlatformError, match="node app-1: rack"):
        RackDriver("nyc-1", path).on("app-1")


@pytest.mark.parametrize(
    "fields",
    [
        {"powered": 1},
        {"ready": "yes"},
        {"instance": None},
        {"processes": {}},
        {"processes": [3]},
        {"processes": [{"pid": 1}]},
        {"processes": [{"pid": "x", "start": 1}]},
        {"processes": [{"pid": None, "start": 1}]},
    ],
    ids=json.dumps,
)
def test_a_state_of_the_wrong_shape_is_never_guessed(start: StartRack, fields: dict[str, object]) -> None:
    path = start(lambda _: reply(**fields))
    with pytest.raises(PlatformError, match="expected `powered`, `instance`, `ready`, `processes`"):
        RackDriver("nyc-1", path).state("app-1")


def test_a_silent_rack_ends_with_the_deadline(start: StartRack) -> None:
    path = start(lambda _: None)
    with pytest.raises(PlatformError, match=r"no answer within 0\.2 s"):
        RackDriver("nyc-1", path, deadline=0.2).state("app-1")


def test_a_rack_that_accepts_nobody_ends_with_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "rack.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as queued:
        listener.bind(str(path))
        listener.listen(0)
        queued.connect(str(path))
        with pytest.raises(PlatformError, match=r"no answer within 0\.2 s"):
            RackDriver("nyc-1", path, deadline=0.2).state("app-1")


def test_a_rack_that_is_not_there_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "abandoned.sock"))
    for name in ("missing.sock", "abandoned.sock", "folder/missing.sock"):
        with pytest.raises(PlatformError, match=f"{name}: node: .*frangible lab status"):
            RackDriver("nyc-1", tmp_path / name).state("app-1")


def test_connecting_leaves_no_descriptor_open(start: StartRack, tmp_path: Path) -> None:
    driver, missing = RackDriver("nyc-1", start(lambda _: reply())), RackDriver("nyc-1", tmp_path / "missing.sock")
    driver.on("app-1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        driver.on("app-1")
        with pytest.raises(PlatformError):
            missing.on("app-1")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the server thread may not have closed its last connection yet


SWITCH = """
import pathlib, sys
folder, verb, node = sys.argv[1:]
switch = pathlib.Path(folder, node)
if verb == "state":
    print("on" if switch.exists() else "off")
elif switch.exists() == (verb == "on"):
    sys.exit(f"{node} is {verb} already")
else:
    switch.touch() if verb == "on" else switch.unlink()
"""


@pytest.fixture
def commands(tmp_path: Path) -> CommandDriver:
    script = tmp_path / "switch.py"
    script.write_text(SWITCH)
    on, off, state = ((sys.executable, str(script), str(tmp_path), verb, "{node}") for verb in ("on", "off", "state"))
    return CommandDriver("ldn-1", on, off, state)


def test_commands_switch_the_node_that_was_named_and_no_other(commands: CommandDriver) -> None:
    commands.on("app-1")
    assert commands.state("app-1") == NodeState("app-1", powered=True, instance="", ready=True, processes=())
    assert commands.state("app-2") == NodeState("app-2", powered=False, instance="", ready=False, processes=())
    commands.off("app-1")
    assert not commands.state("app-1").powered


def test_a_command_that_fails_because_it_is_so_already_is_no_error(commands: CommandDriver) -> None:
    commands.off("app-1")
    commands.on("app-1")
    commands.on("app-1")
    assert commands.state("app-1").powered


def failing(script: str, deadline: float = 15.0) -> CommandDriver:
    command = ("sh", "-c", script, "{node}")
    return CommandDriver("ldn-1", command, command, command, deadline)


def test_a_failed_command_tells_exit_code_and_stderr() -> None:
    with pytest.raises(PlatformError, match=r"environment ldn-1, node app-1: power command `off`: .* exit code 3: 'no route to app-1'"):
        failing('echo "no route to $0" >&2; exit 3').off("app-1")


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(PlatformError, match=r"did not end within 0\.5 s and was killed"):
        failing(f"sleep 60 & echo $! > {pid_file}; wait", deadline=0.5).state("app-1")
    grandchild = int(pid_file.read_text())
    until = time.monotonic() + 10
    while ProcessIdentity.of(grandchild) is not None:
        assert time.monotonic() < until, "the command's own child was left running"
        time.sleep(0.01)


def test_a_command_that_cannot_be_started_is_named() -> None:
    for command in (("/nowhere/ipmitool",), (), ("nul\0",)):
        with pytest.raises(PlatformError, match=r"cannot start .*check `platform\.power`"):
            CommandDriver("ldn-1", command, command, command).state("app-1")


@pytest.mark.parametrize(("said", "powered"), [("on", True), ("OFF", False), ("Chassis Power is on", True), ("Chassis Power is off\n\n", False)])
def test_a_state_is_read_as_ipmitool_says_it(said: str, powered: bool) -> None:
    assert failing(f"printf '%s' '{said}'").state("app-1").powered is powered


@pytest.mark.parametrize("said", ["", "unknown", "not on", "on off", "1"])
def test_a_state_that_is_neither_on_nor_off_is_never_guessed(said: str) -> None:
    with pytest.raises(PlatformError, match="expected `on` or `off` on stdout, got"):
        failing(f"echo '{said}'").state("app-1")


def test_nothing_of_a_command_goes_through_a_shell(tmp_path: Path) -> None:
    driver = CommandDriver("ldn-1", (), (), (sys.executable, "-c", "import sys; print(sys.argv[1], file=sys.stderr); sys.exit(1)", "{node};$(id)"))
    with pytest.raises(PlatformError, match=r"'app-1;\$\(id\)'"):
        driver.state("app-1")
