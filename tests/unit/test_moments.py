"""Points in time as people write them."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frangible.moments import parse_moment, shown

LONDON = ZoneInfo("Europe/London")
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-12-01T18:00Z", datetime(2026, 12, 1, 18, tzinfo=UTC), id="Z"),
        pytest.param("2026-12-01T18:00+01:00", datetime(2026, 12, 1, 17, tzinfo=UTC), id="offset"),
        pytest.param("2026-12-01T18:00 Europe/London", datetime(2026, 12, 1, 18, tzinfo=UTC), id="winter"),
        pytest.param(" 2026-07-01T18:00:30  Europe/London ", datetime(2026, 7, 1, 17, 0, 30, tzinfo=UTC), id="summer"),
        pytest.param("2026-07-01T18:00 America/New_York", datetime(2026, 7, 1, 22, tzinfo=UTC), id="New York"),
        pytest.param("14:00 UTC", datetime(2026, 6, 1, 14, tzinfo=UTC), id="later today"),
        pytest.param("14:00 Europe/London", datetime(2026, 6, 1, 13, tzinfo=UTC), id="later today in London"),
        pytest.param("12:00 UTC", datetime(2026, 6, 2, 12, tzinfo=UTC), id="now is not next"),
        pytest.param("01:00 Asia/Tokyo", datetime(2026, 6, 1, 16, tzinfo=UTC), id="tomorrow there"),
    ],
)
def test_a_time_means_a_point_in_time(text, expected):
    assert parse_moment(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tomorrow", "expected a time such as"),
        ("2026-12-01", "no time of day"),
        ("2026-13-01T00:00", "expected a time such as"),
        ("2026-12-01T18:00 Europe/Lodnon", "expected a time zone"),
        ("2026-12-01T18:00 ../../etc", "expected a time such as"),
        ("2026-12-01T18:00Z Europe/London", "found two"),
        ("2026-03-29T01:30 Europe/London", "the clocks skip"),
        ("2026-10-25T01:30 Europe/London", "show 2026-10-25T01:30:00 twice there; give its offset, such as 2026-10-25T01:30:00+01:00"),
        ("", "expected a time such as"),
    ],
)
def test_what_means_no_time_or_two_is_refused(text, says):
    with pytest.raises(ValueError, match=says.replace("+", r"\+")):
        parse_moment(text, NOW)


def test_a_time_of_day_needs_a_day():
    with pytest.raises(ValueError, match="without its date"):
        parse_moment("18:00")


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-12 * 60, 14 * 60))
def test_what_is_written_with_its_offset_is_read_as_it_was(at, minutes):
    moment = at.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_moment(moment.isoformat()) == moment


@given(st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_the_next_time_of_day_is_within_a_day(later):
    now = NOW + later
    found = parse_moment("03:30 Europe/London", now)
    assert timedelta(0) < found - now <= timedelta(hours=25)
    assert f"{found.astimezone(LONDON):%H:%M}" == "03:30"


def test_a_zone_that_is_not_given_is_this_machines():
    assert parse_moment("2026-06-01T12:00") == datetime.fromisoformat("2026-06-01T12:00").astimezone()
    assert shown(datetime(2026, 6, 1, 12, tzinfo=LONDON)) == "2026-06-01 12:00:00+01:00"
