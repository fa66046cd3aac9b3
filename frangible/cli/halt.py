"""`frangible halt`: the stop for everybody."""

from typing import Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, ledger_of
from frangible.cli.output import moment, print_json
from frangible.home import Home
from frangible.plan import actor

__all__ = ["app"]

EVERYTHING = "*"

app = new_app("""Stop everything, everywhere: nothing injects, running runs abort and revert.

The halt lies in the ledger, so it reaches every run that uses the same ledger.

\b
Example:
  frangible halt on --reason "incident 4711"
""")


@app.command()
def on(reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those whose run it stops.", prompt=False)]) -> None:
    """Stop everything.

    \b
    Example:
      frangible halt on --reason "incident 4711"
    """
    with ledger_of(Home.find()) as ledger:
        ledger.request_stop(EVERYTHING, actor(), reason)
    typer.echo("halt is on: nothing injects, running runs revert and end; `frangible halt off` lifts it")


@app.command()
def off() -> None:
    """Lift the halt.

    \b
    Example:
      frangible halt off
    """
    with ledger_of(Home.find()) as ledger:
        ledger.withdraw_stop(EVERYTHING)
    typer.echo("halt is off")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the halt is on, since when, by whom and why.

    \b
    Example:
      frangible halt status --json
    """
    with ledger_of(Home.find()) as ledger:
        halt = next((stop for stop in ledger.stops() if stop.scope == EVERYTHING), None)
    if as_json:
        print_json({"halt": None if halt is None else {"by": halt.by, "reason": halt.reason, "since": halt.since}})
    elif halt is None:
        typer.echo("halt is off")
    else:
        typer.echo(f"halt is on since {moment(halt.since)} by {halt.by}: {halt.reason or 'no reason given'}")
