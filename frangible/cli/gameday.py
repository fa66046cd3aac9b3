"""`frangible gameday`: a planned set of runs over environments, with checks first and an after-action report at the end."""

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, HypothesisFolders, InventoryPath, experiment_file, hypotheses_known, inventory_at
from frangible.cli.output import columns, print_json, span
from frangible.errors import UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.afteraction import DayReport, Looked
    from frangible.fleet import Fleet
    from frangible.gameday import Conduct, GameDay

__all__ = ["app"]

NO_GO, INCONCLUSIVE = 4, 3
MARKS = (3600.0, 600.0, 60.0, 10.0)
"""Seconds before a moment at which a line says so, where no terminal counts down."""

app = new_app("""Run a planned set of experiments over many environments, in waves, with people and limits.

\b
Example:
  frangible gameday check gameday.yaml
  frangible gameday run gameday.yaml --at "18:00 Europe/London"
""")

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, YAML; see docs/formats.md.", autocompletion=completion.experiments)]


@app.command()
def check(plan: PlanFile, inventory: InventoryPath = None, hypotheses: HypothesisFolders = None, as_json: AsJson = False) -> None:
    """Make the go/no-go checks of a game day; inject nothing.

    The time window; no halt, no open lease, locks free; ledger and journal; every experiment validates on every environment; each node is on;
    Prometheus answers and every query has data. Exits with 0 go, 4 no-go, 2 when the plan cannot be used.

    \b
    Example:
      frangible gameday check gameday.yaml
    """
    conduct = _conduct(_day(plan, inventory, hypotheses), quiet=True)
    go = conduct.look(time.time(), lambda one: None if as_json else typer.echo(_line(one)))
    if as_json:
        print_json({"title": conduct.day.agenda.title, "go": go, "checks": [_looked(one) for one in conduct.looked]})
    else:
        typer.echo(_answer(conduct, go=go))
    if not go:
        raise typer.Exit(NO_GO)


@app.command()
def run(
    plan: PlanFile,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="Check now, wait until then, check again. Without a zone this machine's counts.")] = "",
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Where the after-action report goes; else beside the runs.")] = None,
    inventory: InventoryPath = None,
    hypotheses: HypothesisFolders = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; progress stays on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; of the checks only what failed.")] = False,
) -> None:
    """Check, run the waves of a game day, and write an after-action report in Markdown.

    One check that fails is a no-go: exit code 4, and nothing is injected. Then the waves, one after the other, until all are through
    or the plan's stop rule, its time window or Ctrl-C stops the day; what is in progress goes on to its end, or reverts after Ctrl-C.

    TIME is 18:00 or 2026-12-01T18:00, with a zone behind it if you like ("18:00 Europe/London"), or 2026-12-01T18:00+01:00.

    Exits with 0 all held, 1 deviated, 3 inconclusive or not started, 4 no-go or refused, 2 usage, 70 internal error; with the worst,
    in the order 70, 4, 1, 3, 0.

    \b
    Example:
      frangible gameday run gameday.yaml
      frangible gameday run day.yaml --at "18:00 Europe/London" --report day.md

    \b
    Every Friday at 18:00, by cron or by a systemd timer:
      0 18 * * 5  cd /srv/estate && frangible gameday run gameday.yaml --quiet
      systemd-run --user --unit=gameday --working-directory=/srv/estate \\
        --on-calendar="Fri *-*-* 18:00 Europe/London" \\
        frangible gameday run gameday.yaml --quiet
    """
    moment = _moment(at)
    day = _day(plan, inventory, hypotheses)
    file = report or day.home.path / "gamedays" / f"{datetime.now(UTC):%Y%m%d-%H%M-%S}-{_slug(day.agenda.title)}.md"
    _writable(file)
    conduct = _conduct(day, quiet=quiet)
    conduct.progress = lambda: _write(file, conduct.report(over=False))
    try:
        with _interruptible():
            _conduct_all(conduct, moment, quiet=quiet)
    finally:
        _write(file, conduct.report(over=True))
    _tell(conduct, file, as_json=as_json)
    raise typer.Exit(conduct.exit_code())


def _conduct_all(conduct: "Conduct", moment: datetime | None, *, quiet: bool) -> None:
    """Check, wait, check again, run."""
    from frangible.gameday import Interrupted
    from frangible.moments import shown

    def tell(one: "Looked") -> None:
        if not (quiet and one.check.ok):
            typer.echo(_line(one), err=True)

    def go(at: float) -> bool:
        answer = conduct.look(at, tell)
        if not (quiet and answer):
            typer.echo(_answer(conduct, go=answer), err=True)
        return answer

    try:
        if not go(time.time() if moment is None else moment.timestamp()):
            return
        if moment is not None:
            conduct.happen(f"waiting until {shown(moment)}")
            conduct.progress()
            conduct.wait(moment.timestamp(), f"the day begins at {shown(moment)}")
            if not go(time.time()):
                return
        conduct.run()
    except Interrupted as error:
        conduct.stop(str(error))


def _day(path: Path, inventory: Path | None, folders: "list[Path] | None") -> "GameDay":
    """Load the plan and everything that it names."""
    from hashlib import sha256

    from frangible.agenda import load_agenda, steps
    from frangible.gameday import GameDay

    home = Home.find()
    agenda, document = load_agenda(path)
    _, loaded = inventory_at(inventory, home)
    wanted = steps(agenda, document, loaded, experiment_file)
    known = {file: hypotheses_known(file, folders) for file in dict.fromkeys(step.experiment for step in wanted)}
    return GameDay(agenda, path, sha256(document.content).hexdigest(), wanted, loaded, home, known)


def _conduct(day: "GameDay", *, quiet: bool) -> "Conduct":
    from importlib.metadata import version

    from frangible.gameday import Conduct
    from frangible.plan import actor

    def say(text: str) -> None:
        if not quiet:
            typer.echo(f"{datetime.now(UTC):%H:%M:%SZ} {text}", err=True)

    return Conduct(day, actor(), version("frangible"), lambda fleet: _show(fleet, quiet=quiet), lambda at, what: _wait(at, what, say, quiet=quiet), say)


def _show(fleet: "Fleet", *, quiet: bool) -> None:
    """Run a wave; who presses Ctrl-C twice leaves, and what went on is told as such."""
    from frangible.cli.many import LeftAlone, fork_from, run_fleet
    from frangible.forkserver import fork_server

    with ExitStack() as stack:
        stack.enter_context(suppress(LeftAlone))
        if len(fleet.plans) > 1:
            fork_from(stack.enter_context(fork_server()), fleet)
        run_fleet(fleet, quiet=quiet)


# --- time -------------------------------------------------------------------------------------------------------------


def _moment(text: str) -> datetime | None:
    from frangible.moments import parse_moment

    if not text:
        return None
    now = datetime.now(UTC)
    try:
        found = parse_moment(text, now)
    except ValueError as error:
        raise UsageError(f"--at: {error}") from None
    if found <= now:
        raise UsageError(f"--at {text!r} is in the past; leave it out to begin now")
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`; a wave has an answer of its own to them."""
    from frangible.cli.run import catching
    from frangible.gameday import Interrupted

    def stop(number: int, _frame: object) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    with catching(stop):
        yield


def _wait(until: float, what: str, say: Callable[[str], None], *, quiet: bool) -> None:
    """Wait by the wall clock, which may be set meanwhile; count down on a terminal, say it now and then elsewhere."""
    counting = sys.stderr.isatty() and not quiet
    told = float("inf")
    while (left := until - time.time()) > 0:
        if counting:
            sys.stderr.write(f"\r\x1b[K{what} in {span(max(1.0, round(left)))}; Ctrl-C ends it")
            sys.stderr.flush()
        elif told == float("inf") or any(left <= mark < told for mark in MARKS):
            say(f"{what} in {span(round(left, 1))}")
            told = left
        time.sleep(min(left, 1.0))
    if counting:
        sys.stderr.write("\r\x1b[K")


# --- what is told -----------------------------------------------------------------------------------------------------


def _line(one: "Looked") -> str:
    where = f"{one.environment}: " if one.environment else ""
    head = f"[{'x' if one.check.ok else ' '}] {where}{one.check.name}: {one.check.found}"
    return head if one.check.ok or not one.check.advice else f"{head}\n      {one.check.advice}"


def _answer(conduct: "Conduct", *, go: bool) -> str:
    failed = sum(not one.check.ok for one in conduct.looked)
    return f"GO: {conduct.day.agenda.title}" if go else f"NO-GO: {conduct.day.agenda.title}: {failed} of {len(conduct.looked)} checks did not pass"


def _looked(one: "Looked") -> dict[str, object]:
    return {"environment": one.environment or None, **asdict(one.check)}


def _tell(conduct: "Conduct", file: Path, *, as_json: bool) -> None:
    told = conduct.report(over=True)
    if as_json:
        print_json(
            {
                "title": conduct.day.agenda.title,
                "exit_code": conduct.exit_code(),
                "stopped": told.stopped or None,
                "checks": [_looked(one) for one in told.looked],
                "runs": [{**asdict(one), "run": one.run or None, "detections": dict(one.detections), "happened": None} for one in told.runs],
                "report": str(file),
            }
        )
        return
    if told.runs:
        rows = [(one.wave, one.experiment, one.environment, one.outcome.upper(), one.run or "-", next(iter(one.reasons), "")) for one in told.runs]
        typer.echo(columns(("wave", "experiment", "environment", "outcome", "run", "first reason"), rows))
    if told.stopped:
        typer.echo(f"stopped: {told.stopped}", err=True)
    typer.echo(f"report: {file}")


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "gameday"


def _writable(file: Path) -> None:
    """Whoever cannot be told of what happened should not begin."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise UsageError(f"the report {file} cannot be written ({error.strerror}); give --report another file") from None


def _write(file: Path, report: "DayReport") -> None:
    """Replace the report as a whole; when that fails, the text goes to stderr: it is told somewhere."""
    from frangible.afteraction import markdown

    text = markdown(report)
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        typer.echo(f"frangible: the report {file} cannot be written ({error.strerror}):\n{text}", err=True)
