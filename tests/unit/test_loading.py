"""The offered load: commands that read and set it, and the surge on it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from frangible.actions.volume_surge import VolumeSurge
from frangible.environment import Limits
from frangible.errors import FaultError, PlatformError, Refused
from frangible.fault import Target
from frangible.guard import decide
from frangible.inventory import Environment
from frangible.platforms.hosts import HostsPlatform

from .test_guard import FINE

LOAD = Target("load", "nyc-1")
SET = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
READ = "import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text())"

type Declare = Callable[..., HostsPlatform]


@pytest.fixture
def rate(tmp_path: Path) -> Path:
    """The file that a generator would follow."""
    file = tmp_path / "rate"
    file.write_text("40")
    return file


@pytest.fixture
def declare(tmp_path: Path, rate: Path) -> Declare:
    def build(**more: object) -> HostsPlatform:
        load = {"driver": "command", "read": [sys.executable, "-c", READ, str(rate)], "set": [sys.executable, "-c", SET, str(rate), "{rate}"]}
        platform = {"kind": "hosts", "root": str(tmp_path / "root"), "locks": str(tmp_path / "locks"), "load": load}
        found = {"name": "nyc-1", "region": "nyc", "tier": "staging", "owner": {"team": "t"}, "platform": platform, **more}
        return HostsPlatform(Environment.model_validate(found, strict=False))

    return build


def test_twice_the_highest_of_six_months_is_offered_and_exactly_what_was_before_afterwards(declare: Declare, rate: Path) -> None:
    rate.write_text("33.333333333")
    platform, fault = declare(volume={"highest-per-second": 40}), VolumeSurge()
    assert platform.primitives == {"load"}
    prior = fault.capture(platform, LOAD)
    fault.inject(platform, LOAD, prior)
    assert float(rate.read_text()) == 80
    seen = fault.observe(platform, LOAD, prior)
    assert (seen.real, seen.measured) == (True, 80.0)
    assert not fault.observe_reverted(platform, LOAD, prior).real
    for _ in range(2):
        fault.revert(platform, LOAD, prior)
        assert rate.read_text() == "33.333333333"
        assert fault.observe_reverted(platform, LOAD, prior).real


def test_a_factor_multiplies_what_is_offered_now(declare: Declare, rate: Path) -> None:
    platform, fault = declare(), VolumeSurge(1.5)
    fault.inject(platform, LOAD, fault.capture(platform, LOAD))
    assert float(rate.read_text()) == 60
    assert VolumeSurge(2.5).times(platform) == 2.5


def test_what_somebody_else_has_set_meanwhile_is_left_alone(declare: Declare, rate: Path) -> None:
    platform, fault = declare(), VolumeSurge(2.0)
    prior = fault.capture(platform, LOAD)
    fault.inject(platform, LOAD, prior)
    rate.write_text("55")
    assert "somebody else" in fault.observe(platform, LOAD, prior).detail
    fault.revert(platform, LOAD, prior)
    assert rate.read_text() == "55"
    gone = fault.observe_reverted(platform, LOAD, prior)
    assert (gone.real, "somebody else" in gone.detail) == (True, True)


def test_a_load_that_high_already_is_refused(declare: Declare, rate: Path) -> None:
    rate.write_text("80")
    with pytest.raises(Refused, match="would be no surge"):
        VolumeSurge().capture(declare(volume={"highest-per-second": 40}), LOAD)


def test_without_a_highest_volume_a_factor_is_asked_for(declare: Declare) -> None:
    with pytest.raises(Refused, match="declare `volume`, or give a `factor`"):
        VolumeSurge().capture(declare(), LOAD)


def test_from_nothing_no_limit_is_kept(declare: Declare, rate: Path) -> None:
    rate.write_text("0")
    times = VolumeSurge().times(declare(volume={"highest-per-second": 40}))
    assert not decide(replace(FINE, load_times=times)).allowed


@pytest.mark.parametrize("factor", [1.0, 0.5, -2.0, float("inf"), float("nan")])
def test_a_factor_that_is_no_surge_is_refused(factor: float) -> None:
    with pytest.raises(FaultError, match="above 1"):
        VolumeSurge(factor)


@pytest.mark.parametrize("said", ["", "many", "-1", "nan", "inf"])
def test_what_is_no_rate_is_an_error(declare: Declare, rate: Path, said: str) -> None:
    rate.write_text(said)
    with pytest.raises(PlatformError, match="expected a number of 0 or more"):
        declare().load()


def test_a_command_that_fails_says_so(declare: Declare, rate: Path) -> None:
    rate.unlink()
    with pytest.raises(PlatformError, match="load command `read`"):
        declare().load()


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({"driver": "command", "read": ["r"]}, "expected exactly `read`, `set`"),
        ({"driver": "command", "read": ["r"], "set": ["s"]}, "expected `{rate}` in an argument"),
        ({"driver": "rack"}, "expected exactly `socket`"),
        ({"driver": "rack", "socket": "/s", "read": ["r"]}, "expected exactly `socket`"),
    ],
    ids=["no set", "no rate", "no socket", "both"],
)
def test_a_declaration_that_cannot_work_is_refused(load: dict[str, object], said: str) -> None:
    platform = {"kind": "hosts", "root": "/r", "locks": "/l", "load": load}
    found = {"name": "nyc-1", "region": "nyc", "tier": "staging", "owner": {"team": "t"}, "platform": platform}
    with pytest.raises(ValidationError, match=said):
        Environment.model_validate(found, strict=False)


@given(limit=st.floats(min_value=1, max_value=100), times=st.floats(min_value=0, max_value=200))
def test_the_guard_allows_up_to_the_limit(limit: float, times: float) -> None:
    decision = decide(replace(FINE, limits=Limits(load_at_most=limit), load_times=times))
    assert decision.allowed or times > limit
    assert not decision.allowed or times <= limit + 1e-6
    assert decision.allowed or "load-at-most" in decision.reasons[0]


def test_a_number_that_is_none_is_no_yes() -> None:
    assert not decide(replace(FINE, load_times=float("nan"))).allowed
