"""The ssh transport against a real sshd on loopback, with keys and configuration of its own."""

import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from frangible.cli.group import app
from frangible.environment import SshSettings
from frangible.errors import LedgerError, LockHeld, PlatformError
from frangible.inventory import Environment
from frangible.locks import FileLockStore, FolderOfKeys, SwappedLockStore
from frangible.platforms import open_platform, ssh
from frangible.platforms.ssh import NEEDED, SshTransport
from frangible.process import ProcessIdentity, boot_id

from ..sshd import Server, key, listening, masters, over, until

pytestmark = pytest.mark.once


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with listening(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
def transport(server: Server) -> SshTransport:
    return SshTransport(server.settings)


type Declared = Callable[..., Environment]


@pytest.fixture
def declared(tmp_path: Path) -> Declared:
    """An environment on the host of a server."""

    def declare(server: Server, **platform: object) -> Environment:
        there = {"kind": "hosts", "transport": "ssh", "root": str(tmp_path / "root"), "locks": str(tmp_path / "locks"), "ssh": server.settings.model_dump()}
        entry = {"name": "nyc-1", "region": "nyc", "tier": "staging", "owner": {"team": "equities"}, "nodes": [{"name": "app-1"}]}
        return Environment.model_validate({**entry, "platform": there | platform}, strict=False)

    return declare


ODD = 'it\'s a "quoted" $(touch /tmp/never) `x` ; & * ✓\nsecond line\n'


def test_what_is_written_is_read_until_it_is_deleted(transport: SshTransport, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a folder's $(x) ; name" / "file.json"
    assert transport.read(path) is None
    assert transport.entries(path.parent) == ()
    transport.write(path, ODD)
    assert path.read_text() == ODD
    assert transport.read(path) == ODD
    transport.write(path, "")
    assert transport.read(path) == ""
    path.with_name(f".{path.name}.unfinished").write_text("half")
    assert transport.entries(path.parent) == (path.name,)
    transport.delete(path)
    transport.delete(path)
    assert list(path.parent.iterdir()) == []
    assert transport.read(path) is None
    transport.delete(tmp_path / "nowhere" / "file")


def test_facts_clock_and_programs_are_those_of_the_host(transport: SshTransport) -> None:
    facts = transport.facts()
    assert facts["kernel.release"] == os.uname().release
    assert facts["host.machine"] == os.uname().machine
    assert abs(transport.clock() - time.time()) < 5
    assert transport.missing_programs() == ()
    assert "sync" in NEEDED


def test_what_the_host_refuses_is_said(transport: SshTransport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match=r"transport ssh to 127.0.0.1: cannot write .*(File exists|Not a directory)"):
        transport.write(tmp_path / "file" / "below", "x")


def test_calls_share_one_connection(transport: SshTransport, server: Server, tmp_path: Path) -> None:
    for number in range(5):
        transport.write(tmp_path / "t" / str(number), "x")
    assert len(server.sessions()) == 1


def test_another_host_key_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    other = key(tmp_path / "other")
    (server.folder / "known").write_text(f"[127.0.0.1]:{server.port} {other}\n")
    before = time.monotonic()
    with pytest.raises(PlatformError, match="the host's key is not the one in"):
        SshTransport(server.settings).read(tmp_path / "x")
    (server.folder / "known").write_text("")
    with pytest.raises(PlatformError, match="the host's key is not the one in"):
        SshTransport(server.settings).read(tmp_path / "x")
    assert time.monotonic() - before < 8


def test_a_key_that_is_not_authorized_is_said(server: Server, tmp_path: Path) -> None:
    (server.folder / "authorized").write_text("")
    with pytest.raises(PlatformError, match=r"does not let us in .*Permission denied"):
        SshTransport(server.settings).read(tmp_path / "x")


def test_a_killed_connection_is_opened_again(transport: SshTransport, server: Server, tmp_path: Path) -> None:
    transport.write(tmp_path / "t" / "a", "before")
    for session in server.sessions():
        os.kill(session, signal.SIGKILL)
    assert transport.read(tmp_path / "t" / "a") == "before"


def test_a_hung_connection_is_replaced(server: Server, tmp_path: Path) -> None:
    """Ssh gives up a side that is silent after a few seconds; the call goes on over another connection."""
    transport = SshTransport(server.settings, deadline=40)
    transport.write(tmp_path / "t" / "a", "before")
    (hung,), (master,) = server.sessions(), masters(transport.control)
    os.kill(hung, signal.SIGSTOP)
    try:
        assert transport.read(tmp_path / "t" / "a") == "before"
    finally:
        os.kill(hung, signal.SIGKILL)
    assert over(master)


def test_a_hung_process_of_the_shared_connection_is_ended_at_the_deadline(transport: SshTransport, server: Server, tmp_path: Path) -> None:
    transport.write(tmp_path / "t" / "a", "before")
    (master,) = masters(transport.control)
    master.suspend()
    with pytest.raises(PlatformError, match="no answer in time"):
        SshTransport(server.settings, deadline=1).read(tmp_path / "t" / "a")
    assert over(master)
    assert transport.read(tmp_path / "t" / "a") == "before"


def test_a_call_survives_a_server_that_comes_back(transport: SshTransport, server: Server, tmp_path: Path) -> None:
    transport.write(tmp_path / "t" / "a", "before")
    server.stop()
    with pytest.raises(PlatformError, match=r"the connection failed: .*refused"):
        SshTransport(server.settings, deadline=1).read(tmp_path / "t" / "a")
    server.start()
    assert transport.read(tmp_path / "t" / "a") == "before"


@pytest.mark.parametrize("program", ["write", "swap"])
def test_a_connection_that_breaks_in_the_middle_of_a_file_leaves_the_old_one(
    transport: SshTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """The end of a broken connection is the end of the input: what came in time is not the whole file."""
    path = tmp_path / "t" / "a.json"
    transport.write(path, "old")
    whole = ssh._finished
    monkeypatch.setattr(ssh, "_finished", lambda argv, data, seconds, who: whole(argv, data[: len(data) // 8 * 4], seconds, who))
    change = {"write": lambda: transport.write(path, "new" * 1000), "swap": lambda: transport.swap(path, "old", "new" * 1000)}[program]
    with pytest.raises(PlatformError, match="cannot"):
        change()
    assert path.read_text() == "old"


def test_what_start_up_files_print_is_no_output(server: Server, transport: SshTransport, tmp_path: Path) -> None:
    """A host whose login shell prints something first, as `~/.bashrc` may have it, is understood all the same."""
    noisy = server.folder / "noisy"
    noisy.write_text('#!/bin/sh\necho welcome\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    noisy.chmod(0o755)
    authorized = server.folder / "authorized"
    authorized.write_text(f'command="{noisy}" {authorized.read_text()}')
    transport.write(tmp_path / "t" / "a", "text")
    assert transport.entries(tmp_path / "t") == ("a",)
    assert transport.read(tmp_path / "t" / "a") == "text"
    assert transport.swap(tmp_path / "t" / "b.lock.json", None, "one")
    assert abs(transport.clock() - time.time()) < 5


# --- processes and racks of the host ----------------------------------------------------------------------------------


def test_processes_of_the_host_are_gone_only_when_none_is_alive(transport: SshTransport) -> None:
    """By process id, start time and boot, also where a process's name holds a bracket and the end of a line."""
    awkward = "import ctypes; ctypes.CDLL(None).prctl(15, b') Z 1\\n(x', 0, 0, 0); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", awkward], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    here = ProcessIdentity.of(child.pid)
    assert here is not None
    name, boot = transport.origin()
    assert (name, boot) == (os.uname().nodename, boot_id())
    identity = ProcessIdentity(name, boot, here.pid, here.start)
    reused, of_another_boot = replace(identity, start=identity.start - 1), replace(identity, boot="earlier")
    assert transport.processes_gone((), "x")
    assert transport.processes_gone((reused, of_another_boot), "x")
    assert not transport.processes_gone((reused, identity), "x")
    child.kill()
    until(lambda: transport.processes_gone((identity,), "x"))  # it is a zombie now: nobody has waited for it
    child.communicate()
    assert transport.processes_gone((identity,), "x")
    with pytest.raises(PlatformError, match=r"environment e: process 7 ran on host elsewhere, but ssh to 127\.0\.0\.1 reaches"):
        transport.processes_gone((ProcessIdentity("elsewhere", boot, 7, 7),), "environment e")


@dataclass
class Rack:
    """What answers on a Unix socket, as a rack does: with what was asked, a process of its own, and how often it was asked."""

    path: Path
    silent: bool = False
    asked: list[object] = field(default_factory=list)

    def serve(self) -> None:
        rack = self

        class Answering(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                request = json.loads(self.rfile.readline())
                rack.asked.append(request)
                if not rack.silent:
                    alive = ProcessIdentity.current()
                    found = {"powered": True, "ready": True, "instance": "1", "processes": [{"pid": alive.pid, "start": alive.start}]}
                    self.wfile.write(json.dumps({"ok": True, **found, "rate": 40, "echo": request}).encode() + b"\n")

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.server = socketserver.ThreadingUnixStreamServer(str(self.path), Answering)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    serving = Rack(tmp_path / "rack.sock")
    serving.serve()
    yield serving
    serving.stop()


def ask(transport: SshTransport, rack: Rack, deadline: float = 15.0) -> dict[str, object]:
    return transport.ask_rack(rack.path, {"do": "ping"}, "rack x", deadline)


def test_a_rack_of_the_host_is_asked_through_the_shared_connection(transport: SshTransport, server: Server, rack: Rack) -> None:
    """One connection for programs and requests; a request opens it where there is none."""
    assert ask(transport, rack)["echo"] == {"do": "ping"}
    transport.clock()
    assert ask(transport, rack)["ok"] is True
    assert len(server.sessions()) == 1
    assert len(rack.asked) == 2


@pytest.mark.parametrize("victim", ["the connection at the host", "the process of the shared connection"])
def test_a_rack_is_asked_again_when_the_connection_was_lost(transport: SshTransport, server: Server, rack: Rack, victim: str) -> None:
    ask(transport, rack)
    for process in server.sessions() if victim.startswith("the connection") else [one.pid for one in masters(transport.control)]:
        os.kill(process, signal.SIGKILL)
    assert ask(transport, rack)["ok"] is True


def test_a_rack_is_asked_again_when_the_connection_hangs(transport: SshTransport, server: Server, rack: Rack) -> None:
    """Whoever does not answer ssh's own question for four seconds is given up, well within the deadline of a request."""
    ask(transport, rack)
    (hung,) = server.sessions()
    os.kill(hung, signal.SIGSTOP)
    try:
        assert ask(transport, rack)["ok"] is True
    finally:
        os.kill(hung, signal.SIGKILL)


def test_a_hung_process_of_the_shared_connection_is_replaced_after_the_deadline_of_a_request(transport: SshTransport, rack: Rack) -> None:
    ask(transport, rack)
    (master,) = masters(transport.control)
    master.suspend()
    with pytest.raises(PlatformError, match=r"rack x: no answer from 127\.0\.0\.1 within 1 s"):
        ask(transport, rack, deadline=1)
    assert over(master)
    assert ask(transport, rack)["ok"] is True


def test_a_forwarded_socket_that_somebody_removed_is_made_anew(transport: SshTransport, rack: Rack) -> None:
    ask(transport, rack)
    (forwarded,) = transport.control.parent.glob(f"{transport.control.name}-*")
    forwarded.unlink()
    assert ask(transport, rack)["ok"] is True


def test_a_rack_that_is_not_there_is_said(transport: SshTransport, rack: Rack) -> None:
    missing = Rack(rack.path.with_name("missing.sock"))
    with pytest.raises(PlatformError, match="there is no such socket; is the rack running there"):
        ask(transport, missing)
    ask(transport, rack)
    rack.stop()  # its socket stays, as that of a rack that was killed does
    with pytest.raises(PlatformError, match=r"ended the connection without an answer, 3 times: is the rack running there.*AllowStreamLocalForwarding"):
        ask(transport, rack)
    rack.path.unlink()
    rack.serve()


def test_every_driver_of_an_environment_on_a_host_asks_the_rack_there(server: Server, rack: Rack, declared: Declared) -> None:
    """Power, services, CPUs and load: each through ssh, and processes are those of that host."""
    driver = {"driver": "rack", "socket": str(rack.path)}
    hosts = open_platform(declared(server, power=driver, services=driver, cpu=driver, load=driver))
    state = hosts.node("app-1")
    assert state.processes == (ProcessIdentity.current(),)
    assert not hosts.processes_gone(state.processes)
    assert hosts.load().rate == 40
    with pytest.raises(PlatformError, match="expected `running`"):
        hosts.service("app-1", "nats")
    assert [request["do"] for request in rack.asked if isinstance(request, dict)] == ["node", "rate", "service"]
    assert hosts.primitives == {"power", "services", "pause", "cpu", "load"}
    assert len(server.sessions()) == 1


# --- through another host ---------------------------------------------------------------------------------------------


@pytest.fixture
def jumping(server: Server, tmp_path: Path) -> Iterator[SshSettings]:
    """The server behind another one, which has another host key and lets the same user in."""
    first = Server(tmp_path / "first", options={"AllowTcpForwarding": "yes"})
    (first.folder / "authorized").write_text((server.folder / "authorized").read_text())
    known = tmp_path / "known to both's %h"
    known.write_text((server.folder / "known").read_text() + (first.folder / "known").read_text())
    first.start()
    yield server.settings.model_copy(update={"jump": f"{server.settings.user}@127.0.0.1:{first.port}", "known_hosts": known})
    first.stop()


def test_a_host_behind_another_is_reached(jumping: SshSettings, tmp_path: Path) -> None:
    transport = SshTransport(jumping)
    transport.write(tmp_path / "t" / "a", "text")
    assert transport.read(tmp_path / "t" / "a") == "text"


def test_the_key_of_the_host_on_the_way_is_checked_as_well(jumping: SshSettings, server: Server, tmp_path: Path) -> None:
    """With the far host's key alone, the one on the way is refused."""
    only_far = jumping.model_copy(update={"known_hosts": server.folder / "known"})
    with pytest.raises(PlatformError, match=r"the connection failed: .*Is .*@127.*up, is its key known"):
        SshTransport(only_far, deadline=4).read(tmp_path / "x")


# --- the doctor -------------------------------------------------------------------------------------------------------


type Doctor = Callable[[Server], dict[str, dict[str, object]]]


@pytest.fixture
def doctor(tmp_path: Path, declared: Declared) -> Doctor:
    """What `frangible doctor` finds about the environment on the host of a server, by the name of each check."""

    def examine(server: Server) -> dict[str, dict[str, object]]:
        power = {"driver": "command", "on": ["true", "{node}"], "off": ["true", "{node}"], "state": ["sh", "-c", "echo on", "{node}"]}
        document = declared(server, power=power).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        (tmp_path / "inventory.json").write_text(json.dumps({"environments": [document]}))
        result = CliRunner().invoke(app, ["doctor", "-e", "nyc-1", "--inventory", str(tmp_path / "inventory.json"), "--json"])
        return {check["name"]: check for check in json.loads(result.stdout)["checks"]}

    return examine


def test_the_doctor_finds_a_host_that_is_well(server: Server, doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(server)
    assert all(found[name]["ok"] for name in ("ssh", "node app-1", "locks", "lease copies")), found
    assert re.fullmatch(r"127\.0\.0\.1 answers in .*, its key is known; its clock differs from this host's by [+-][0-9.]+ s", str(found["ssh"]["found"]))
    assert list((tmp_path / "root").rglob("*.json")) == []


@pytest.mark.parametrize(
    ("date", "others", "says"),
    [
        ("exec /bin/date -d '1 hour ago' \"$@\"", set(NEEDED) - {"date"}, r"the clock of 127.0.0.1 differs from this host's by -3[56][0-9][0-9]\.[0-9] s"),
        ('exec /bin/date "$@"', set(NEEDED) - {"date", "flock", "sync"}, r"127.0.0.1 lacks flock, sync: install coreutils and util-linux there"),
        ("echo noon", set(NEEDED) - {"date"}, r"cannot read the clock: expected seconds, got 'noon'"),
    ],
    ids=["another hour", "programs missing", "another date"],
)
def test_the_doctor_says_what_a_host_lacks_and_tries_nothing_that_stands_on_it(server: Server, doctor: Doctor, date: str, others: set[str], says: str) -> None:
    """A host with no programs but those of a folder of ours, which lacks some or has a clock that is wrong."""
    folder = server.folder / "programs"
    folder.mkdir()
    for name in {*others, "sh"}:
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "date").write_text(f"#!/bin/sh\n{date}\n")
    (folder / "date").chmod(0o755)
    configuration = server.folder / "sshd_config"
    configuration.write_text(configuration.read_text().replace("SetEnv ", f"SetEnv PATH={folder} "))
    server.stop()
    server.start()
    found = doctor(server)
    assert not found["ssh"]["ok"]
    assert re.search(says, str(found["ssh"]["found"])), found["ssh"]
    assert "ssh -v" in str(found["ssh"]["advice"])
    assert {"node app-1", "locks", "lease copies"} & found.keys() == set()
    assert "ledger" in found


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_of_a_namesake_is_not_taken_over_before_its_time(transport: SshTransport, tmp_path: Path) -> None:
    """Two machines of one name cannot see each other's processes; one of this very boot whose process is dead is overtaken."""
    store = SwappedLockStore(FolderOfKeys(tmp_path / "locks", transport))
    store.acquire("environment:a", "run-1", replace(me(), boot="of another machine", pid=1), 60)
    with pytest.raises(LockHeld, match="run-1"):
        store.acquire("environment:a", "run-2", me(), 60)
    store.acquire("environment:b", "run-1", replace(me(), start=1), 60)
    assert store.acquire("environment:b", "run-2", me(), 60).epoch == 2


def me() -> ProcessIdentity:
    return ProcessIdentity.current()


def elsewhere() -> ProcessIdentity:
    return ProcessIdentity("another-host", "boot", 1, 1)


def test_locks_over_ssh_keep_epoch_owner_and_expiry(transport: SshTransport, tmp_path: Path) -> None:
    store = SwappedLockStore(FolderOfKeys(tmp_path / "locks", transport))
    first = store.acquire("environment:a", "run-1", elsewhere(), 60)
    assert store.acquire("environment:a", "run-1", elsewhere(), 60).epoch == first.epoch == 1
    with pytest.raises(LockHeld, match="run-1"):
        store.acquire("environment:a", "run-2", me(), 60)
    assert [holder.run_id for holder in store.holders()] == ["run-1"]
    store.renew(first, -1)
    assert store.holders() == ()
    second = store.acquire("environment:a", "run-2", me(), 60)
    assert second.epoch == 2
    with pytest.raises(LockHeld, match="no longer holds"):
        store.renew(first, 60)
    store.release(first)
    assert [holder.run_id for holder in store.holders()] == ["run-2"]
    store.release(second)
    store.release(second)
    assert store.holders() == ()


def test_locks_over_ssh_and_on_the_host_itself_see_each_other(transport: SshTransport, tmp_path: Path) -> None:
    there, here = SwappedLockStore(FolderOfKeys(tmp_path / "locks", transport)), FileLockStore(tmp_path / "locks")
    held = there.acquire("shared:nats", "run-1", me(), 60)
    with pytest.raises(LockHeld, match="run-1"):
        here.acquire("shared:nats", "run-2", elsewhere(), 60)
    there.release(held)
    assert here.acquire("shared:nats", "run-2", elsewhere(), 60).epoch == 2
    with pytest.raises(LockHeld, match="run-2"):
        there.acquire("shared:nats", "run-3", me(), 60)


CONTENDER = """
import sys
from pathlib import Path
from frangible.environment import SshSettings
from frangible.errors import LockHeld
from frangible.locks import FolderOfKeys, SwappedLockStore
from frangible.platforms.ssh import SshTransport
from frangible.process import ProcessIdentity, boot_id
settings = SshSettings.model_validate_json(sys.argv[1])
store = SwappedLockStore(FolderOfKeys(Path(sys.argv[2]), SshTransport(settings)))
counter, won = Path(sys.argv[3]), 0
while won < 2:
    try:
        held = store.acquire("environment:a", f"run-{sys.argv[4]}", ProcessIdentity.current(), 60)
    except LockHeld:
        continue
    before = int(counter.read_text())
    counter.write_text(str(before + 1))
    won += 1
    store.release(held)
"""


def test_two_processes_never_hold_a_key_at_once(server: Server, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    arguments = [server.settings.model_dump_json(by_alias=True), str(tmp_path / "locks"), str(counter)]
    both = [subprocess.Popen([sys.executable, "-c", CONTENDER, *arguments, name]) for name in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    assert counter.read_text() == "4"
    last = SwappedLockStore(FolderOfKeys(tmp_path / "locks", SshTransport(server.settings))).acquire("environment:a", "run-c", me(), 60)
    assert last.epoch == 5


def test_a_swap_does_nothing_when_somebody_was_quicker(transport: SshTransport, tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock.json"
    assert transport.swap(path, None, "one")
    assert not transport.swap(path, None, "two")
    assert not transport.swap(path, "other", "two")
    assert path.read_text() == "one"
    assert transport.swap(path, "one", "two")
    assert path.read_text() == "two"


def test_an_unreachable_host_of_locks_is_an_error_of_the_store(server: Server, tmp_path: Path) -> None:
    server.stop()
    store = SwappedLockStore(FolderOfKeys(tmp_path / "locks", SshTransport(server.settings, deadline=1)))
    with pytest.raises(LedgerError, match="the connection failed"):
        store.acquire("environment:a", "run-1", me(), 60)
    server.start()


def test_the_platform_of_an_environment_with_transport_ssh_keeps_copies_there(server: Server, declared: Declared) -> None:
    hosts = open_platform(declared(server))
    hosts.put_lease_copy("app-1", "lease-1", ODD)
    assert hosts.lease_copies() == {"lease-1": ODD}
    hosts.delete_lease_copy("app-1", "lease-1")
    assert hosts.lease_copies() == {}
    assert isinstance(hosts.locks(), SwappedLockStore)


def test_ssh_settings_stand_with_the_transport_ssh_and_only_with_it(tmp_path: Path) -> None:
    from frangible.environment import PlatformSettings

    with pytest.raises(ValueError, match="expected `ssh` with the transport 'ssh' and only with it"):
        PlatformSettings(kind="hosts", transport="ssh", root=tmp_path, locks=tmp_path)
    for host in ("-oProxyCommand=touch x", "a b", "", "a;b", "user@host"):
        with pytest.raises(ValueError, match="String should match pattern"):
            SshSettings(host=host)
    for jump in ("-x", "a,b", "user@-x", "a b", "x:y", "user@"):
        with pytest.raises(ValueError, match="String should match pattern"):
            SshSettings(host="a", jump=jump)
    for fine in ("fe80::1%eth0", "::1", "a_b.example.com", "10.0.0.1"):
        assert SshSettings(host=fine).host == fine
    with pytest.raises(ValueError, match="which would burn the CPUs of this very host"):
        PlatformSettings.model_validate(
            {"kind": "hosts", "transport": "ssh", "ssh": {"host": "a"}, "root": tmp_path, "locks": tmp_path, "cpu": {"driver": "host"}}, by_name=True
        )
