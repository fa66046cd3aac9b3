"""Who a process is, and that killing it kills that one only."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from frangible.process import ProcessIdentity, boot_id


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def identity(process: "subprocess.Popen[bytes]") -> ProcessIdentity:
    found = ProcessIdentity.of(process.pid)
    assert found is not None
    return found


def test_a_process_is_alive_until_it_is_killed(sleeper):
    who = identity(sleeper)
    assert who.is_alive()
    assert who.kill()
    assert not who.is_alive()


def test_a_zombie_counts_as_dead(sleeper):
    who = identity(sleeper)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    assert not who.is_alive()
    assert ProcessIdentity.of(sleeper.pid) is None


@pytest.mark.parametrize("other", [{"start": 1}, {"boot": "another-boot"}], ids=["reused pid", "another boot"])
def test_a_pid_alone_is_not_the_same_process_and_is_not_killed(sleeper, other):
    stranger = replace(identity(sleeper), **other)
    assert not stranger.is_alive()
    assert stranger.kill()
    assert sleeper.poll() is None


def test_a_process_of_another_host_is_never_killed_from_here(sleeper):
    assert not replace(identity(sleeper), host="elsewhere").kill()
    assert sleeper.poll() is None


def test_an_identity_survives_json():
    me = ProcessIdentity.current()
    assert ProcessIdentity.from_json(me.to_json()) == me
    assert me.boot == boot_id()
