"""What `frangible recover` does on a machine that has the inventory and the kubeconfig and nothing else: the copies in the cluster are all it knows."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from frangible.fault import FaultRegistry, Target
from frangible.home import Home
from frangible.inventory import load_inventory
from frangible.ledger import Lease, LeaseState
from frangible.platforms import Platform, open_platform
from frangible.process import ProcessIdentity
from frangible.recovery import RecoveryReport, recover
from frangible.reverting import SKEW

from ..apiserver import ApiServer, Objects
from .conftest import Declare

ELSEWHERE = replace(ProcessIdentity.current(), host="a-lost-laptop", boot="another")
LOAD = {"driver": "configmap", "name": "generator", "key": "rate"}


class Left:
    """A volume surge that another machine has left in force in an environment."""

    def __init__(self, platform: Platform, name: str, inventory: Path, home: Home) -> None:
        self.platform, self.name, self.inventory, self.home = platform, name, inventory, home

    def lease(self, expires_in: float, **changes: object) -> Lease:
        """Put its copy into the cluster and the surge in force, as an injector would."""
        now = time.time()
        lease = Lease(
            id="r1-ab",
            run_id="r1",
            environment=f"env-{self.name}",
            fault="volume-surge",
            fault_module="frangible.actions.volume_surge",
            fault_version=1,
            parameters={"factor": 4.0},
            target=Target("load", f"env-{self.name}"),
            prior={"rate": 100.0, "wanted": 400.0},
            keys=(f"environment:env-{self.name}",),
            state=LeaseState.INTENDED,
            injector=ELSEWHERE,
            created_at=now,
            updated_at=now,
            expires_at=now + expires_in,
        )
        lease = replace(lease, **changes)  # type: ignore[arg-type]
        self.platform.put_lease_copy(lease.target.node, lease.id, lease.to_json())
        self.platform.set_load(400.0)
        return lease

    def recover(self) -> RecoveryReport:
        """Look from a machine with a home of its own."""
        return recover(self.home, load_inventory(self.inventory), registry=FaultRegistry())


@pytest.fixture
def left(declare: Declare, objects: Objects, name: str, tmp_path: Path) -> Left:
    objects.core.create_namespaced_config_map(name, {"metadata": {"name": "generator"}, "data": {"rate": "100"}})
    platform = open_platform(declare({"load": LOAD, "namespace": name}))
    return Left(platform, name, tmp_path / "inventory.yaml", Home(tmp_path / "another-home"))


def test_what_a_lost_machine_left_is_reverted_once_its_lease_has_expired(left: Left) -> None:
    """Nothing of it is in the ledger of whoever recovers; the copy goes, and a second look finds nothing."""
    left.lease(expires_in=-SKEW - 1)
    report = left.recover()
    assert (report.clean, len(report.reverted)) == (True, 1), report
    assert report.reverted[0].startswith("r1-ab (volume-surge on load env-")
    assert left.platform.load().rate == 100.0
    assert left.platform.lease_copies() == {}
    assert left.recover() == RecoveryReport()


@pytest.mark.parametrize(
    ("expires_in", "injector"),
    [(60.0, ELSEWHERE), (-1.0, ELSEWHERE), (60.0, replace(ProcessIdentity.current(), boot="another"))],
    ids=["not expired", "expired by our clock and perhaps not by its own", "a machine of our name"],
)
def test_an_injector_that_may_still_act_is_waited_for(left: Left, expires_in: float, injector: ProcessIdentity) -> None:
    """It cannot be killed from here: nothing is touched, the report says for how long, and the copy stays for the next look."""
    left.lease(expires_in, injector=injector)
    report = left.recover()
    assert (report.clean, report.reverted) == (False, [])
    assert f"its injector runs on {injector.host} and may still act for" in report.failed[0]
    assert "frangible recover --watch" in report.failed[0]
    assert left.platform.load().rate == 400.0
    assert set(left.platform.lease_copies()) == {"r1-ab"}


def test_a_run_whose_supervisor_holds_its_lock_in_the_cluster_is_left_alone(left: Left) -> None:
    """It lives on another machine and renews the lock; once that is over, its lease is anybody's."""
    left.lease(expires_in=-SKEW - 1)
    held = left.platform.locks().acquire(f"environment:env-{left.name}", "r1", ELSEWHERE, 600)
    assert left.recover() == RecoveryReport()
    assert left.platform.load().rate == 400.0
    left.platform.locks().release(held)
    assert left.recover().reverted
    assert left.platform.load().rate == 100.0


def test_what_nobody_can_read_or_revert_is_told_and_kept(left: Left) -> None:
    """A damaged copy, a fault that this machine has not, an environment that its inventory has forgotten: each is named, once, and the rest is reverted.

    Every environment of the inventory sees the copies of all that share its namespace.
    """
    document = yaml.safe_load(left.inventory.read_text())
    document["environments"].append(document["environments"][0] | {"name": "a-neighbour"})
    left.inventory.write_text(yaml.safe_dump(document))
    left.lease(-SKEW - 1, id="r0-aa", fault="no-such-fault")
    left.lease(-SKEW - 1, id="r0-ab", environment="forgotten")
    left.lease(-SKEW - 1)
    left.platform.put_lease_copy("n", "r0-ac", "half a le")
    report = left.recover()
    assert [one.partition(" ")[0] for one in report.reverted] == ["r1-ab"]
    assert sorted(one.partition(" ")[0] for one in report.failed) == ["r0-aa", "r0-ab"]
    assert any("known faults" in one for one in report.failed)
    assert any("has no environment 'forgotten'" in one for one in report.failed)
    assert [one.partition(" is left alone")[0] for one in report.problems] == ["the lease copy r0-ac"]
    assert set(left.platform.lease_copies()) == {"r0-aa", "r0-ab", "r0-ac"}


def test_a_cluster_that_does_not_answer_is_a_problem_and_no_clean_bill(left: Left, api: ApiServer) -> None:
    left.lease(expires_in=-SKEW - 1)
    api.kill_api()
    report = left.recover()
    api.start_api()
    assert (report.clean, report.reverted) == (False, [])
    assert "its lease copies cannot be read" in report.problems[0]
    assert left.recover().reverted
