"""The commands of docs/walk.md, as the page shows them: extracted, run one after the other in one shell, compared with what is shown."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LAB_PAGE", "PAGE", "Shown", "differences", "played", "shown", "variables", "wrong"]

PAGE = Path(__file__).parents[1] / "docs" / "walk.md"
LAB_PAGE = PAGE.with_name("walk-lab.md")
EXIT = re.compile(r"\(exit code (\d+)\)")
MARK = "--- end of command, exit code "
VARYING = (re.compile(r"\b\d{8}-\d{4}-\d{2}-[0-9a-f]{4}\b"), re.compile(r"[-+]?\d[\d.,:]*(?:[-T]\d[\d.,:]*)*(?:e-\d+)?"))
"""Ids of runs, numbers and times: the page shows those of one walk."""


@dataclass(frozen=True)
class Shown:
    """One command of the page, its exit code, and the lines that are shown of its output."""

    line: int
    command: str
    code: int
    output: tuple[str, ...]


def shown(text: str) -> Iterator[Shown]:
    """Yield every command of the page's `console` blocks: from `$ ` over lines that begin with `> `, then output until the next."""
    inside, begun = False, 0
    command: list[str] = []
    output: list[str] = []
    for number, line in enumerate([*text.splitlines(), "```"], start=1):
        if (line.startswith("```") or (inside and line.startswith("$ "))) and command:
            codes = [int(found[1]) for each in output if (found := EXIT.fullmatch(each))]
            lines = tuple(each for each in output if each.strip() not in {"", "..."} and not EXIT.fullmatch(each))
            yield Shown(begun, "\n".join(command), codes[0] if codes else 0, lines)
            command, output = [], []
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            begun, command = number, [line.removeprefix("$ ")]
        elif inside and line.startswith("> ") and not output:
            command.append(line.removeprefix("> "))
        elif inside:
            output.append(line)


def played(commands: list[Shown], folder: Path, variables: Mapping[str, str]) -> Iterator[tuple[Shown, int, str]]:
    """Run the commands in one shell in a folder; yield each with its exit code and all that it printed."""
    shell = subprocess.Popen(
        ["bash", "--norc"], cwd=folder, env=dict(variables), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    try:
        for each in commands:
            shell.stdin.write(f"{{ {each.command}\n}} </dev/null\nprintf '\\n%s%s\\n' '{MARK}' $?\n")
            shell.stdin.flush()
            output: list[str] = []
            for line in shell.stdout:
                if line.startswith(MARK):
                    yield each, int(line.removeprefix(MARK)), "".join(output)
                    break
                output.append(line)
            else:
                raise AssertionError(f"line {each.line}: the shell ended during {each.command!r}: {''.join(output)}")
    finally:
        shell.stdin.close()
        shell.wait(60)
        shell.stdout.close()


def variables(home: Path) -> dict[str, str]:
    """Return the environment of a walk: none of frangible's own variables but the home, no colours, lines of 120 characters."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FRANGIBLE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**clean, "FRANGIBLE_HOME": str(home), "PATH": path, "NO_COLOR": "1", "COLUMNS": "120", "CHECKOUT": str(PAGE.parents[1])}


def wrong(page: Path, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Play a page in a folder; return what came out differently, with the place on the page and all that was printed."""
    walk = played(list(shown(page.read_text())), folder, environment)
    return [f"{page.name}:{each.line}: $ {each.command}: {found}\n{output}" for each, code, output in walk if (found := differences(each, code, output))]


def alike(line: str) -> str:
    """Return a line without what is different in each walk: ids, numbers, times, widths of columns."""
    for pattern in VARYING:
        line = pattern.sub("0", line)
    return " ".join(line.split())


def differences(expected: Shown, code: int, output: str) -> list[str]:
    """Say what of a command came out differently than shown: its exit code, or a line that is not found after those before it."""
    found = [] if code == expected.code else [f"exit code {code}, shown is {expected.code}"]
    rest = iter(alike(line) for line in output.splitlines())
    for line in expected.output:
        pattern = re.compile(".*".join(re.escape(alike(part)) for part in line.split("...")))
        if not any(pattern.fullmatch(each) for each in rest):
            found.append(f"not found in the order shown: {line!r}")
            break
    return found
