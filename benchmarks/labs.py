"""The lab that a benchmark uses."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from frangible.home import Home
from frangible.lab import down, status, up

__all__ = ["lab"]


@contextlib.contextmanager
def lab(given: Path | None) -> Iterator[Home]:
    """Use the lab of a home that is up already, or bring one up and down again."""
    if given is not None:
        home = Home(given)
        if status(home.lab) is None:
            raise SystemExit(f"no lab is up in {given}; start it with FRANGIBLE_HOME={given} frangible lab up")
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="frangible-benchmark-") as folder:
        home = Home(Path(folder))
        up(home.lab, lambda line: print(f"lab: {line}", file=sys.stderr))
        try:
            yield home
        finally:
            down(home.lab)
