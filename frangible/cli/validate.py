"""`frangible validate`: every problem of every file, at once."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, HypothesisFolders, InventoryPath, experiment_file, inventory_at, known_experiments, shipped_experiments
from frangible.cli.output import print_json
from frangible.errors import FrangibleError, InputError, Problem, UsageError
from frangible.home import CONFIGURATION, Home

if TYPE_CHECKING:
    from frangible.environment import Environment
    from frangible.inventory import Inventory

__all__ = ["Kind", "app", "kind_of"]

HIDES = "hides-shipped"
"""Kind of the problem that a name of your own means something else than elsewhere."""

app = new_app()


class Kind(StrEnum):
    """The kinds of files that people write."""

    CONFIGURATION = "configuration"
    INVENTORY = "inventory"
    HYPOTHESIS = "hypothesis"
    EXPERIMENT = "experiment"
    POLICY = "policy"
    GAMEDAY = "gameday"


@app.command()
def validate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Files, inventory folders, folders with a frangible.yaml, or names of experiments.", autocompletion=completion.experiments
        ),
    ],
    environment: Annotated[
        str | None,
        typer.Option("--environment", "-e", metavar="NAME", help="Check experiments against this environment too.", autocompletion=completion.environments),
    ] = None,
    inventory: InventoryPath = None,
    hypotheses: HypothesisFolders = None,
    as_json: AsJson = False,
) -> None:
    """Check experiment, hypothesis, inventory, policy and game day files; report all problems at once.

    What a file is shows in its content: `environments`, `indicators`, `rules`, `waves`, else it is an experiment. Nothing is reached over the network,
    but with --environment the cluster of an environment on Kubernetes is asked for its nodes and pods.
    A frangible.yaml, or its folder, stands for everything that it names. A file that hides a shipped one of its name is a problem too.
    With --environment it is also checked whether the experiment can run there, and whether `held` can be reached at all.
    Exits with 0 when there is no problem, else with 2.

    \b
    Example:
      frangible validate node-loss --environment lab-london
      frangible validate .
      frangible validate inventory/*.yaml hypotheses/*.yaml
    """
    where = _where(environment, inventory)
    problems = [problem for name in files for problem in _problems(name, where, hypotheses or [])]
    if as_json:
        print_json({"files": files, "problems": [asdict(problem) for problem in problems]})
    else:
        _tell(files, problems)
    if problems:
        raise typer.Exit(UsageError.exit_code)


def _where(environment: str | None, inventory: Path | None) -> "tuple[Environment, Inventory] | None":
    if environment is None:
        return None
    from frangible.validation import surveyed

    _, loaded = inventory_at(inventory, Home.find())
    found, unknown = surveyed(loaded.get(environment))
    if unknown:
        typer.echo(f"frangible: whether {environment} has the targets of an experiment was not checked: {unknown}", err=True)
    return found, loaded


def _tell(files: list[str], problems: list[Problem]) -> None:
    for problem in problems:
        typer.echo(f"frangible: {problem}", err=True)
    if not problems:
        named = any(Path(name).is_dir() or Path(name).name == "frangible.yaml" for name in files)
        typer.echo(f"{len(files)} file{'s' if len(files) != 1 else ''}{' and everything named there' if named else ''}: no problem")


def _problems(name: str, where: "tuple[Environment, Inventory] | None", folders: "list[Path]") -> Iterable[Problem]:
    """Check one file by its kind; a file that cannot be read is a problem like any other."""
    try:
        path = Path(name) if Path(name).exists() else known_experiments().get(name) or experiment_file(name)
        match kind_of(path):
            case Kind.CONFIGURATION:
                return tuple(_estate(path / CONFIGURATION if path.is_dir() else path, where, folders))
            case Kind.INVENTORY:
                from frangible.inventory import load_inventory

                load_inventory(path)
            case Kind.HYPOTHESIS:
                from frangible.hypothesis import load_hypotheses

                load_hypotheses((path,))
                return tuple(_hidden_hypothesis(path))
            case Kind.POLICY:
                from frangible.policy import load_policy

                load_policy(path)
            case Kind.GAMEDAY:
                from frangible.agenda import experiment_files, load_agenda

                experiment_files(*load_agenda(path), experiment_file)
            case Kind.EXPERIMENT:
                return _experiment(path, where, folders)
    except InputError as error:
        return error.problems
    except FrangibleError as error:
        return (Problem(name, None, "", str(error)),)
    return ()


def _estate(file: Path, where: "tuple[Environment, Inventory] | None", folders: "list[Path]") -> Iterator[Problem]:
    """Check a configuration and everything that it names."""
    from frangible.estate import load_estate
    from frangible.yamlfile import yaml_files

    estate = load_estate(file)
    places = [estate.inventory] if estate.inventory else []
    places += [path for folder in estate.hypotheses for path in yaml_files(folder, InputError)]
    places += estate.own_experiments().values()
    found = [problem for place in places for problem in _problems(str(place), where, [*folders, *estate.hypotheses])]
    yield from dict.fromkeys([*found, *(problem for path in estate.own_experiments().values() for problem in _hidden_experiment(path))])


def _hidden_hypothesis(path: Path) -> Iterator[Problem]:
    from frangible import launch
    from frangible.hypothesis import shipped_hypotheses

    if path.resolve().parent != shipped_hypotheses().resolve():
        for name in launch.hidden_hypotheses((path,)):
            yield Problem(str(path), None, "name", f"hides the shipped hypothesis {name!r}", "give it a name of its own", HIDES)


def _hidden_experiment(path: Path) -> Iterator[Problem]:
    shipped = shipped_experiments()
    if path.stem in shipped and path.resolve() != shipped[path.stem].resolve():
        yield Problem(str(path), None, "", f"hides the shipped experiment {path.stem!r}", "give the file a name of its own", HIDES)


def _own(path: Path) -> bool:
    """Tell whether the estate that is in force finds this file by its name."""
    from frangible.estate import find_estate

    estate = find_estate()
    return estate is not None and path.resolve() in {file.resolve() for file in estate.own_experiments().values()}


def _experiment(path: Path, where: "tuple[Environment, Inventory] | None", folders: "list[Path]") -> tuple[Problem, ...]:
    from frangible import launch
    from frangible.validation import validate as check

    known = launch.hypotheses_for(path, tuple(folders))
    return (*check(path, where[0] if where else None, where[1] if where else None, known), *(_hidden_experiment(path) if _own(path) else ()))


def kind_of(path: Path) -> Kind:
    """Tell what a file is meant to be from its content; a folder is an inventory, or an estate when it has a `frangible.yaml`."""
    if path.name == CONFIGURATION or (path / CONFIGURATION).is_file():
        return Kind.CONFIGURATION
    if path.is_dir():
        return Kind.INVENTORY
    if path.suffix == ".json":
        return Kind.EXPERIMENT
    from frangible.yamlfile import read_document

    data = read_document(path, InputError).data
    keys = data.keys() if isinstance(data, dict) else frozenset[str]()
    if "environments" in keys:
        return Kind.INVENTORY
    if "rules" in keys:
        return Kind.POLICY
    if "waves" in keys:
        return Kind.GAMEDAY
    return Kind.HYPOTHESIS if "indicators" in keys else Kind.EXPERIMENT
