"""What commands open: the inventory, the journal, the ledger, the files that an argument names."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.errors import UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.inventory import Inventory
    from frangible.journal import Journal
    from frangible.ledger import Ledger

__all__ = [
    "AsJson",
    "EnvironmentName",
    "EnvironmentNames",
    "HypothesisFolders",
    "InventoryPath",
    "RunId",
    "experiment_file",
    "inventory_at",
    "journal_of",
    "ledger_of",
    "shipped_experiments",
]

EnvironmentName = Annotated[str, typer.Option("--environment", "-e", metavar="NAME", help="The environment.", autocompletion=completion.environments)]
EnvironmentNames = Annotated[
    list[str] | None,
    typer.Option("--environment", "-e", metavar="NAME", help="The environment; may be given again.", autocompletion=completion.environments),
]
InventoryPath = Annotated[
    Path | None,
    typer.Option("--inventory", metavar="PATH", help="Inventory file or folder; else FRANGIBLE_INVENTORY, frangible-inventory.yaml upwards, the lab's."),
]
HypothesisFolders = Annotated[
    list[Path] | None,
    typer.Option("--hypotheses", metavar="DIR", help="More hypotheses, file or folder; may be given again."),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or the unique beginning of one.", autocompletion=completion.runs)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def inventory_at(explicit: Path | None, home: Home) -> "tuple[Path, Inventory]":
    """Find and load the inventory."""
    from frangible.inventory import find_inventory, load_inventory

    path = find_inventory(explicit, home)
    return path, load_inventory(path)


@contextlib.contextmanager
def journal_of(home: Home) -> "Iterator[Journal]":
    """Open the journal, and close it."""
    from frangible.journal import Journal

    with contextlib.closing(Journal.open(home.journal_url)) as journal:
        yield journal


@contextlib.contextmanager
def ledger_of(home: Home) -> "Iterator[Ledger]":
    """Open the ledger, and close it; the home's folder is made at first use."""
    from frangible.ledger import Ledger

    if home.ledger_url.startswith(f"sqlite:///{home.path}/"):
        with contextlib.suppress(OSError):  # the ledger's own error says more
            home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(Ledger.open(home.ledger_url)) as ledger:
        yield ledger


def shipped_experiments() -> dict[str, Path]:
    """Return the experiments that frangible ships, by name."""
    import frangible.experiments

    return {path.stem: path for folder in frangible.experiments.__path__ for path in sorted(Path(folder).glob("*.yaml"))}


def experiment_file(name: str) -> Path:
    """Return the file that a path or the name of a shipped experiment means; raise `UsageError` when there is none."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_experiments()
    if name in shipped:
        return shipped[name]
    import difflib

    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped are {', '.join(shipped) or 'none'}"
    raise UsageError(f"experiment {name!r}: neither a file nor the name of a shipped experiment; {hint}")
