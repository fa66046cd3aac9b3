"""Fingerprints of real inventory models on the real hosts platform."""

from pathlib import Path

import pytest

from frangible.fingerprint import capture, diff, digest
from frangible.inventory import Environment
from frangible.platforms.hosts import HostsPlatform


def environment(folder: Path, **others: object) -> Environment:
    return Environment.model_validate(
        {
            "name": "nyc-1",
            "region": "nyc",
            "tier": "staging",
            "owner": {"team": "equities"},
            "platform": {"kind": "hosts", "root": str(folder / "root"), "locks": str(folder / "locks")},
            "labels": {"cluster": "nyc-1"},
            "nodes": [{"name": "app-1", "roles": ["gateway", "risk"], "cpus": 0.5}, {"name": "core-1"}],
            "services": [{"name": "gateway", "version": "7.1", "role": "gateway"}],
            "middleware": [{"name": "nats", "version": "2.15", "nodes": ["core-1"]}],
            **others,
        },
        strict=False,
    )


def captured(folder: Path, **others: object) -> dict[str, str]:
    declared = environment(folder, **others)
    return capture(declared, HostsPlatform(declared))


def test_a_fingerprint_holds_what_is_declared_and_what_is_seen(tmp_path: Path) -> None:
    found = captured(tmp_path)
    assert list(found) == sorted(found)
    assert {
        "label.cluster": "nyc-1",
        "node.app-1.roles": "gateway,risk",
        "node.app-1.cpus": "0.5",
        "service.gateway.version": "7.1",
        "service.gateway.role": "gateway",
        "middleware.nats.version": "2.15",
        "middleware.nats.nodes": "core-1",
    }.items() <= found.items()
    assert "kernel.release" in found
    assert "node.core-1.cpus" not in found


def test_the_same_environment_has_the_same_digest_every_time(tmp_path: Path) -> None:
    reordered = captured(tmp_path, nodes=[{"name": "core-1"}, {"name": "app-1", "roles": ["risk", "gateway"], "cpus": 0.5}])
    assert digest(captured(tmp_path)) == digest(reordered)


def test_a_digest_is_the_sha256_of_canonical_json() -> None:
    # printf '{"a":"1","b":"\\u00e9"}' | sha256sum
    assert digest({"b": "é", "a": "1"}) == "1e2ce7c414b7baaf92d946007db7a04298839eed25a82871b000c0a91eb7a0ed"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"middleware": [{"name": "nats", "version": "2.16", "nodes": ["core-1"]}]}, ("middleware.nats.version", "2.15", "2.16")),
        ({"labels": {}}, ("label.cluster", "nyc-1", None)),
        ({"labels": {"cluster": "nyc-1", "zone": "a"}}, ("label.zone", None, "a")),
    ],
    ids=["changed", "gone", "new"],
)
def test_a_difference_names_what_changed_from_what_to_what(tmp_path: Path, changed: dict[str, object], difference: tuple[str, str | None, str | None]) -> None:
    before, after = captured(tmp_path), captured(tmp_path, **changed)
    assert diff(before, after) == (difference,)
    assert digest(before) != digest(after)


def test_what_did_not_change_makes_no_difference(tmp_path: Path) -> None:
    assert diff(captured(tmp_path), captured(tmp_path)) == ()
    assert diff({"b": "1", "a": "1"}, {}) == (("a", "1", None), ("b", "1", None))
