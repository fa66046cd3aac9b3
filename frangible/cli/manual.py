"""The help of every command as one Markdown page: `python -m frangible.cli.manual > docs/cli.md`."""

import sys
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from frangible.cli.group import app

__all__ = ["commands", "manual"]

WIDTH = 100
HEAD = """# Command line

Generated from the help of each command: `python -m frangible.cli.manual > docs/cli.md`.

`frangible --install-completion` installs completion for the shell: commands, options, environments of the inventory, experiments, run ids.
`NO_COLOR` is respected; progress goes to stderr, results to stdout, and every command that reports has `--json`.
An error is one or more lines on stderr that begin with `frangible:`; a word or an option that a command
does not take is told by its usage and `Error:`. `FRANGIBLE_DEBUG=1` adds the traceback.

| setting | what it does |
|---|---|
| `FRANGIBLE_HOME` | folder of journal, ledger, runs and lab; else `$XDG_STATE_HOME/frangible`, else `~/.local/state/frangible` |
| `FRANGIBLE_CONFIG` | a `frangible.yaml` or its folder; else the nearest one from the working directory upwards |
| `FRANGIBLE_INVENTORY` | the inventory, file or folder |
| `FRANGIBLE_JOURNAL`, `FRANGIBLE_LEDGER` | URLs of other databases |
| `FRANGIBLE_DEBUG` | show tracebacks |
"""


def commands(width: int = WIDTH) -> Iterator[tuple[str, str]]:
    """Yield each command's full name and its help on so many columns, groups before what is in them."""
    command = typer.main.get_command(app)
    yield from _walk("frangible", command, None, width)  # type: ignore[arg-type]


def _walk(name: str, command: TyperCommand | TyperGroup, parent: typer.Context | None, width: int) -> Iterator[tuple[str, str]]:
    context = typer.Context(command, parent=parent, info_name=name.rpartition(" ")[2], terminal_width=width, max_content_width=width)
    yield name, command.get_help(context)
    if isinstance(command, TyperGroup):
        for child in command.list_commands(context):
            yield from _walk(f"{name} {child}", command.get_command(context, child), context, width)  # type: ignore[arg-type]


def manual() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, text in commands():
        lines = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"\n## `{name}`\n\n```text\n{lines}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(manual())
