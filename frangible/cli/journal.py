"""`frangible journal`: list, show, export, import."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, RunId, journal_of
from frangible.cli.output import columns, moment, print_json, span
from frangible.errors import JournalError, UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.journal import RunRecord

__all__ = ["app"]

SUMMARY = ("id", "experiment", "environment", "region", "tier", "owner", "actor", "note", "ticket", "started_at", "ended_at", "state", "outcome", "reasons")
"""What is told of a run in a list, and first of one run."""
WIDTH = 160
"""Characters of a line of a record that is shown, where words can be parted."""

app = new_app("""List, show, export and import runs.

\b
Example:
  frangible journal list --environment lab-newyork --outcome deviated
""")


@app.command("list")
def list_(
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", metavar="NAME", help="Runs on this one.", autocompletion=completion.environments)
    ] = None,
    experiment: Annotated[str | None, typer.Option("--experiment", metavar="NAME", help="Runs of this one.")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", metavar="OUTCOME", help="held, deviated or inconclusive.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    \b
    Example:
      frangible journal list --experiment node-loss --limit 5
    """
    from frangible.judge import Outcome

    if outcome is not None and outcome not in set(Outcome):
        raise UsageError(f"--outcome {outcome!r}: expected {', '.join(Outcome)}")
    with journal_of(Home.find()) as journal:
        records = journal.runs(environment=environment, experiment=experiment, outcome=outcome, limit=limit)
    if as_json:
        print_json([_summary(record) for record in records])
    elif records:
        typer.echo(columns(("RUN", "EXPERIMENT", "ENVIRONMENT", "OUTCOME", "STARTED", "TOOK", "WHY"), [_row(record) for record in records]))
    else:
        typer.echo("no such run; `frangible run EXPERIMENT --environment NAME` makes the first")


@app.command()
def show(run: RunId, as_json: AsJson = False) -> None:
    """Show what the journal keeps of one run, as YAML; what is empty is left out.

    \b
    Example:
      frangible journal show 20261123-2351
    """
    record = _get(run)
    if as_json:
        print_json(_document(record))
        return
    import yaml

    document = _document(record) | {"started_at": moment(record.started_at), "ended_at": moment(record.ended_at)}
    for name in ("chaos_journal", "series"):
        if document.get(name) is not None:
            document[name] = "see `frangible journal export`"
    told = {name: document[name] for name in (*SUMMARY, *document) if document[name] not in (None, "", [], {})}
    typer.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=WIDTH), nl=False)


@app.command()
def export(
    run: RunId,
    chaos_journal: Annotated[Path | None, typer.Option("--chaos-journal", metavar="FILE", help="Write Chaos Toolkit's journal of the run to FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export one run as JSON, or Chaos Toolkit's own journal of it as a file.

    \b
    Example:
      frangible journal export 20261123-2351 --chaos-journal journal.json
    """
    record = _get(run)
    if chaos_journal is not None:
        if record.chaos_journal is None:
            raise JournalError(f"run {record.id} has no Chaos Toolkit journal: its chaoslib process ended before it wrote one")
        _write(chaos_journal, json.dumps(record.chaos_journal, indent=2))
        typer.echo(f"wrote {chaos_journal}", err=True)
    if as_json or chaos_journal is None:
        print_json(_document(record))


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="A record: `record.json` of a run's folder, or an export.")]) -> None:
    """Put a record into the journal that could not be written when its run ended.

    \b
    Example:
      frangible journal import ~/runs/20261123-2351-07-3fa9/record.json
    """
    from frangible.journal import record_from_json

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: expected the JSON record of a run: {error}") from error
    try:
        record = record_from_json(text)
    except JournalError as error:
        raise UsageError(f"{file}: {error}") from error
    with journal_of(Home.find()) as journal:
        journal.finish(record)
    typer.echo(f"run {record.id} is in the journal: {record.outcome}")


def _get(run: str) -> "RunRecord":
    with journal_of(Home.find()) as journal:
        return journal.get(run)


def _document(record: "RunRecord") -> dict[str, object]:
    from frangible.journal import record_to_json

    document: dict[str, object] = json.loads(record_to_json(record))
    return document


def _summary(record: "RunRecord") -> dict[str, object]:
    return {name: getattr(record, name) for name in SUMMARY}


def _row(record: "RunRecord") -> tuple[str, ...]:
    took = "-" if record.ended_at is None else span(record.ended_at - record.started_at)
    why = record.reasons[0] if record.reasons else ""
    return (record.id, record.experiment, record.environment, record.outcome or record.state, moment(record.started_at), took, why)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; name a file in a folder that exists") from error
