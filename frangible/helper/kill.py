"""Kill every process of some containers of this node at once: `python3 -m frangible.helper.kill --lease L --containers ID,ID`.

The pod needs the node's process ids (`hostPID`) and must be privileged. Nothing of it lasts, so there is nothing to undo.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from frangible.helper.notes import Process
from frangible.helper.pause import inside

__all__ = ["main"]

PATIENCE = 5.0
"""Seconds that what was killed has to be gone."""


def kill(containers: Sequence[str], patience: float = PATIENCE) -> str:
    """Kill what runs in these containers now, and return what is left of it after a while; empty when nothing is."""
    found = inside(containers)
    missing = [one[:12] for one in containers if one not in found]
    if missing:
        return f"no process of container {', '.join(missing)} on this node"
    killed = [one for them in found.values() for one in them]
    for one in killed:
        one.signal(signal.SIGKILL)
    end = time.monotonic() + patience
    while left := [one.pid for one in killed if (now := Process.of(one.pid)) is not None and now.start == one.start]:
        if time.monotonic() > end:
            return f"processes {', '.join(map(str, left))} do not end"
        time.sleep(0.05)
    return ""


def main(arguments: Sequence[str]) -> int:
    """Return 0 when all of it is gone, 1 when that could not be done."""
    parser = argparse.ArgumentParser(prog="kill", description="Kill every process of some containers of this node.")
    parser.add_argument("--lease", required=True)
    parser.add_argument("--containers", required=True, help="ids with commas")
    wrong = kill(parser.parse_args(arguments).containers.split(","))
    sys.stdout.write(f"{wrong or 'killed'}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
