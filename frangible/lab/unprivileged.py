"""Run a program as `nobody` when we are root: PostgreSQL refuses to be root.

`python -m frangible.lab.unprivileged PROGRAM ARGUMENT...` becomes PROGRAM. Where the lab or the program lies below a folder that only root may
enter (such as /root), it keeps the one capability to pass through folders (capabilities(7)), so that nobody's permissions need widening.
"""

import ctypes
import os
import pwd
import struct
import sys
from pathlib import Path

__all__ = ["USER", "main"]

USER = "nobody"
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


def _hidden(path: Path) -> bool:
    """Whether other users cannot pass through the folders above a path."""
    return any(not folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def _keep(libc: ctypes.CDLL, capability: int) -> bool:
    """Keep one capability across exec; False when this process does not own it (a container may have taken it)."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    bits = 1 << capability
    data = struct.pack("=6I", bits, bits, bits, 0, 0, 0)
    kept = libc.capset(header, data) == 0 and libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0
    return bool(kept)


def _become(user: str, *, pass_through: bool) -> None:
    entry = pwd.getpwnam(user)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, int(pass_through), 0, 0, 0)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    if pass_through and not (_keep(libc, CAP_DAC_READ_SEARCH) or _keep(libc, CAP_DAC_OVERRIDE)):
        print(f"{user} may not pass through the lab's parent folders; set FRANGIBLE_HOME to a folder that it may enter", file=sys.stderr)  # noqa: T201


def main(arguments: list[str]) -> None:
    """Become the program."""
    if os.geteuid() == 0:
        paths = [Path(argument) for argument in arguments if argument.startswith("/")]
        _become(USER, pass_through=any(_hidden(path) for path in paths))
    os.execv(arguments[0], arguments)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
