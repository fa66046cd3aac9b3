"""Waiting for a condition, with a limit."""

import time
from collections.abc import Callable

import pytest

__all__ = ["eventually"]


def eventually[T](look: Callable[[], T | None], what: str, *, within: float = 60.0) -> T:
    """Return the first true answer; fail when there is none for a long time."""
    deadline = time.monotonic() + within
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what}")
        time.sleep(0.1)
