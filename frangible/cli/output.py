"""What all commands share when they print: JSON that parses, columns, times."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import typer

__all__ = ["columns", "json_document", "moment", "print_json", "span"]


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json_document(value))


def json_document(value: object) -> str:
    """Render strict JSON: numbers that JSON does not have (NaN, infinities) become null."""
    return json.dumps(_strict(value), indent=2, allow_nan=False)


def _strict(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_strict(item) for item in value]
    return value


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align rows under a header, two spaces between columns; nothing is cut, so pipes see everything."""
    widths = [max(len(row[number]) for row in [header, *rows]) for number in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join(lines)


def moment(epoch: float | None) -> str:
    """Render seconds since the epoch as UTC, to the second; a dash where there is none."""
    return "-" if epoch is None else f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%SZ}"


def span(seconds: float) -> str:
    """Render a length of time for people, such as `850 ms`, `12.5 s`, `3 min 5 s`, `2 h 4 min`."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
