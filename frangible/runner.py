"""The chaoslib process of `frangible run`: one experiment, run by Chaos Toolkit itself, watched by a supervisor."""

import argparse
import json
import logging
import sys
from pathlib import Path

from chaoslib.experiment import run_experiment

from frangible import control
from frangible.admission import Link, RunAborted
from frangible.channel import Channel
from frangible.plan import Plan

SETTINGS = {"runtime": {"rollbacks": {"strategy": "always"}}}


def main() -> int:
    """Run the experiment of a run's folder; the supervisor knows how it ended."""
    parser = argparse.ArgumentParser(prog="python -m frangible.runner")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--supervisor", type=int, required=True, help="file descriptor of the channel to the supervisor")
    options = parser.parse_args()
    _log_to_stderr()
    link = Link(Channel.inherited(options.supervisor))
    plan = Plan.load(options.folder)
    control.expect(plan, link)
    experiment = json.loads(plan.document_path.read_text())
    experiment.setdefault("runtime", {}).setdefault("rollbacks", {})["strategy"] = "always"
    if plan.has_control:
        run_experiment(experiment, settings=SETTINGS)
        return 0
    return _run_without_control(experiment, link)


def _run_without_control(experiment: "dict[str, object]", link: Link) -> int:
    """Run an experiment that injects nothing and declares no control: admitted and journalled all the same."""
    try:
        if link.hello()["type"] == "refused":
            return 4
        journal = run_experiment(experiment, settings=SETTINGS)
        link.tell({"type": "finished", "status": journal["status"], "journal": control.plain(journal)})
        link.ask_last("verdict")
    except RunAborted as error:
        logging.getLogger("frangible").warning("%s", error)
        return 1
    return 0


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    sys.exit(main())
