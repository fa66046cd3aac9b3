"""Points in time as people write them: `2026-12-01T18:00 Europe/London`, with the time zone that they mean. Pure, but for this machine's time zone."""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

__all__ = ["parse_moment", "shown"]

FORM = re.compile(r"(?P<when>\S+)(?:[ ]+(?P<zone>[A-Za-z]\S*))?")
TIME_OF_DAY = re.compile(r"\d\d:\d\d(:\d\d)?")
EXPECTED = "expected a time such as 2026-12-01T18:00, 2026-12-01T18:00+01:00 or `2026-12-01T18:00 Europe/London`"


def parse_moment(text: str, now: datetime | None = None) -> datetime:
    """Return the point in time that a text means; raise `ValueError` when it means none, or could mean two.

    Without a zone it is this machine's. With `now` a time of day means the next one, today or tomorrow.
    """
    found = FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{EXPECTED}, found {text!r}")
    zone = _zone(found["zone"]) if found["zone"] else None
    if TIME_OF_DAY.fullmatch(found["when"]):
        if now is None:
            raise ValueError(f"{EXPECTED}, found the time of day {text!r} without its date")
        return _next(time.fromisoformat(found["when"]), zone, now)
    try:
        moment = datetime.fromisoformat(found["when"])
    except ValueError:
        raise ValueError(f"{EXPECTED}, found {text!r}") from None
    if "T" not in found["when"]:
        raise ValueError(f"{EXPECTED}, found {text!r}, which has no time of day")
    if moment.tzinfo is not None:
        if zone is not None:
            raise ValueError(f"expected one time zone, found two in {text!r}")
        return moment
    return _placed(moment, zone)


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name.upper() in {"Z", "UTC"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone of this machine's database such as Europe/London, found {name!r}") from None


def _next(at: time, zone: tzinfo | None, now: datetime) -> datetime:
    today = now.astimezone(zone).date()
    soonest = _placed(datetime.combine(today, at), zone)
    return soonest if soonest > now else _placed(datetime.combine(today + timedelta(days=1), at), zone)


def _placed(naive: datetime, zone: tzinfo | None) -> datetime:
    """Put a wall clock's time into a zone; a time that its clocks skip, or show twice, is refused."""
    readings = [naive.replace(tzinfo=zone, fold=fold).astimezone(UTC).astimezone(zone) for fold in (0, 1)]
    shown_then = [reading.replace(tzinfo=None, fold=0) for reading in readings]
    if shown_then != [naive, naive]:
        raise ValueError(f"the clocks skip {naive.isoformat()} there; give another time")
    if readings[0].astimezone(UTC) != readings[1].astimezone(UTC):
        raise ValueError(f"the clocks show {naive.isoformat()} twice there; give its offset, such as {readings[0].isoformat()}")
    return readings[0]


def shown(moment: datetime) -> str:
    """Render it for people: as it is in its own zone, with the offset."""
    return f"{moment:%Y-%m-%d %H:%M:%S%:z}"
