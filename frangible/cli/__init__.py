"""The command line: one small module a command, imported when it is used."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command that `sys.argv` names and return its exit code; the entry point of `frangible`."""
    from frangible.cli.group import app

    try:
        app(prog_name="frangible")
    except SystemExit as end:
        if isinstance(end.code, int):
            return end.code
        if end.code is not None:
            sys.stderr.write(f"frangible: {end.code}\n")
            return 1
    return 0
