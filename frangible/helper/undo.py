"""Undo what a lease has left on this node, from the note that lies there: `python3 -m frangible.helper.undo --lease L`.

For when the pod that did it can no longer: it was killed, or deleted without being waited for.
"""

import argparse
import sys
from collections.abc import Sequence

from frangible.helper.notes import all_notes

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Return 0 when nothing is left."""
    parser = argparse.ArgumentParser(prog="undo", description="Undo what a lease has left on this node.")
    parser.add_argument("--lease", required=True)
    asked = parser.parse_args(arguments)
    left = [one for note in all_notes(asked.lease) for one in note.undo()]
    sys.stdout.write(f"{left or 'nothing is left'}\n")
    return 2 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
