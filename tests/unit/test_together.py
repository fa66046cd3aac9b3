"""Several faults in force at the same time: injected in turn, held once, each proven, reverted the last first."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from chaoslib.exceptions import InterruptExecution

from frangible import admission
from frangible.actions.together import hold_together
from frangible.admission import Admission, Link
from frangible.channel import Channel, Message
from frangible.errors import FaultError, Refused
from frangible.fault import FaultRegistry
from frangible.inventory import Environment
from frangible.ledger import LeaseState, Ledger
from frangible.platforms.hosts import HostsPlatform

SET = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
READ = "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text())"
STATE = "test -e $0.slow && sleep 0.4; test -e $0 && echo on || echo off"
LOSS = {"module": "frangible.actions.node_loss", "func": "lose_nodes", "arguments": {"role": "execution"}}
SURGE = {"module": "frangible.actions.volume_surge", "func": "surge_volume"}


@dataclass
class Site:
    """An environment of files: a node is on while its file exists, and a file has the rate. The other end of the link is a real supervisor's in miniature."""

    folder: Path
    ledger: Ledger
    heard: list[Message] = field(default_factory=list)
    allowed: bool = True
    abort_when: str = ""
    """The state of a fault at which the run is aborted."""

    @property
    def in_force(self) -> set[str]:
        """What is broken now, looked at in the target."""
        off = {node for node in ("n1", "n2") if not (self.folder / node).exists()}
        return off | ({"load"} if (self.folder / "rate").read_text() != "40" else set())

    def states(self, state: str, least: int = 0) -> list[str]:
        """Kinds of the faults that were told to be in this state, in order, once there are so many of them."""
        end = time.monotonic() + 60
        while least and len(self.states(state)) < least and time.monotonic() < end:
            time.sleep(0.01)
        return [message["fault"] for message in self.heard if message["type"] == "fault" and message["state"] == state]

    def supervise(self, end: Channel) -> None:
        """Hear what is told and allow what is asked."""
        for message in end.messages():
            self.heard.append(message | {"in force": sorted(self.in_force)})
            if message["type"] == "ask":
                answer = {"type": "answer", "number": message["number"], "allowed": self.allowed, "reasons": [] if self.allowed else ["halt is set"]}
                end.send(answer)
            if self.abort_when and message.get("state") == self.abort_when:
                end.send({"type": "abort", "reason": "somebody pulled the cord"})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    for name, text in (("n1", ""), ("n2", ""), ("rate", "40")):
        (tmp_path / name).write_text(text)
    rate, node = str(tmp_path / "rate"), str(tmp_path / "{node}")
    platform = {
        "kind": "hosts",
        "root": str(tmp_path / "root"),
        "locks": str(tmp_path / "locks"),
        "power": {"driver": "command", "on": ["touch", node], "off": ["rm", "-f", node], "state": ["sh", "-c", STATE, node]},
        "load": {"driver": "command", "read": [sys.executable, "-c", READ, rate], "set": [sys.executable, "-c", SET, rate, "{rate}"]},
    }
    declared = {"name": "ny", "region": "ny", "tier": "staging", "owner": {"team": "t"}, "platform": platform, "volume": {"highest-per-second": 40}}
    nodes = [{"name": "n1", "roles": ["execution"]}, {"name": "n2", "roles": ["gateway"]}]
    environment = Environment.model_validate({**declared, "nodes": nodes}, strict=False)
    plan: Any = SimpleNamespace(run_id="r1", environment=environment, keys=("environment:ny",), seed=7, windows=SimpleNamespace(settle=0.0))
    ours, theirs = Channel.pair()
    with contextlib.closing(Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger:
        site = Site(tmp_path, ledger)
        thread = threading.Thread(target=site.supervise, args=(theirs,))
        thread.start()
        admission.admit(Admission(plan, Link(ours), lambda: ledger, lambda: HostsPlatform(environment), FaultRegistry()))
        try:
            yield site
        finally:
            admission.withdraw()
            ours.close()
            thread.join()
            theirs.close()


def test_two_faults_are_held_together_and_reverted_the_last_first(site: Site) -> None:
    """The first proof comes when both are in force; whoever looks into the target sees the surge end before the node comes back."""
    done = hold_together([LOSS, SURGE], hold=1.2)
    parts = cast("list[dict[str, Any]]", done["together"])
    assert [(part["fault"], part["targets"], part["seed"], part["proven"]) for part in parts] == [
        ("node-loss", ["node n1"], 7, [1.0]),
        ("volume-surge", ["load ny"], 8, [1.0]),
    ]
    assert [site.states(state, 2) for state in ("injected", "reverted")] == [["node-loss", "volume-surge"], ["volume-surge", "node-loss"]]
    proofs = [message for message in site.heard if message.get("state") == "proven"]
    assert len(proofs) >= 4
    assert all(message["in force"] == ["load", "n1"] for message in proofs)
    assert site.in_force == set()
    assert [lease.state for lease in site.ledger.leases("r1")] == [LeaseState.REVERTED] * 2


def test_the_guards_are_asked_once_about_everything_and_their_no_is_for_everything(site: Site) -> None:
    """A surge that is allowed alone is not offered when the loss beside it is refused."""
    site.allowed = False
    with pytest.raises(Refused, match="halt is set"):
        hold_together([LOSS, SURGE], hold=0.1)
    (asked,) = [message for message in site.heard if message["type"] == "ask"]
    assert (asked["targets"], asked["load_times"]) == (["n1"], 2.0)
    assert site.states("injecting") == []


def test_when_the_second_cannot_be_injected_the_first_is_reverted(site: Site) -> None:
    """A surge to what is offered already shows nothing: it is refused, and the node that was lost for it is back."""
    (site.folder / "rate").write_text("80")
    with pytest.raises(Refused, match="would be no surge"):
        hold_together([LOSS, SURGE], hold=0.1)
    assert site.states("reverted") == ["node-loss"]
    assert site.in_force == {"load"}  # as somebody else has set it
    assert site.ledger.open_leases() == ()


def test_an_abort_reverts_all_of_them(site: Site) -> None:
    """The run is stopped while both are in force: both end, and the toolkit is told to end too."""
    site.abort_when = "proven"
    with pytest.raises(InterruptExecution, match="somebody pulled the cord"):
        hold_together([LOSS, SURGE], hold=60.0)
    assert site.in_force == set()
    assert site.ledger.open_leases() == ()


def test_the_same_fault_twice_on_one_target_is_refused(site: Site) -> None:
    """The second revert would find what the first has undone."""
    with pytest.raises(Refused, match="asked for node-loss on node n1 more than once"):
        hold_together([LOSS, SURGE, LOSS], hold=0.1)
    assert site.in_force == set()


def test_what_comes_after_it_is_injected_as_ever(site: Site) -> None:
    """Collecting ends with the action, also when one of the faults cannot be built."""
    with pytest.raises(FaultError, match="expected a factor above 1"):
        hold_together([LOSS, {**SURGE, "arguments": {"factor": 0.5}}], hold=0.1)
    with pytest.raises(FaultError, match="expected `module` and `func`"):
        hold_together([LOSS, {"module": "frangible.actions.none", "func": "x"}], hold=0.1)
    from frangible.actions.node_loss import lose_nodes

    assert lose_nodes(name="n2", hold=0.1)["targets"] == ["node n2"]


def test_the_hold_begins_when_the_fault_has_been_seen(site: Site) -> None:
    """A first look that takes longer than the hold does not end it: the effect lasts from the first proof to the last, and that is what was asked for."""
    from frangible.actions.node_loss import lose_nodes

    (site.folder / "n2.slow").touch()
    lose_nodes(name="n2", hold=0.3)
    assert len(site.states("proven", 2)) >= 2
