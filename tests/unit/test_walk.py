"""The walk of docs/walk.md: how a page is read and compared, and that its commands end as it shows."""

import os
import re
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperGroup

from frangible.cli.group import app
from tests.walk import LAB_PAGE, PAGE, Shown, differences, played, shown, variables, wrong

pytestmark = pytest.mark.checkout

TEXT = """\
Text, and what is no command:

    $ indented

```console
$ first \\
> second
one
...
(exit code 3)
$ third
```

```
$ not a console
```
"""


def test_commands_are_read_with_their_exit_codes_and_lines():
    assert list(shown(TEXT)) == [Shown(6, "first \\\nsecond", 3, ("one",)), Shown(11, "third", 0, ())]


def test_commands_share_one_shell_and_are_told_apart(tmp_path):
    """Variables, folders and background jobs last from one command to the next; what reads standard input gets none of the commands."""
    commands = [Shown(1, command, 0, ()) for command in ("mkdir a; cd a; X=1", "cat; printf %s $X; (exit 4)", "(exit 7) &", "wait $!", "basename $PWD >&2")]
    assert [(code, output.strip()) for _, code, output in played(commands, tmp_path, os.environ)] == [(0, ""), (4, "1"), (0, ""), (7, ""), (0, "a")]


@pytest.mark.parametrize(
    ("code", "output", "said"),
    [
        pytest.param(1, "before\nHELD: 12 of 13   orders\nafter\nlast 20261126-1907-07-ab12\n", [], id="alike"),
        pytest.param(0, "HELD: 9 of 9 orders\nlast 20261126-1907-07-0000", ["exit code 0, shown is 1"], id="exit code"),
        pytest.param(1, "DEVIATED: 9 of 9 orders\nlast 20261126-1907-07-0000", ["not found in the order shown: 'HELD: 760 of 760 orders'"], id="line"),
        pytest.param(1, "last 20261126-1907-07-0000\nHELD: 9 of 9 orders", ["not found in the order shown: 'last 20261101-0101-01-ffff'"], id="order"),
    ],
)
def test_numbers_and_ids_may_differ_and_words_may_not(code, output, said):
    assert differences(Shown(1, "x", 1, ("HELD: 760 of 760 orders", "last 20261101-0101-01-ffff")), code, output) == said


def test_three_dots_within_a_line_stand_for_anything():
    assert differences(Shown(1, "x", 0, ("inventory: .../inventory.yaml",)), 0, "inventory: /tmp/a b/inventory.yaml") == []


def leaves(command: object, *words: str) -> Iterator[str]:
    """Every command that does something itself, with the words before it."""
    if not isinstance(command, TyperGroup):
        yield " ".join(words)
        return
    for name, each in command.commands.items():
        yield from leaves(each, *words, name)


def test_the_pages_have_every_command():
    """A command that is new has to be walked, or named."""
    text = PAGE.read_text() + LAB_PAGE.read_text()
    assert [each for each in leaves(typer.main.get_command(app), "frangible") if not re.search(rf"{each}\b", text)] == []


def test_every_command_of_the_walk_ends_as_the_page_shows(tmp_path):
    """From an empty folder and an empty home on, without a lab."""
    found = wrong(PAGE, tmp_path, variables(tmp_path / "home"))
    assert not found, "\n".join(found)
