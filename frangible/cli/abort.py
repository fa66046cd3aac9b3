"""`frangible abort`: stop one run."""

import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, RunId, journal_of, ledger_of
from frangible.cli.output import print_json
from frangible.home import Home
from frangible.plan import actor

if TYPE_CHECKING:
    from frangible.process import ProcessIdentity

__all__ = ["app"]

app = new_app()


@app.command()
def abort(
    run: RunId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the journal.")] = "",
    as_json: AsJson = False,
) -> None:
    """Stop one run and revert its faults.

    The stop is written into the ledger, where the run's supervisor sees it wherever it is; where that is this host it is also signalled.

    \b
    Example:
      frangible abort 20261123-2351 --reason "wrong environment"
    """
    home = Home.find()
    with journal_of(home) as journal:
        record = journal.get(run)
    if record.state != "started":
        _tell(as_json, record.id, signalled=False, message=f"run {record.id} has ended already: {record.outcome}; nothing to stop")
        return
    with ledger_of(home) as ledger:
        ledger.request_stop(record.id, actor(), reason or "frangible abort")
    signalled = _signal(record.supervisor)
    if signalled:
        message = f"run {record.id} is stopping and reverting; `frangible status` shows what is left"
    elif record.supervisor.is_local:
        message = f"the supervisor of run {record.id} is dead; run `frangible recover --run {record.id}`"
    else:
        message = f"run {record.id} is asked to stop; its supervisor on {record.supervisor.host} sees that when it shares this ledger"
    _tell(as_json, record.id, signalled=signalled, message=message)


def _signal(supervisor: "ProcessIdentity") -> bool:
    """SIGTERM to the very same process; a pidfd closes the gap between looking and signalling (pidfd_open(2))."""
    if not supervisor.is_local:
        return False
    try:
        descriptor = os.pidfd_open(supervisor.pid)
    except ProcessLookupError:
        return False
    try:
        if not supervisor.is_alive():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _tell(as_json: bool, run: str, *, signalled: bool, message: str) -> None:
    if as_json:
        print_json({"run": run, "signalled": signalled, "message": message})
    else:
        typer.echo(message)
