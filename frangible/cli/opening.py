"""What commands open: the inventory, the journal, the ledger, the files that an argument names."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.errors import UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.hypothesis import Hypothesis
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
    "hypotheses_known",
    "inventory_at",
    "journal_of",
    "known_experiments",
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
    typer.Option("--inventory", metavar="PATH", help="Inventory file or folder; else FRANGIBLE_INVENTORY, frangible.yaml upwards, the lab's."),
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


def known_experiments() -> dict[str, Path]:
    """Return every experiment that has a name: the estate's own, then those shipped that none of them hides."""
    from frangible.estate import find_estate

    estate = find_estate()
    own = estate.own_experiments() if estate else {}
    return own | {name: path for name, path in shipped_experiments().items() if name not in own}


def experiment_file(name: str) -> Path:
    """Return the file that a path, or the name of an experiment of your own or a shipped one, means; raise `UsageError` when there is none.

    An own one that hides a shipped one is used, and a line on stderr says so.
    """
    path = Path(name)
    if path.is_file():
        return path
    known, shipped = known_experiments(), shipped_experiments()
    if name in known:
        if name in shipped and known[name] != shipped[name]:
            typer.echo(f"frangible: experiment {name!r} is your own {known[name]}, which hides the shipped one of that name", err=True)
        return known[name]
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
    raise UsageError(f"experiment {name!r}: neither a file nor the name of an experiment of your own or a shipped one; {hint}")


def hypotheses_known(experiment: Path, folders: "list[Path] | None") -> "Mapping[str, Hypothesis]":
    """Load the hypotheses that an experiment may name; a line on stderr names each that hides a shipped one."""
    from frangible import launch

    more = tuple(folders or ())
    for name in launch.hidden_hypotheses(launch.own_hypotheses(experiment, more)):
        typer.echo(f"frangible: hypothesis {name!r} is your own, which hides the shipped one of that name", err=True)
    return launch.Known(experiment, more)
