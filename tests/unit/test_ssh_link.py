"""The ssh transport over a link of its own that goes down and comes up: the host is a network namespace, the link a pair of virtual interfaces."""

import os
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from frangible.errors import PlatformError
from frangible.platforms.ssh import SshTransport

from ..conftest import NOT_POSSIBLE
from ..sshd import Server, listening

pytestmark = pytest.mark.once

ADDRESSES = IPv4Network("198.18.0.0/15")
"""Addresses for tests of devices (RFC 2544)."""


@dataclass
class Link:
    """A network namespace and the link to it."""

    name: str
    """Of the namespace, and of the link's near end."""
    near: str
    far: str

    @property
    def inside(self) -> list[str]:
        """What runs a command in the namespace."""
        return ["ip", "netns", "exec", self.name]

    def set(self, state: str) -> None:
        """Switch the far end: the near one keeps its route, so that nothing leaves by another one."""
        subprocess.run([*self.inside, "ip", "link", "set", "far0", state], check=True)


def new_link() -> Link:
    """A link with addresses of its own: several of these tests may run at the same time."""
    first = ADDRESSES[4 * secrets.randbelow(ADDRESSES.num_addresses // 4)]
    return Link(f"fr{os.getpid()}", str(first + 1), str(first + 2))


@pytest.fixture
def link() -> Iterator[Link]:
    new = new_link()
    name = new.name
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        pytest.skip(f"{NOT_POSSIBLE}: `ip netns add` needs root and iproute2 ({said.decode().strip() or error})")
    try:
        inside = [*new.inside, "ip"]
        for command in (
            ["ip", "link", "add", name, "type", "veth", "peer", "name", "far0", "netns", name],
            ["ip", "address", "add", f"{new.near}/30", "dev", name],
            ["ip", "link", "set", name, "up"],
            [*inside, "address", "add", f"{new.far}/30", "dev", "far0"],
            [*inside, "link", "set", "far0", "up"],
            [*inside, "link", "set", "lo", "up"],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"{NOT_POSSIBLE}: `{' '.join(command[:4])}`: {done.stderr.strip()}")
        yield new
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)  # the link goes with it


@pytest.fixture
def far(link: Link, tmp_path: Path) -> Iterator[Server]:
    """An sshd at the other end of the link."""
    with listening(tmp_path / "sshd", address=link.far, port=2222, within=tuple(link.inside)) as server:
        yield server


def test_a_call_waits_for_a_link_that_comes_up_again(far: Server, link: Link, tmp_path: Path) -> None:
    """The link is down when a call is made, long enough for the old connection to be given up; the call succeeds once it is up."""
    transport = SshTransport(far.settings, deadline=40)
    transport.write(tmp_path / "t" / "a", "before")
    link.set("down")
    up = threading.Timer(8.0, link.set, ["up"])
    up.start()
    began = time.monotonic()
    assert transport.read(tmp_path / "t" / "a") == "before"
    assert time.monotonic() - began > 7
    up.join()
    transport.write(tmp_path / "t" / "a", "after")
    assert (tmp_path / "t" / "a").read_text() == "after"


def test_a_call_over_a_link_that_stays_down_ends_in_time(far: Server, link: Link, tmp_path: Path) -> None:
    """It says so before its deadline is over by much, and the next one succeeds when the link is up."""
    SshTransport(far.settings).write(tmp_path / "t" / "a", "before")
    transport = SshTransport(far.settings, deadline=6)
    link.set("down")
    began = time.monotonic()
    with pytest.raises(PlatformError, match=rf"transport ssh to {re.escape(link.far)}: cannot read .*(no answer in time|the connection failed)"):
        transport.read(tmp_path / "t" / "a")
    assert time.monotonic() - began < 12
    link.set("up")
    assert SshTransport(far.settings, deadline=40).read(tmp_path / "t" / "a") == "before"
