"""`frangible run`: one experiment on one environment, or on many side by side."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion, early
from frangible.cli.group import new_app
from frangible.cli.live import open_view
from frangible.cli.opening import EnvironmentNames, HypothesisFolders, InventoryPath, experiment_file, hypotheses_known, inventory_at, journal_of
from frangible.cli.watching import Watched
from frangible.errors import UsageError
from frangible.home import Home
from frangible.request import Request

if TYPE_CHECKING:
    from frangible.beforehand import Beforehand
    from frangible.cli.live import View
    from frangible.inventory import Inventory
    from frangible.launch import RunHandle
    from frangible.plan import Plan
    from frangible.progress import Event

__all__ = ["app", "catching", "record"]

INCONCLUSIVE = 3

app = new_app()


class LeftAlone(Exception):
    """The user pressed Ctrl-C twice: leave, and let the supervisor revert."""


@app.command()
def run(
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT", help="An experiment file, or the name of one of your own or a shipped one.", autocompletion=completion.experiments
        ),
    ],
    environment: EnvironmentNames = None,
    select: Annotated[
        list[str] | None,
        typer.Option("--select", metavar="WHAT", help="Environments by glob, region=, parent=, owner=, tier= or label:NAME=; all that is given must match."),
    ] = None,
    inventory: InventoryPath = None,
    hypotheses: HypothesisFolders = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Kept in the journal.")] = "",
    ticket: Annotated[str, typer.Option("--ticket", metavar="ID", help="Kept in the journal.")] = "",
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Hit the targets of another run: `frangible explain` tells its seed. 0 draws anew.")
    ] = 0,
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="Run it this often on each environment.")] = 1,
    at_most: Annotated[int | None, typer.Option("--at-most", metavar="N", min=1, help="Runs side by side; else one a CPU of this machine.")] = None,
    stop_after_deviated: Annotated[
        int | None, typer.Option("--stop-after-deviated", metavar="N", min=1, help="Start nothing more after this many runs that deviated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, ask the guards, print the plan; inject nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's record as one JSON document; progress stays on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run one experiment and judge it: on one environment, or on several side by side.

    Runs whose resource keys overlap (parents and children, what environments share) go one after the other, in the order given.
    All problems of all environments are reported before anything starts.

    Ctrl-C stops every run and reverts its faults; a second one leaves at once, and the supervisors go on reverting.

    Exits with 0 held, 1 deviated, 3 inconclusive, 4 refused, 2 usage, 70 internal error; of several runs with the worst, in the order
    70, 4, 1, 3, 0. A run that was not started counts as inconclusive. With --json several runs are one list.

    \b
    Example:
      frangible run node-loss --environment lab-london --ticket CHG-4711
      frangible run ./my-experiment.yaml -e lab-newyork --dry-run
      frangible run node-loss -e lab-newyork --seed 1
      frangible run node-loss --select region=london,tier=staging --repeat 3
    """
    request = Request(note, ticket, seed)
    names = environment or []
    if len(names) != 1 or select or repeat > 1:
        early.forget()
        home = Home.find()
        choice = Choice(experiment, names, select or [], repeat, at_most, stop_after_deviated or 0)
        raise typer.Exit(_many(home, choice, inventory, hypotheses, request, dry_run=dry_run, as_json=as_json, quiet=quiet))

    def planned(home: Home, beforehand: "Beforehand | None" = None) -> "tuple[Plan, Inventory]":
        return _plan(home, experiment, names[0], inventory, hypotheses, request, beforehand)

    if dry_run:
        early.forget()
        from frangible.cli.preview import preview

        raise typer.Exit(preview(planned(Home.find())[0], as_json=as_json))
    with early.processes_of_the_run() as beforehand:
        home = Home.find()
        raise typer.Exit(_run(*planned(home, beforehand), home, beforehand, as_json=as_json, quiet=quiet))


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs are wanted, and how many at once."""

    experiment: str
    names: list[str]
    selections: list[str]
    repeat: int
    at_most: int | None
    stop_after_deviated: int


def _many(
    home: Home, choice: Choice, inventory: Path | None, folders: list[Path] | None, request: Request, *, dry_run: bool, as_json: bool, quiet: bool
) -> int:
    """Run several; everything is planned before the first one starts."""
    from frangible.cli import many
    from frangible.fleet import Fleet, StopRule, Wanted, prepare_all

    if not choice.names and not choice.selections:
        raise UsageError("which environment? give --environment NAME or --select WHAT; both may be given again")
    file = experiment_file(choice.experiment)
    _, loaded = inventory_at(inventory, home)
    wanted = [Wanted(file, one) for one in many.chosen(loaded, choice.names, choice.selections) for _ in range(choice.repeat)]
    plans = prepare_all(wanted, loaded, home, request=request, hypotheses=many.hypotheses_of(file, folders or ()))
    if dry_run:
        from frangible.cli.preview import preview_all

        return preview_all(plans, as_json=as_json)
    at_most = choice.at_most or len(os.sched_getaffinity(0))
    fleet = Fleet(plans, loaded, home, at_most, StopRule(deviated=choice.stop_after_deviated))
    if len(plans) == 1:
        return many.run_many(fleet, as_json=as_json, quiet=quiet)
    with early.fork_server_of_the_runs() as server:
        many.fork_from(server, fleet)
        return many.run_many(fleet, as_json=as_json, quiet=quiet)


def _plan(
    home: Home,
    experiment: str,
    environment: str,
    inventory: Path | None,
    folders: list[Path] | None,
    request: Request,
    beforehand: "Beforehand | None",
) -> "tuple[Plan, Inventory]":
    from frangible import launch

    file = experiment_file(experiment)
    _, loaded = inventory_at(inventory, home)
    chosen = loaded.get(environment)
    known = hypotheses_known(file, folders)
    return launch.prepare(file, chosen, loaded, home, request=request, hypotheses=known, beforehand=beforehand), loaded


def _run(plan: "Plan", inventory: "Inventory", home: Home, beforehand: "Beforehand", *, as_json: bool, quiet: bool) -> int:
    from frangible import launch

    watched = Watched(run=plan.run_id, environment=plan.environment.name, experiment=plan.experiment)
    handle = launch.start(plan, beforehand)
    view = open_view(watched, quiet=quiet)
    try:
        _follow(handle, view)
    except LeftAlone:
        view.close()
        typer.echo(f"frangible: left run {plan.run_id}; its supervisor (pid {handle.supervisor.pid}) goes on reverting: see `frangible status`", err=True)
        return INCONCLUSIVE
    finally:
        view.close()
    if watched.last is None:
        return _supervisor_died(plan, inventory, home)
    return _end(plan, watched.last, home, as_json=as_json, quiet=quiet)


def _follow(handle: "RunHandle", view: "View") -> None:
    """Show events until the run has ended; Ctrl-C and SIGTERM abort it, a second one raises `LeftAlone`."""
    asked = 0

    def stop(number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise LeftAlone
        view.say("stopping: faults are being reverted; Ctrl-C again leaves that to the supervisor")
        handle.abort(f"stopped by {signal.Signals(number).name}")

    with catching(stop):
        for event in handle.events():
            view.show(event)


@contextlib.contextmanager
def catching(handler: "Callable[[int, object], None]") -> Iterator[None]:
    """Let `handler` answer Ctrl-C and SIGTERM inside."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _supervisor_died(plan: "Plan", inventory: "Inventory", home: Home) -> int:
    """Nobody said how the run ended: revert what it left, here and now."""
    from frangible.fault import FaultRegistry
    from frangible.recovery import recover

    typer.echo(f"frangible: the supervisor of run {plan.run_id} died; its log is {plan.folder / 'supervisor.log'}", err=True)
    report = recover(home, inventory, run_id=plan.run_id, registry=FaultRegistry())
    for what, ones in (("reverted", report.reverted), ("NOT reverted", report.failed), ("problem", report.problems)):
        for one in ones:
            typer.echo(f"frangible: {what}: {one}", err=True)
    if not report.clean:
        typer.echo("frangible: something is left in force; run `frangible recover --watch`", err=True)
    return INCONCLUSIVE


def _end(plan: "Plan", event: "Event", home: Home, *, as_json: bool, quiet: bool) -> int:
    """Print the verdict, or why there is none."""
    code = event.get("exit_code", INCONCLUSIVE)
    if as_json:
        typer.echo(record(plan, event, home))
    elif event["event"] == "verdict":
        for line in verdict_lines(event, plan, quiet=quiet):
            typer.echo(line)
    if event["event"] == "refused":
        typer.echo(f"frangible: {event.get('message') or 'not injecting: ' + '; '.join(event.get('reasons', []))}", err=True)
    elif event["event"] == "failed":
        typer.echo(f"frangible: {event.get('message', 'the run failed')}; its log is {plan.folder / 'supervisor.log'}", err=True)
    if event.get("journalled") is False:
        typer.echo(f"frangible: the journal could not be written; `frangible journal import {plan.record_path}` puts the record in", err=True)
    return code


def verdict_lines(event: "Event", plan: "Plan", *, quiet: bool) -> list[str]:
    """Render the verdict block."""
    head = f"{event.get('outcome', '').upper()}: {plan.experiment} on {plan.environment.name}"
    if quiet:
        return [head]
    return [head, *(f"  - {reason}" for reason in event.get("reasons", [])), f"run {plan.run_id}; read more: frangible explain {plan.run_id}"]


def record(plan: "Plan", event: "Event", home: Home) -> str:
    """Return the run's record as JSON; for a run without one, how it ended."""
    from frangible.journal import record_to_json

    if event["event"] != "verdict":
        print_reasons = event.get("reasons") or [event.get("message", "")]
        return json.dumps({"id": plan.run_id, "outcome": event["event"], "reasons": print_reasons, "exit_code": event.get("exit_code")}, indent=2)
    if event.get("journalled") is False:
        return plan.record_path.read_text(encoding="utf-8")
    with journal_of(home) as journal:
        return json.dumps(json.loads(record_to_json(journal.get(plan.run_id))), indent=2)
