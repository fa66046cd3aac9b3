"""The root command: knows every command's name and one-line help, and imports a command only when it is used."""

import importlib
from collections.abc import Callable, Iterator, MutableMapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from frangible.cli.reporting import reporting

__all__ = ["COMMANDS", "new_app", "root"]

COMMANDS = {
    "run": "Run one experiment on one environment and judge it.",
    "validate": "Check experiment, hypothesis and inventory files; report all problems at once.",
    "schema": "Print the JSON Schema of a file format.",
    "status": "Show locks, open leases, runs in progress and the halt.",
    "halt": "Stop everything, everywhere: nothing injects, running runs abort.",
    "abort": "Stop one run and revert its faults.",
    "recover": "Revert what runs that died have left in force.",
    "journal": "List, show, export and import runs.",
    "explain": "Say in sentences why a run got its verdict.",
    "doctor": "Check that an environment can be measured and reverted.",
    "demo": "Lose a node in a robust and in a fragile lab environment.",
    "lab": "The embedded estate: start, look at, stop.",
}
"""Name to one-line help. `frangible.cli.NAME` has the command as `app`."""

EPILOG = """\b
Example:
  frangible demo
  frangible run node-loss --environment lab-london

Exit codes of `run`: 0 held, 1 deviated, 3 inconclusive, 4 refused, 2 usage, 70 internal.
"""


def new_app(**settings: Any) -> typer.Typer:
    """Return an empty command module; help stays plain text, so that rich is not imported for it."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, **settings)


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        """Import nothing yet."""
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Import `frangible.cli.NAME` and return its command."""
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._loaded:
            module = importlib.import_module(f"frangible.cli.{name}")
            command = typer.main.get_command(module.app)
            command.name = name
            self._loaded[name] = command
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
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

    def __init__(self, **settings: Any) -> None:
        """Take typer's settings and put the lazy commands in."""
        super().__init__(**settings)
        self.commands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table, not of the alphabet."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table of commands without importing one of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors of ours and of nobody's end as a message and an exit code."""
        with reporting():
            return super().invoke(ctx)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"frangible {version('frangible')}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Find out which environments are fragile, to what, and since which change."""


def root() -> Any:
    """Build the root command."""
    app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True, epilog=EPILOG)
    decorate: Callable[[Callable[..., None]], Callable[..., None]] = app.callback()
    decorate(_root)
    return typer.main.get_command(app)
