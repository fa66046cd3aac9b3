"""The root command: knows every command's name and one-line help, and imports a command only when it is used."""

import importlib
import os
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Protocol

import typer
from typer.core import TyperCommand, TyperGroup

from frangible.cli.reporting import reporting

__all__ = ["COMMANDS", "app", "new_app"]

COMMANDS = {
    "run": "Run one experiment on one environment or many, and judge it.",
    "gameday": "Run a planned set of experiments over environments, with checks first and a report after.",
    "init": "Write a starter folder for your own environments.",
    "validate": "Check the files that people write; report all problems at once.",
    "schema": "Print the JSON Schema of a file format.",
    "status": "Show locks, open leases, runs in progress and the halt.",
    "halt": "Stop everything, everywhere: nothing injects, running runs abort.",
    "abort": "Stop one run and revert its faults.",
    "recover": "Revert what runs that died have left in force.",
    "journal": "List, show, export and import runs.",
    "fragility": "Show which environments are fragile, and to what.",
    "gate": "Answer a pipeline: may a change go on?",
    "explain": "Say in sentences why a run got its verdict.",
    "doctor": "Check that an environment can be measured and reverted.",
    "demo": "Find out which lab environments are fragile, to what, and why.",
    "lab": "The embedded estate: start, look at, stop.",
}
"""Name to one-line help. `frangible.cli.NAME` has the command as `app`."""

EPILOG = """\b
Example:
  frangible demo
  frangible run node-loss --environment lab-london

Exit codes of `run`: 0 held, 1 deviated, 3 inconclusive, 4 refused, 2 usage, 70 internal.
"""


UNCUT = 1000
"""Characters that no first sentence of a command's help has."""

type Command = TyperCommand | TyperGroup


class Formatter(Protocol):
    """What a help formatter offers."""

    def section(self, name: str) -> AbstractContextManager[None]:
        """Indent under a heading."""

    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None:
        """Write a list of names and what they mean."""


def new_app(help: str | None = None) -> typer.Typer:  # noqa: A002 - typer's own word
    """Return an empty command module; help stays plain text, so that rich is not imported for it."""
    return typer.Typer(cls=Group, help=help, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=help is not None)


class Group(TyperGroup):
    """A command of commands. Its table has the whole first sentence of each, where typer cuts what is longer than one line."""

    def format_commands(self, ctx: typer.Context, formatter: Formatter) -> None:  # type: ignore[override]
        """Write the table of commands, on as many lines as they need."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(UNCUT)) for name, command in found if command is not None and not command.hidden])


class LazyCommands(MutableMapping[str, Command]):
    """Commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        """Import nothing yet."""
        self._loaded: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        """Import `frangible.cli.NAME` and return its command."""
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._loaded:
            module = importlib.import_module(f"frangible.cli.{name}")
            command = typer.main.get_command(module.app)
            command.name = name
            self._loaded[name] = command  # type: ignore[assignment]
        return self._loaded[name]

    def __setitem__(self, name: str, command: Command) -> None:
        """Put a command that somebody has built."""
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        """Forget a command that was loaded."""
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of the help."""
        return iter(COMMANDS)

    def __len__(self) -> int:
        """Return how many commands there are."""
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """The root group. Its `invoke` is the one place where errors become messages and exit codes."""

    def __init__(self, *, name: str | None = None, **settings: object) -> None:
        """Take typer's settings and put the lazy commands in."""
        super().__init__(name=name, **settings)  # type: ignore[arg-type]
        self.commands = LazyCommands()  # type: ignore[assignment]

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - the same for every call
        """Return the names in the order of the table, not of the alphabet."""
        return list(self.commands)

    def format_commands(self, ctx: object, formatter: Formatter) -> None:  # noqa: ARG002
        """Write the table of commands without importing one of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command; errors of ours and of nobody's end as a message and an exit code."""
        with reporting():
            return super().invoke(ctx)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"frangible {version('frangible')}")
        raise typer.Exit


def _config(named: str) -> None:
    if named:  # the processes that the command starts look where it does
        os.environ["FRANGIBLE_CONFIG"] = named


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True, epilog=EPILOG)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
    config: Annotated[
        str,
        typer.Option("--config", metavar="PATH", callback=_config, help="A frangible.yaml or its folder; else FRANGIBLE_CONFIG, else the nearest one upwards."),
    ] = "",
) -> None:
    """Find out which environments are fragile, to what, and since which change."""
