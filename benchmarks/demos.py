"""Do several runs of the whole matrix come to the same verdicts? Compares results of `frangible demo --all --json`.

    for n in 1 2 3; do frangible demo --all --json > matrix-$n.json; done
    python -m benchmarks.demos matrix-1.json matrix-2.json matrix-3.json

Prints the matrix in Markdown, experiments down and environments across, as docs/demo.md shows it. Where results differ, a cell has each of
them in their order. Exits with 0 when all are the same, 1 when something differs, 2 when a file is no such result.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MISSING = "not run"
EMPHASIS = {"deviated": "**deviated**"}

type Cell = tuple[str, str]
"""Experiment and environment."""


@dataclass(frozen=True)
class Matrix:
    """One result: what came of each experiment on each environment."""

    outcomes: Mapping[Cell, str]
    gate: str
    seconds: float

    @classmethod
    def read(cls, path: Path) -> "Matrix":
        """Read a file; raise `ValueError` that names it when it is no result."""
        try:
            document = json.loads(path.read_text())
            outcomes = {(run["experiment"], run["environment"]): str(run["outcome"]) for run in document["runs"]}
            return cls(outcomes, str(document["gate"]), float(document["seconds"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: expected what `frangible demo --json` prints, found something else: {error!r}") from error


def agreed(answers: Sequence[str]) -> str:
    """Return the one answer that all gave, or every answer in its order."""
    return EMPHASIS.get(answers[0], answers[0]) if len(set(answers)) == 1 else ", ".join(answers)


def table(matrices: Sequence[Matrix]) -> str:
    """Return the matrix as a Markdown table."""
    cells = dict.fromkeys(cell for matrix in matrices for cell in matrix.outcomes)
    experiments, environments = (tuple(dict.fromkeys(cell[part] for cell in cells)) for part in (0, 1))
    lines = ["| | " + " | ".join(f"`{name}`" for name in environments) + " |", "|---" * (len(environments) + 1) + "|"]
    for experiment in experiments:
        found = [agreed([matrix.outcomes.get((experiment, name), MISSING) for matrix in matrices]) for name in environments]
        lines.append(f"| `{experiment}` | " + " | ".join(found) + " |")
    return "\n".join(lines)


def same(matrices: Sequence[Matrix]) -> tuple[int, int]:
    """Return how many verdicts are the same in all results, and of how many."""
    cells = {cell for matrix in matrices for cell in matrix.outcomes}
    return sum(len({matrix.outcomes.get(cell, MISSING) for matrix in matrices}) == 1 for cell in cells), len(cells)


def main() -> int:
    """Print the table and how far results agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT")
    try:
        matrices = [Matrix.read(path) for path in parser.parse_args().results]
    except ValueError as error:
        print(f"demos: {error}", file=sys.stderr)
        return 2
    print(table(matrices))
    equal, of = same(matrices)
    answers = [matrix.gate for matrix in matrices]
    print(f"\n{equal} of {of} verdicts are the same in all {len(matrices)} runs; gate: {agreed(answers)}.")
    print("They took " + ", ".join(f"{matrix.seconds:.0f} s" for matrix in matrices) + ".")
    return 0 if equal == of and len(set(answers)) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
