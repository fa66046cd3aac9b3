"""`python -m frangible.supervisor FOLDER`: started by `frangible run`, or by the control under `chaos run`."""

import argparse
import contextlib
import os
import subprocess
import sys
from pathlib import Path

from frangible import ahead
from frangible.channel import Channel, ChannelClosed
from frangible.plan import Plan


def main() -> int:
    """Watch the run of a folder until it has ended; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m frangible.supervisor")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--starter", type=int, default=None, help="file descriptor of the channel to whoever started the run")
    parser.add_argument("--child", type=int, default=None, help="file descriptor of the channel to the chaoslib process; it is started when missing")
    parser.add_argument(
        "--ahead", type=int, default=None, help="wait for the plan; file descriptor of the chaoslib process's channel to whoever started the run"
    )
    options = parser.parse_args()
    starter = None if options.starter is None else Channel.inherited(options.starter)
    process = None
    if options.child is not None:
        child = Channel.inherited(options.child)
    else:
        # Started before the supervisor is imported: it imports chaoslib on another processor meanwhile.
        child, theirs = Channel.pair()
        process = start_runner(options.folder, theirs, options.ahead)
        theirs.close_here()
        if options.ahead is not None:
            os.close(options.ahead)
    if starter is not None and options.ahead is not None and not _begin(options.folder, starter, child):
        return 0
    from frangible.supervisor.watch import Supervisor

    return Supervisor(Plan.load(options.folder), child, child_process=process, starter=starter).run()


def _begin(folder: Path, starter: Channel, child: Channel) -> bool:
    """Import everything, wait for the plan, and pass the word on; False where there will be none."""
    failure = ahead.imported(ahead.SUPERVISOR)
    if not ahead.told_to_go(starter):
        return False
    ahead.log_to(folder / "supervisor.log")
    with contextlib.suppress(ChannelClosed):  # the supervisor notices by itself
        child.send({"type": "go"})
    if failure is not None:
        raise failure
    return True


def start_runner(folder: Path, channel: Channel, asking: int | None = None) -> "subprocess.Popen[bytes]":
    """Start the chaoslib process; its output goes to the run's `chaos.log`, once there is one."""
    command = [sys.executable, "-m", "frangible.runner", str(folder), "--supervisor", str(channel.fileno())]
    if asking is not None:
        return subprocess.Popen([*command, "--ahead", str(asking)], stdin=subprocess.DEVNULL, pass_fds=(channel.fileno(), asking))
    with (folder / "chaos.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(channel.fileno(),))


if __name__ == "__main__":
    ahead.leave(main())
