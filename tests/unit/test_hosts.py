"""The hosts platform on this host's real file system and processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from frangible.errors import PlatformError
from frangible.inventory import Environment
from frangible.platforms import open_platform
from frangible.platforms.hosts import HostsPlatform
from frangible.platforms.power import CommandDriver, RackDriver
from frangible.platforms.transports import LocalTransport
from frangible.process import ProcessIdentity

type Declare = Callable[..., Environment]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    def build(power: dict[str, object] | None = None, **others: object) -> Environment:
        return Environment.model_validate(
            {
                "name": "nyc-1",
                "region": "nyc",
                "tier": "staging",
                "owner": {"team": "equities"},
                "platform": {"kind": "hosts", "root": str(tmp_path / "root"), "locks": str(tmp_path / "locks"), **({"power": power} if power else {})},
                "nodes": [{"name": "app-1"}, {"name": "app-2"}],
                "middleware": [{"name": "nats", "version": "2.15"}, {"name": "unversioned"}],
                **others,
            },
            strict=False,
        )

    return build


@pytest.fixture
def hosts(declare: Declare) -> HostsPlatform:
    return HostsPlatform(declare())


def test_a_lease_copy_is_found_until_it_is_deleted(hosts: HostsPlatform) -> None:
    hosts.put_lease_copy("app-1", "lease-1", "one")
    hosts.put_lease_copy("app-1", "lease-1", "one again")
    hosts.put_lease_copy("app-2", "lease-2", "zwei ✓")
    assert hosts.lease_copies() == {"lease-1": "one again", "lease-2": "zwei ✓"}
    hosts.delete_lease_copy("app-1", "lease-1")
    hosts.delete_lease_copy("app-1", "lease-1")
    assert hosts.lease_copies() == {"lease-2": "zwei ✓"}


def test_copies_of_an_environment_without_a_folder_are_none(hosts: HostsPlatform) -> None:
    assert hosts.lease_copies() == {}
    hosts.delete_lease_copy("app-1", "never-there")


def test_a_copy_of_a_node_that_the_inventory_forgot_is_still_found(declare: Declare) -> None:
    HostsPlatform(declare()).put_lease_copy("app-2", "lease", "text")
    assert HostsPlatform(declare(nodes=[])).lease_copies() == {"lease": "text"}


def test_another_platform_object_finds_the_same_copies(declare: Declare) -> None:
    open_platform(declare()).put_lease_copy("app-1", "lease", "text")
    assert open_platform(declare()).lease_copies() == {"lease": "text"}


@pytest.mark.parametrize("part", ["", ".", "..", "../up", "a/b", ".hidden", "nul\0"])
def test_a_copy_cannot_leave_its_folder(hosts: HostsPlatform, tmp_path: Path, part: str) -> None:
    for target, lease in ((part, "lease"), ("app-1", part)):
        with pytest.raises(PlatformError, match="cannot name a lease copy"):
            hosts.put_lease_copy(target, lease, "text")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(hosts: HostsPlatform, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(PlatformError, match=r"cannot write .*root/app-1/leases/lease\.json: .*`platform\.root`"):
        hosts.put_lease_copy("app-1", "lease", "text")
    assert hosts.lease_copies() == {}


def test_bytes_that_are_no_text_are_reported_and_not_skipped(hosts: HostsPlatform, tmp_path: Path) -> None:
    hosts.put_lease_copy("app-1", "lease", "text")
    (tmp_path / "root/app-1/leases/lease.json").write_bytes(b"\xff\xfe")
    with pytest.raises(PlatformError, match=r"cannot read .*lease\.json"):
        hosts.lease_copies()


WRITER = """
import sys
from pathlib import Path
from frangible.platforms.transports import LocalTransport
print("ready", flush=True)
while True:
    for letter in "ab":
        LocalTransport().write(Path(sys.argv[1]), letter * 200_000)
"""


def test_a_reader_and_a_killed_writer_never_leave_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app-1" / "lease.json"
    wholes = {"a" * 200_000, "b" * 200_000}
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            seen: set[str | None] = set()
            while not wholes <= seen:
                seen.add(LocalTransport().read(path))
            writer.send_signal(signal.SIGKILL)
        assert seen <= {None, *wholes}
        assert LocalTransport().read(path) in wholes
        assert LocalTransport().entries(path.parent) == ("lease.json",)
    LocalTransport().delete(path)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    LocalTransport().write(path, "old")
    script = """
import resource, sys
from pathlib import Path
from frangible.errors import PlatformError
from frangible.platforms.transports import LocalTransport
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    LocalTransport().write(Path(sys.argv[1]), "new" * 100_000)
except PlatformError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert "free space" in done.stdout
    assert LocalTransport().read(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_many_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file.json"
    texts = [str(number) * 5000 for number in range(8)]
    threads = [threading.Thread(target=LocalTransport().write, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert LocalTransport().read(path) in texts
    assert list(path.parent.iterdir()) == [path]


def test_processes_are_gone_only_when_none_is_alive(hosts: HostsPlatform) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(child.pid)
    assert identity is not None
    long_gone = ProcessIdentity(identity.host, "an earlier boot", 1, 1)
    assert hosts.processes_gone(())
    assert hosts.processes_gone((long_gone,))
    assert not hosts.processes_gone((long_gone, identity))
    child.kill()
    child.communicate()
    assert hosts.processes_gone((long_gone, identity))


def test_a_process_of_another_host_cannot_be_called_gone(hosts: HostsPlatform) -> None:
    with pytest.raises(PlatformError, match="process 7 ran on host elsewhere"):
        hosts.processes_gone((ProcessIdentity("elsewhere", "boot", 7, 7),))


@pytest.mark.parametrize("call", ["node", "power_off", "power_on"])
def test_an_unknown_node_is_answered_with_the_nearest(declare: Declare, call: str) -> None:
    hosts = HostsPlatform(declare(power={"driver": "rack", "socket": "/nowhere/rack.sock"}))
    with pytest.raises(PlatformError, match="nyc-1 has no node 'ap-1': did you mean 'app-1'"):
        getattr(hosts, call)("ap-1")
    with pytest.raises(PlatformError, match="it has app-1, app-2"):
        getattr(hosts, call)("zzz")


def test_without_a_power_driver_the_primitive_is_missing_and_says_how_to_get_it(hosts: HostsPlatform) -> None:
    assert hosts.primitives == frozenset()
    with pytest.raises(PlatformError, match=r"declare `platform\.power`"):
        hosts.power_off("app-1")


def test_the_inventory_chooses_the_driver(declare: Declare) -> None:
    rack = HostsPlatform(declare(power={"driver": "rack", "socket": "/run/rack.sock"}))
    command = HostsPlatform(declare(power={"driver": "command", "on": ["on", "{node}"], "off": ["off", "{node}"], "state": ["state", "{node}"]}))
    assert rack.power == RackDriver("nyc-1", Path("/run/rack.sock"))
    assert command.power == CommandDriver("nyc-1", ("on", "{node}"), ("off", "{node}"), ("state", "{node}"))
    assert rack.primitives == command.primitives == {"power"}


def test_facts_tell_host_and_declared_middleware_by_sorted_dotted_names(hosts: HostsPlatform) -> None:
    facts = hosts.facts()
    assert list(facts) == sorted(facts)
    assert facts["kernel.release"] == os.uname().release
    assert facts["middleware.nats.version"] == "2.15"
    assert facts["cpu.count"] == str(os.cpu_count())
    assert {"os.name", "host.machine", "python.version"} <= facts.keys()
    assert "middleware.unversioned.version" not in facts


def test_locks_lie_in_the_declared_folder(hosts: HostsPlatform, tmp_path: Path) -> None:
    holder = hosts.locks().acquire("environment:nyc-1", "run", ProcessIdentity.current(), 30.0)
    assert holder.run_id == "run"
    assert list((tmp_path / "locks").iterdir())
