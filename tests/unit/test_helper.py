"""What helper pods do on a node, as far as any Linux machine shows it: finding processes, stopping and letting go on, rules, counters."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from frangible.helper import kill, notes
from frangible.helper.burn import Burn, used
from frangible.helper.cut import links_of, ruleset
from frangible.helper.notes import Note, Process, all_notes
from frangible.helper.pause import container_of

ID = "493a0d4026424600a529e5057b25c6bd4206cf0380d608c1bd3838b1ecb8eb69"
OTHER = "0" * 64


@pytest.mark.parametrize(
    "cgroup",
    [
        f"4:memory:/kubelet/kubepods/besteffort/pod5c62f215-d1f9-4e30-a95d-0313be3cab3e/{ID}\n0::/kubelet/x",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5c62f215_d1f9.slice/cri-containerd-{ID}.scope",
        f"0::/../../kubepods-burstable-pod5c62f215_d1f9.slice/crio-{ID}.scope",
        f"0::/kubepods.slice/kubepods-pod5c62.slice/cri-containerd-{ID}.scope/init.scope",
        f"1:name=systemd:/docker/{OTHER}/kubelet/kubepods/pod5c62/{ID}",
    ],
    ids=["v1-cgroupfs", "v2-systemd", "v2-crio-in-a-namespace", "v2-nested", "node-in-a-container"],
)
def test_a_process_is_found_by_its_containers_id(cgroup: str) -> None:
    """Both versions of cgroups and both drivers have the id in the path; another container's is not taken for it."""
    assert container_of(cgroup, ["f" * 64, ID]) == ID
    assert container_of(cgroup, ["f" * 64]) == ""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder of notes that is ours."""
    monkeypatch.setattr(notes, "FOLDER", tmp_path / "run/frangible")
    return tmp_path / "run/frangible"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> str:
    found = Process.of(pid)
    return "" if found is None else found.state


def until(pid: int, wanted: bool) -> None:
    end = time.monotonic() + 20
    while (state(pid) == "T") is not wanted:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_kill_ends_what_runs_in_the_containers_and_says_what_it_did_not_find(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is over when the processes are; a container without any is no success."""
    mine = Process.of(sleeper.pid)
    assert mine is not None
    monkeypatch.setattr(kill, "inside", lambda _: {ID: [mine]})
    threading.Thread(target=sleeper.wait, daemon=True).start()  # as whoever started it does
    assert kill.main(["--lease", "lease-1", "--containers", ID]) == 0
    assert sleeper.wait() == -signal.SIGKILL
    assert kill.main(["--lease", "lease-1", "--containers", f"{ID},{OTHER}"]) == 1
    assert f"no process of container {OTHER[:12]}" in capsys.readouterr().out


def test_what_a_note_says_is_undone_by_whoever_reads_it(node: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A note survives the process that wrote it; undoing it twice changes nothing more, and leaves nothing."""
    mine = Process.of(sleeper.pid)
    assert mine is not None
    Note("lease-1", stopped={mine.pid: mine.start}).write()
    mine.signal(signal.SIGSTOP)
    until(sleeper.pid, True)
    assert not all_notes("lease-2")
    for note in [*all_notes("lease-1"), *all_notes("lease-1")]:
        note.undo()
        until(sleeper.pid, False)
    assert not all_notes()
    assert not node.exists()


def test_a_process_that_has_another_start_time_is_left_alone(node: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A pid is reused; who has it now is not the one that was stopped."""
    mine = Process.of(sleeper.pid)
    assert mine is not None
    mine.signal(signal.SIGSTOP)
    until(sleeper.pid, True)
    Note("lease-1", stopped={mine.pid: mine.start + 1}).write()
    assert all_notes("lease-1")[0].undo() == []
    assert state(sleeper.pid) == "T"


def test_the_kernel_forgets_a_cut_by_itself_and_the_api_server_stays_reachable() -> None:
    """Each link has a timeout in the set that the rules look into; the hole is for a few source ports and the API server alone."""
    rules = ruleset("frangible", ["eth0", "eth1"], 61.4, ["10.89.0.3:6443", "[fd00::3]:6443"])
    assert 'elements = { "eth0" timeout 61s, "eth1" timeout 61s }' in rules
    assert "ip daddr 10.89.0.3 tcp sport 17000-17015 tcp dport 6443 accept" in rules
    assert "ip6 saddr fd00::3 tcp sport 6443 tcp dport 17000-17015 accept" in rules
    assert rules.index("ip saddr 10.89.0.3") < rules.index("iifname @links drop")
    assert rules.index("ip daddr 10.89.0.3") < rules.index("oifname @links drop")


def test_links_are_found_by_the_nodes_addresses() -> None:
    """Only those that have one of them are cut."""
    assert links_of(["127.0.0.1"]) == ["lo"]
    assert links_of(["192.0.2.1"]) == []


@pytest.mark.parametrize(
    ("file", "text", "seconds"),
    [
        ("cpuacct/cpuacct.usage", "36431345499\n", 36.431345499),
        ("cpu,cpuacct/cpuacct.usage", "1000000000\n", 1.0),
        ("cpu.stat", "nr_periods 3\nusage_usec 2500000\nuser_usec 1\n", 2.5),
    ],
    ids=["v1", "v1-joined", "v2"],
)
def test_the_nodes_counter_is_read_whatever_the_version_of_cgroups(tmp_path: Path, file: str, text: str, seconds: float) -> None:
    """What the kubelet reports is read where the kubelet reads it."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert used(tmp_path) == pytest.approx(seconds)


def test_without_a_counter_nothing_is_guessed(tmp_path: Path) -> None:
    """A hierarchy that does not tell is an error."""
    (tmp_path / "cpu.stat").write_text("nr_periods 3\n")
    with pytest.raises(OSError, match="neither"):
        used(tmp_path)


def test_a_burner_asks_for_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the node uses by itself is not burnt again: with half of what is asked for used by others, the duty falls below it."""
    clock = [100.0]
    monkeypatch.setattr("frangible.helper.burn.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("frangible.helper.burn.os.fork", lambda: 1)
    counter = tmp_path / "cpu.stat"
    counter.write_text("usage_usec 0\n")
    burn = Burn(0.8, cpus=2.0, cgroups=tmp_path)
    burn.begin()
    used_seconds, told = 0.0, dict[str, object]()
    for _ in range(60):
        clock[0] += 0.5
        duty = float(str(told.get("duty", 0.8)))
        used_seconds += 0.5 * 2.0 * min(1.0, 0.4 + duty)
        counter.write_text(f"usage_usec {round(used_seconds * 1e6)}\n")
        told = burn.look()
    assert told["achieved"] == pytest.approx(0.8, abs=0.01)
    assert told["duty"] == pytest.approx(0.4, abs=0.02)
    assert isinstance(told["since"], float)  # from then on the kubelet's samples, by the same clock, count


WORKER = """
import sys, time
from pathlib import Path
from frangible.helper.holding import hold

class Job:
    def begin(self):
        if sys.argv[2] == "fails":
            raise ValueError("cannot be done")
        Path(sys.argv[1], "begun").touch()
    def look(self):
        if sys.argv[2] == "dies":
            import os; os.kill(os.getpid(), 9)
        return {}
    def undo(self):
        Path(sys.argv[1], "undone").touch()
        return []

sys.exit(hold(Job(), float(sys.argv[3])))
"""


@pytest.mark.parametrize(
    ("how", "seconds", "code", "failed"),
    [("holds", 0.3, 0, ""), ("fails", 30.0, 1, "cannot be done"), ("dies", 30.0, 0, "ended by signal 9")],
    ids=["deadline", "cannot-begin", "killed"],
)
def test_a_job_is_undone_however_it_ends(tmp_path: Path, how: str, seconds: float, code: int, failed: str) -> None:
    """At its deadline, when it cannot be done, and when the process that does it is killed."""
    done = subprocess.run([sys.executable, "-c", WORKER, str(tmp_path), how, str(seconds)], capture_output=True, text=True, timeout=60, check=False)
    assert (tmp_path / "undone").exists(), done.stderr
    assert (done.returncode, json.loads(done.stdout)) == (code, {"undone": True, "left": [], "failed": failed})


def test_a_job_is_undone_on_sigterm(tmp_path: Path) -> None:
    """What a kubelet sends when the pod is deleted."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), "holds", "300"], stdout=subprocess.PIPE)
    end = time.monotonic() + 30
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    process.communicate()
    assert (tmp_path / "undone").exists()
