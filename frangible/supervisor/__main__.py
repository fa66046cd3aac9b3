"""`python -m frangible.supervisor FOLDER`: started by `frangible run`, or by the control under `chaos run`."""

import argparse
import subprocess
import sys
from pathlib import Path

from frangible.channel import Channel
from frangible.plan import Plan


def main() -> int:
    """Watch the run of a folder until it has ended; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m frangible.supervisor")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--starter", type=int, default=None, help="file descriptor of the channel to whoever started the run")
    parser.add_argument("--child", type=int, default=None, help="file descriptor of the channel to the chaoslib process; it is started when missing")
    options = parser.parse_args()
    starter = None if options.starter is None else Channel.inherited(options.starter)
    process = None
    if options.child is not None:
        child = Channel.inherited(options.child)
    else:
        # Started before the supervisor is imported: it imports chaoslib on another processor meanwhile.
        child, theirs = Channel.pair()
        process = start_runner(options.folder, theirs)
        theirs.close_here()
    from frangible.supervisor.watch import Supervisor

    return Supervisor(Plan.load(options.folder), child, child_process=process, starter=starter).run()


def start_runner(folder: Path, channel: Channel) -> "subprocess.Popen[bytes]":
    """Start the chaoslib process; its output goes to the run's `chaos.log`."""
    with (folder / "chaos.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "frangible.runner", str(folder), "--supervisor", str(channel.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(channel.fileno(),),
        )


if __name__ == "__main__":
    sys.exit(main())
