"""The command line: one small module a command, imported when it is used."""

import gc
import sys

from frangible.cli.early import started

__all__ = ["main"]

STARTING = 200_000
"""Objects that a command makes before it looks for garbage: what imports make is none."""


def main() -> int:
    """Run the command that `sys.argv` names and return its exit code; the entry point of `frangible`."""
    gc.set_threshold(STARTING)
    try:
        with started(sys.argv[1:]):
            from frangible.cli.group import app

            app(prog_name="frangible")
    except SystemExit as end:
        if isinstance(end.code, int):
            return end.code
        if end.code is not None:
            sys.stderr.write(f"frangible: {end.code}\n")
            return 1
    finally:
        gc.freeze()  # what is left is not searched for garbage once more
    return 0
