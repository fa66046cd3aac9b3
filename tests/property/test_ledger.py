"""Laws of the ledger: every history is a legal path, whatever is asked of it and wherever its writer is killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frangible.errors import LedgerError
from frangible.fault import Target
from frangible.ledger import Lease, LeaseState, Ledger, Step
from frangible.process import ProcessIdentity

ME = ProcessIdentity.current()
LEGAL = {
    ("intended", "injecting"),
    ("injecting", "injected"),
    ("reverting", "reverted"),
    ("reverting", "revert-failed"),
    *((state, "reverting") for state in ("intended", "injecting", "injected", "reverting", "revert-failed")),
}


def assert_legal(lease: Lease, steps: tuple[Step, ...]) -> None:
    """The path begins with the intention, each step is legal, epochs count the claims, and the lease is where its history ends."""
    states = [step.state.value for step in steps]
    assert states[0] == "intended"
    assert set(pairwise(states)) <= LEGAL
    claims = 0
    for step in steps:
        claims += step.state is LeaseState.REVERTING
        assert step.epoch == claims
    assert (lease.state, lease.epoch) == (steps[-1].state, steps[-1].epoch)
    assert (lease.claimed_by is None) == (claims == 0)


def new_lease(lease_id: str) -> Lease:
    return Lease(
        id=lease_id,
        run_id="r1",
        environment="ldn-1",
        fault="node-loss",
        fault_module="frangible.actions.node_loss",
        fault_version=1,
        parameters={},
        target=Target("node", "app-1"),
        prior={},
        keys=("environment:ldn-1",),
        injector=ME,
        expires_at=2e9,
    )


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    opened = Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    yield opened
    opened.close()


asked = st.lists(st.tuples(st.sampled_from(["begin", "injected", "claim", "reverted", "failed"]), st.integers(0, 3)), max_size=12)
numbers = iter(range(10**9))


@given(asked)
def test_whatever_is_asked_the_history_is_a_legal_path(ledger: Ledger, operations: list[tuple[str, int]]) -> None:
    """Any sequence of calls, with any epochs, leaves a legal history; refused calls leave none."""
    lease = ledger.intend(new_lease(f"r1-{next(numbers)}"))
    for operation, epoch in operations:
        before = ledger.history(lease.id)
        calls: dict[str, Callable[[], Lease]] = {
            "begin": lambda: ledger.begin_injecting(lease.id),
            "injected": lambda: ledger.mark_injected(lease.id),
            "claim": lambda: ledger.claim(lease.id, ME),
            "reverted": partial(ledger.mark_reverted, lease.id, epoch),
            "failed": partial(ledger.mark_revert_failed, lease.id, epoch, "no"),
        }
        try:
            calls[operation]()
        except LedgerError:
            assert ledger.history(lease.id) == before
        else:
            assert ledger.history(lease.id)[:-1] == before
        assert_legal(ledger.get(lease.id), ledger.history(lease.id))


# One warm process forks a writer for every line that it reads, so that a kill costs milliseconds and not an import of SQLAlchemy.
WRITERS = """
import itertools, os, random, sys
from frangible.fault import Target
from frangible.ledger import Lease, Ledger
from frangible.process import ProcessIdentity

def write(url, seed):
    ledger, me, chosen = Ledger.open(url), ProcessIdentity.current(), random.Random(seed)
    def tell(lease):
        os.write(1, f"{lease.id} {lease.state} {lease.epoch}\\n".encode())
        return lease
    for number in itertools.count():
        lease = tell(ledger.intend(Lease(
            id=f"r1-{seed}-{number}", run_id="r1", environment="ldn-1", fault="node-loss", fault_module="m", fault_version=1, parameters={},
            prior={"x": "y" * 3000}, target=Target("node", "app-1"), keys=("a", "b"), injector=me, expires_at=2e9,
        )))
        if chosen.random() < 0.9:
            tell(ledger.begin_injecting(lease.id))
            if chosen.random() < 0.9:
                tell(ledger.mark_injected(lease.id))
        for last in (False, True):
            if last or chosen.random() < 0.5:
                lease = tell(ledger.claim(lease.id, me))
                if chosen.random() < 0.3:
                    tell(ledger.mark_revert_failed(lease.id, lease.epoch, "no"))
                elif chosen.random() < 0.8:
                    tell(ledger.mark_reverted(lease.id, lease.epoch))
                    break

import frangible.ledger.store
for line in sys.stdin:
    url, seed = line.split()
    child = os.fork()
    if not child:
        try:
            write(url, seed)
        finally:
            os._exit(1)
    os.write(1, f"pid {child}\\n".encode())
    os.write(1, f"end {os.waitpid(child, 0)[1]}\\n".encode())
"""


@pytest.fixture(scope="module")
def writers() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        assert server.stdin
        server.stdin.close()


def killed_writer(writers: subprocess.Popen[str], url: str, seed: int, acknowledged: int, delay: float) -> list[list[str]]:
    """Let a writer work until it has acknowledged some steps and a moment more, `kill -9` it, return what it acknowledged."""
    assert writers.stdin
    assert writers.stdout
    writers.stdin.write(f"{url} {seed}\n")
    writers.stdin.flush()
    pid, lines = 0, []
    for line in writers.stdout:
        words = line.split()
        if words[0] == "pid":
            pid = int(words[1])
        elif words[0] == "end":
            assert int(words[1]) == signal.SIGKILL, "the writer must not end on its own"
            break
        else:
            lines.append(words)
        if pid and len(lines) == acknowledged:
            time.sleep(delay)  # where in a step the kill falls is what this test varies
            os.kill(pid, signal.SIGKILL)
            acknowledged = -1
    return lines


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acknowledged=st.integers(0, 12), delay=st.floats(0, 0.004))
def test_a_writer_killed_anywhere_leaves_a_readable_ledger(ledger: Ledger, writers: subprocess.Popen[str], acknowledged: int, delay: float) -> None:
    """After `kill -9` at a random moment the file is sound, every history is legal, and no step that was acknowledged is missing."""
    seed = next(numbers)
    told = killed_writer(writers, f"sqlite:///{ledger.location}", seed, acknowledged, delay)
    with closing(sqlite3.connect(ledger.location)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for lease in ledger.open_leases():
        if lease.id.startswith(f"r1-{seed}-"):
            assert_legal(lease, ledger.history(lease.id))
            assert lease.keys == ("a", "b")
    for lease_id in {words[0] for words in told}:
        steps = ledger.history(lease_id)
        assert_legal(ledger.get(lease_id), steps)
        acknowledged_steps = [(state, int(epoch)) for found, state, epoch in told if found == lease_id]
        stored = [(step.state.value, step.epoch) for step in steps]
        assert stored[: len(acknowledged_steps)] == acknowledged_steps
        assert len(stored) <= len(acknowledged_steps) + 1


def test_kills_do_fall_into_the_middle_of_steps(tmp_path: Path, writers: subprocess.Popen[str]) -> None:
    """The crash test means something: some of its kills leave a step stored that was not acknowledged, or a journal to roll back."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url).close()
    journal = tmp_path / "ledger.db-journal"
    told, between = 0, 0
    for attempt in range(100):
        told += len(killed_writer(writers, url, next(numbers), 2, attempt % 20 / 5_000))
        hot = journal.exists() and journal.stat().st_size > 0
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            stored = connection.execute("SELECT count(*) FROM lease_steps").fetchone()[0]
        between += hot or stored > told
        told = stored
        if between >= 3:
            return
    pytest.fail("no kill fell into a step: vary the delays more widely")
