"""Copies of leases as ConfigMaps of a real API server, and what `recover` makes of them from a machine that has nothing but the inventory."""

import pytest

from frangible.errors import PlatformError
from frangible.platforms import open_platform

from ..apiserver import Objects
from .conftest import Declare

TEXT = '{"run_id": "20261126-1800-00-abcd", "environment": "ny/equities"}'


@pytest.fixture
def own(declare: Declare, objects: Objects, name: str) -> dict[str, str]:
    """A namespace for frangible of the test's own."""
    return {"namespace": name}


def test_a_copy_is_found_by_anybody_replaced_and_removed(declare: Declare, own: dict[str, str], objects: Objects, name: str) -> None:
    """Its labels say run, lease, environment and node; what a label may not hold is cut and told apart by a hash."""
    one, other = open_platform(declare(own)), open_platform(declare(own))
    one.put_lease_copy("node-1", "r1-ab", TEXT)
    assert other.lease_copies() == {"r1-ab": TEXT}
    labels = objects.core.read_namespaced_config_map("frangible-lease-r1-ab", name).metadata.labels
    assert labels == {
        "app.kubernetes.io/managed-by": "frangible",
        "frangible.io/run": "20261126-1800-00-abcd",
        "frangible.io/lease": "r1-ab",
        "frangible.io/environment": labels["frangible.io/environment"],
        "frangible.io/node": "node-1",
    }
    assert labels["frangible.io/environment"].startswith("ny-equities.")
    one.put_lease_copy("node-1", "r1-ab", "{}")
    assert other.lease_copies() == {"r1-ab": "{}"}
    for platform in (other, one):
        platform.delete_lease_copy("node-1", "r1-ab")
    assert one.lease_copies() == {}


def test_ids_that_are_no_names_of_objects_are_kept_apart(declare: Declare, own: dict[str, str]) -> None:
    platform = open_platform(declare(own))
    ids = ("R1", "r1", "r1_", "r" * 300)
    for number, lease in enumerate(ids):
        platform.put_lease_copy("n", lease, str(number))
    assert platform.lease_copies() == {lease: str(number) for number, lease in enumerate(ids)}
    platform.delete_lease_copy("n", "R1")
    assert set(platform.lease_copies()) == set(ids) - {"R1"}


def test_what_others_keep_in_the_namespace_is_no_copy(declare: Declare, own: dict[str, str], objects: Objects, name: str) -> None:
    objects.core.create_namespaced_config_map(
        name, {"metadata": {"name": "theirs", "labels": {"app.kubernetes.io/managed-by": "helm"}}, "data": {"lease": "x"}}
    )
    assert open_platform(declare(own)).lease_copies() == {}


def test_a_copy_that_cannot_be_stored_is_an_error(declare: Declare) -> None:
    with pytest.raises(PlatformError, match=r"make it once with `kubectl create namespace nobody-made-it`, or name another with `platform.namespace`"):
        open_platform(declare({"namespace": "nobody-made-it"})).put_lease_copy("n", "r1-ab", TEXT)
