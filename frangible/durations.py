"""Durations: `250ms`, `10s`, `2m`, `1h`, `7d` in files, float seconds in Python."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

__all__ = ["PATTERN", "Positive", "Seconds", "format_duration", "parse_duration"]

PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 366 * 24 * 3600.0
"""No window of an experiment is longer than a year; more is a slip of the keyboard."""


def parse_duration(text: str) -> float:
    """Return seconds; raise `ValueError` for anything but a number with one of the units ms, s, m, h, d."""
    if not re.fullmatch(PATTERN, text, re.ASCII):
        raise ValueError(f"expected a duration such as 250ms, 10s, 2m or 1h, found {text!r}")
    number = text.rstrip("mshd")
    seconds = float(number) * UNITS[text[len(number) :]]
    if seconds > LONGEST:
        raise ValueError(f"expected a duration of at most a year, found {text!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """Render seconds as a duration that `parse_duration` reads, in the largest unit that stays exact to a millisecond."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _seconds(value: object, info: ValidationInfo) -> object:
    """Read the text of a file; plain seconds are for Python and for our own JSON, where the unit is agreed."""
    if isinstance(value, str):
        return parse_duration(value)
    from_file = bool(info.context and info.context.get("file"))
    if from_file and isinstance(value, int | float):
        raise ValueError(f"expected a duration with its unit, such as {value}s or {value}ms, found {value!r}")
    return value


_SCHEMA = WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["250ms", "10s", "2m", "1h", "7d"]})

type Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_seconds), _SCHEMA]
"""A duration that may be zero."""
type Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_seconds), _SCHEMA]
"""A duration longer than zero."""
