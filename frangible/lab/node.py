"""A node's first process: `python -m frangible.lab.node CONFIGURATION` is its supervisord.

It is a child subreaper (prctl(2)): whatever is orphaned on the node becomes its child, so the node's process tree is complete at any moment,
also for processes in sessions of their own.
"""

import ctypes
import os
import sys
from pathlib import Path

from supervisor import supervisord

__all__ = ["become_subreaper", "main"]

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Let orphaned descendants become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed: Linux 3.4 or later is needed")


def main(configuration: str) -> None:
    """Supervise the node's programs until killed."""
    become_subreaper()
    # The configuration names logs from here: supervisord expands their paths twice, so that no escape of a percent sign survives.
    file = Path(configuration)
    os.chdir(file.parent)
    supervisord.main(["--nodaemon", "--silent", "--configuration", file.name])


if __name__ == "__main__":
    main(sys.argv[1])
