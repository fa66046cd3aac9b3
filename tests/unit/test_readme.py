"""The README's commands: each can be typed as it stands, and a test runs it, or it is said here why none does."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from frangible.cli.group import COMMANDS, app

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
"""Empty where the wheel's tests are collected, which run nothing of this file."""
RUN_BY = {
    "frangible demo": "tests/unit/test_demo.py",  # its parts; the whole of it is what `make demo` is for
    "frangible run": "tests/lab/test_run.py",
    "frangible gameday run": "tests/lab/test_gameday.py",
    "frangible gameday": "tests/unit/test_gameday.py",
    "frangible validate": "tests/unit/test_cli.py",
    "frangible explain": "tests/unit/test_explain.py",
    "frangible journal list": "tests/unit/test_cli.py",
    "frangible gate": "tests/unit/test_gate.py",
    "frangible fragility": "tests/unit/test_fragility.py",
    "frangible init": "tests/unit/test_estate.py",
    "frangible doctor": "tests/unit/test_cli.py",
    "frangible halt": "tests/unit/test_cli.py",
    "frangible recover": "tests/unit/test_cli.py",
    "frangible lab": "tests/lab/test_lab.py",
    "chaos run": "tests/lab/test_run.py",
}
NOT_RUN = {
    "make test": "it is what runs this test",
    "make demo": "it takes minutes and needs a quiet machine; its parts are tests/unit/test_demo.py and the lab's tests",
    "make demo-all": "half an hour; the same code as make demo",
    "make benchmark": "figures, not tests",
    "make benchmark-journal": "figures, not tests",
    "make benchmark-many": "figures, not tests",
    "make campaign": "200 kills take an hour; tests/lab/test_crash.py makes some of them",
    "python -m benchmarks.false_alarms": "figures, not tests",
}


def typed() -> list[list[str]]:
    """Words of every command in the README's blocks, without variables before them, comments, and what comes after `&&`."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for part in line.removeprefix("$ ").split(" && "):
                words = (
                    [word for word in shlex.split(part, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)] if re.match(r"[\w/.-]*[A-Za-z]", part) else []
                )
                if words and words[0] in {"frangible", "make", "chaos", "python"} and len(words) > 1 and "──" not in line:
                    found.append(words)
    return found


def known(words: list[str], table: dict[str, str]) -> str | None:
    """The longest beginning of a command that a table has."""
    beginnings = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((each for each in beginnings if each in table), None)


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)) for words in typed()])
def test_every_command_is_run_by_a_test_or_it_is_said_why_not(words):
    """A command that is new in the README has to be given its test here."""
    name = known(words, RUN_BY)
    assert name or known(words, NOT_RUN), f"{words}: name the test that runs it"
    if name:
        assert (ROOT / RUN_BY[name]).exists()


def parsed(words: list[str]) -> None:
    """Read a command's options and arguments as the program does, without running it; raises click's errors."""
    command: click.Command = typer.main.get_command(app)  # type: ignore[assignment]
    context, rest = None, words[1:]
    while isinstance(command, click.Group) or hasattr(command, "resolve_command"):
        context = command.make_context(command.name or "frangible", list(rest), parent=context)
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        command = found
    command.make_context(command.name, list(rest), parent=context)


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)) for words in typed() if words[0] == "frangible"])
def test_every_command_of_frangible_has_the_options_that_are_shown(words):
    parsed(words)


def test_an_option_that_does_not_exist_would_be_found():
    with pytest.raises(Exception, match="no-such"):
        parsed(["frangible", "run", "node-loss", "--no-such-option"])


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in typed() if words[0] == "make"} <= targets


def test_every_command_is_in_the_table_of_commands():
    """What `frangible --help` lists, the README lists too."""
    rows = re.findall(r"^\| `frangible ([a-z]+)", README, re.MULTILINE)
    assert set(rows) == set(COMMANDS)


def test_every_page_that_is_linked_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
