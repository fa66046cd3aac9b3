"""The chaoslib process of `frangible run`: one experiment, run by Chaos Toolkit itself, watched by a supervisor."""

import argparse
import gc
import json
import logging
import platform
import sys
from pathlib import Path

from frangible import ahead
from frangible.admission import Link, RunAborted
from frangible.channel import Channel
from frangible.plan import Plan

SETTINGS = {"runtime": {"rollbacks": {"strategy": "always"}}}


def main() -> int:
    """Run the experiment of a run's folder; the supervisor knows how it ended."""
    parser = argparse.ArgumentParser(prog="python -m frangible.runner")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--supervisor", type=int, required=True, help="file descriptor of the channel to the supervisor")
    parser.add_argument("--ahead", type=int, default=None, help="wait for the plan; file descriptor of the channel to whoever asks meanwhile")
    options = parser.parse_args()
    channel = Channel.inherited(options.supervisor)
    if options.ahead is not None and not _begin(options.folder, channel, Channel.inherited(options.ahead)):
        return 0
    return run(Plan.load(options.folder), Link(channel))


def _begin(folder: Path, supervisor: Channel, asking: Channel) -> bool:
    """Import everything, wait for the plan, answer questions meanwhile; False where there will be no plan."""
    failure = ahead.imported(ahead.RUNNER)
    platform.platform()  # the toolkit will ask for it, and it starts a process
    if not ahead.told_to_go(supervisor, asking):
        return False
    ahead.log_to(folder / "chaos.log")
    if failure is not None:
        raise failure
    return True


def run(plan: Plan, link: Link) -> int:
    """Run the experiment of an admitted plan; return the exit code of this process."""
    from chaoslib.experiment import run_experiment

    from frangible import control

    _log_to_stderr()
    control.expect(plan, link)
    experiment = json.loads(plan.document_path.read_text())
    experiment.setdefault("runtime", {}).setdefault("rollbacks", {})["strategy"] = "always"
    if plan.has_control:
        run_experiment(experiment, settings=SETTINGS)
        return 0
    return _run_without_control(experiment, link)


def _run_without_control(experiment: "dict[str, object]", link: Link) -> int:
    """Run an experiment that injects nothing and declares no control: admitted and journalled all the same."""
    from chaoslib.experiment import run_experiment

    from frangible import control

    try:
        if link.hello()["type"] == "refused":
            return 4
        journal = run_experiment(experiment, settings=SETTINGS)
        link.method_over()
        link.tell({"type": "finished", "status": journal["status"], "journal": control.plain(journal)})
        link.ask_last("verdict")
    except RunAborted as error:
        logging.getLogger("frangible").warning("%s", error)
        return 1
    return 0


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    code = main()
    gc.freeze()  # what is left is not searched for garbage once more: the supervisor waits for the end of this process
    sys.exit(code)
