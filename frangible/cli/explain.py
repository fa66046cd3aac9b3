"""`frangible explain`: why a run got its verdict."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, journal_of
from frangible.cli.output import print_json
from frangible.errors import UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.explain import Explanation
    from frangible.journal import Journal, RunRecord

__all__ = ["app"]

app = new_app()


@app.command()
def explain(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of a run, or the unique beginning of one.", autocompletion=completion.runs)] = None,
    last: Annotated[bool, typer.Option("--last", help="The newest run.")] = False,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the deciding indicator.")] = True,
    as_json: AsJson = False,
) -> None:
    """Say in sentences why a run got its verdict.

    Bounds and what was observed on how much evidence, the faults and their proof, the time to recover, and what changed since the run before.

    \b
    Example:
      frangible explain --last
    """
    from frangible.explain import explain as put_into_words

    with journal_of(Home.find()) as journal:
        record = _find(journal, run, last=last)
        before = _previous(journal, record)
    explanation = put_into_words(record, before)
    if as_json:
        print_json({"run": record.id, "outcome": record.outcome, **asdict(explanation)})
        return
    for line in _lines(explanation):
        typer.echo(line)
    if plot and explanation.plot is not None:
        from frangible.cli.plot import draw

        for line in draw(explanation.plot):
            typer.echo(line)


def _find(journal: "Journal", run: str | None, *, last: bool) -> "RunRecord":
    if (run is None) != last:
        raise UsageError("frangible explain: expected either the id of a run or --last; `frangible journal list` shows the ids")
    if run is not None:
        return journal.get(run)
    newest = journal.runs(limit=1)
    if not newest:
        raise UsageError("the journal holds no run yet; `frangible run EXPERIMENT --environment NAME` makes the first")
    return journal.get(newest[0].id)


def _previous(journal: "Journal", record: "RunRecord") -> "RunRecord | None":
    """Return the run of the same experiment on the same environment that ended before this one began."""
    same = journal.runs(environment=record.environment, experiment=record.experiment, limit=None)
    return next((one for one in same if one.started_at < record.started_at and one.state == "finished"), None)


def _lines(explanation: "Explanation") -> list[str]:
    lines = [explanation.headline]
    for heading, sentences in explanation.sections():
        lines += ["", f"{heading}:", *(f"  {sentence}" for sentence in sentences)]
    return lines
