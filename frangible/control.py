"""The Chaos Toolkit control: admits the run, lives through its windows, and makes the verdict the toolkit's own result.

Declared in an experiment as

    controls:
      - name: frangible
        provider: {type: python, module: frangible.control}

Under `frangible run` the supervisor is there already; under plain `chaos run` the control starts it, for the environment that
FRANGIBLE_ENVIRONMENT names. Chaos Toolkit's controls fail open; only `InterruptExecution` from a `before_*` hook stops an
experiment, so that is what every refusal becomes.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaoslib.exceptions import InterruptExecution

from frangible import admission
from frangible.admission import Admission, Link, RunAborted
from frangible.errors import FrangibleError, Refused, UsageError

if TYPE_CHECKING:
    from frangible.channel import Message
    from frangible.plan import Plan

__all__ = ["after_experiment_control", "before_experiment_control", "before_method_control", "before_rollback_control"]

logger = logging.getLogger("chaostoolkit")
"""The toolkit shows its own logger only."""

_expected: "list[tuple[Plan, Link]]" = []
"""The run that this process was started for; empty under `chaos run`."""


def expect(plan: "Plan", link: Link) -> None:
    """Tell the control that a supervisor started this process, and for which run."""
    _expected[:] = [(plan, link)]


def before_experiment_control(context: "dict[str, Any]", **_: object) -> None:
    """Admit the run or stop it: locks, guards and the journal's row are the supervisor's, and it has to say `ready`."""
    admission.withdraw()
    with _stopping_on_errors():
        plan, link = _expected[0] if _expected else _start_supervisor(context)
        answer = link.hello()
        if answer["type"] == "refused":
            raise InterruptExecution(f"frangible: {answer['reason']}")
        admission.admit(_admission(plan, link))
        logger.info("frangible: run %s on %s admitted", plan.run_id, plan.environment.name)


def before_method_control(context: "dict[str, Any]", **_: object) -> None:  # noqa: ARG001 - chaoslib passes it
    """Live through the baseline window; without a steady one nothing is injected."""
    with _stopping_on_errors():
        answer = admission.current().link.ask("baseline")
        if not answer["steady"]:
            raise InterruptExecution(f"frangible: no steady baseline: {answer['reason']}; nothing was injected")


def before_rollback_control(context: "dict[str, Any]", **_: object) -> None:  # noqa: ARG001 - chaoslib passes it
    """Skip the rollbacks of a run that was never admitted: there is nothing of ours to roll back."""
    with _stopping_on_errors():
        admission.current().link.method_over()


def after_experiment_control(context: "dict[str, Any]", state: "dict[str, Any]", **_: object) -> None:  # noqa: ARG001 - chaoslib passes it
    """Live through the recovery window, then write the verdict into Chaos Toolkit's result."""
    try:
        run = admission.current()
    except Refused:
        _result(state, "failed", deviated=False)
        return
    run.link.method_over()
    try:
        verdict = _verdict(run.link, state)
    except RunAborted as error:
        logger.error("frangible: %s; what was injected is reverted by `frangible recover`", error)  # noqa: TRY400 - the reason is enough
        _result(state, "failed", deviated=False)
        return
    finally:
        admission.withdraw()
    outcome, reasons = verdict["outcome"], "; ".join(verdict["reasons"])
    logger.log(logging.INFO if outcome == "held" else logging.WARNING, "frangible: %s: %s (run %s)", outcome, reasons, run.plan.run_id)
    state["frangible"] = {"run": run.plan.run_id, **verdict}
    _result(state, "completed" if outcome in {"held", "deviated"} else "failed", deviated=outcome == "deviated")


def plain(journal: "dict[str, Any]") -> "dict[str, Any]":
    """Return Chaos Toolkit's journal as JSON types only; what JSON cannot hold becomes text."""
    return json.loads(json.dumps(journal, default=str))  # type: ignore[no-any-return]


def _verdict(link: Link, state: "dict[str, Any]") -> "Message":
    """Tell how the toolkit ended, wait for recovery and verdict; a signal meanwhile aborts the run, not the wait."""
    link.tell({"type": "finished", "status": state["status"], "journal": plain(state)})
    try:
        if state["status"] in {"interrupted", "aborted"}:
            link.tell({"type": "interrupted", "reason": f"Chaos Toolkit was {state['status']}"})
        else:
            link.ask("recovery")
    except (InterruptExecution, KeyboardInterrupt, SystemExit) as signal:
        link.tell({"type": "interrupted", "reason": str(signal) or type(signal).__name__})
    except RunAborted:
        logger.warning("frangible: %s", link.abort_reason)
    while True:
        try:
            return link.ask_last("verdict")
        except (InterruptExecution, KeyboardInterrupt, SystemExit):
            logger.warning("frangible: stopping already; waiting for the verdict on what was seen so far")


def _result(state: "dict[str, Any]", status: str, *, deviated: bool) -> None:
    state["status"], state["deviated"] = status, deviated


@contextmanager
def _stopping_on_errors() -> "Iterator[None]":
    """Turn every failure of ours into the one exception that stops an experiment."""
    try:
        yield
    except InterruptExecution:
        raise
    except FrangibleError as error:
        raise InterruptExecution(f"frangible: {error}") from error
    except Exception as error:  # chaoslib would log it at debug level and go on
        logger.exception("frangible: the control failed")
        raise InterruptExecution(f"frangible: the control failed: {error!r}; nothing was injected") from error


def _admission(plan: "Plan", link: Link) -> Admission:
    from frangible.fault import FaultRegistry
    from frangible.ledger import Ledger
    from frangible.platforms import open_platform

    return Admission(plan, link, partial(Ledger.open, plan.ledger_url), partial(open_platform, plan.environment), FaultRegistry())


def _start_supervisor(experiment: "dict[str, Any]") -> "tuple[Plan, Link]":
    """Plan the run as `frangible run` would, and start its supervisor in a session of its own."""
    from frangible import launch
    from frangible.home import Home
    from frangible.inventory import find_inventory, load_inventory
    from frangible.request import Request

    name = os.environ.get("FRANGIBLE_ENVIRONMENT")
    if not name:
        raise UsageError("FRANGIBLE_ENVIRONMENT is not set: name the environment that this experiment is for, or use `frangible run --environment`")
    home = Home.find()
    inventory_path = find_inventory(None, home)
    inventory = load_inventory(inventory_path)
    source = _experiment_file(experiment)
    request = Request(os.environ.get("FRANGIBLE_NOTE", ""), os.environ.get("FRANGIBLE_TICKET", ""))
    plan = launch.prepare(source, inventory.get(name), inventory, home, request=request)
    return plan, launch.start_beside(plan)


def _experiment_file(experiment: "dict[str, Any]") -> Path:
    """Find the file that `chaos run` was given: the toolkit does not hand it to controls."""
    from chaoslib.exceptions import ChaosException
    from chaoslib.loader import load_experiment

    for argument in sys.argv[1:]:
        path = Path(argument)
        if path.suffix in {".yaml", ".yml", ".json"} and path.is_file():
            try:
                found = load_experiment(str(path))
            except ChaosException:
                continue
            if found.get("method") == experiment.get("method"):
                return path.absolute()
    raise UsageError("the experiment's file is not among the arguments of this command; run a local file, not an address")
