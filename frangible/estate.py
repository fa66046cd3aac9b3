"""The folder of somebody's own estate: `frangible.yaml` says where its inventory, hypotheses, experiments and databases are.

It is found from the working directory upwards, or named by `--config` or `FRANGIBLE_CONFIG`. What its file does not name is where it would be without it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from frangible.errors import InputError, UsageError
from frangible.home import CONFIGURATION
from frangible.yamlfile import Declared, problems_of, read_document

__all__ = ["VARIABLE", "Configuration", "Estate", "configuration_at", "find_estate", "load_estate"]

VARIABLE = "FRANGIBLE_CONFIG"


class Configuration(Declared):
    """What `frangible.yaml` says. Relative paths are relative to the file."""

    inventory: str = Field(default="", description="inventory file, or folder of files")
    hypotheses: tuple[str, ...] = Field(default=(), description="files or folders of hypotheses of your own")
    experiments: tuple[str, ...] = Field(default=(), description="files or folders of experiments of your own, run by the name of their file")
    journal: str = Field(default="", description="SQLite file, or URL of a PostgreSQL database without a password")
    ledger: str = Field(default="", description="SQLite file, or URL of a PostgreSQL database without a password")


@dataclass(frozen=True, slots=True)
class Estate:
    """A configuration with its paths resolved."""

    file: Path
    inventory: Path | None
    hypotheses: tuple[Path, ...]
    experiments: tuple[Path, ...]
    journal_url: str
    """Empty where the file names no journal."""
    ledger_url: str

    @property
    def folder(self) -> Path:
        """Where the configuration lies."""
        return self.file.parent

    def own_experiments(self) -> dict[str, Path]:
        """Return its experiments by name, which is the name of the file without the ending; of two with one name the first counts."""
        found: dict[str, Path] = {}
        for place in self.experiments:
            for file in sorted(place.iterdir()) if place.is_dir() else [place]:
                if file.suffix in {".yaml", ".yml", ".json"}:
                    found.setdefault(file.stem, file)
        return found


def configuration_at(start: Path) -> Path | None:
    """Return the nearest `frangible.yaml` from a folder upwards."""
    return next((file for folder in (start, *start.parents) if (file := folder / CONFIGURATION).is_file()), None)


def find_estate() -> Estate | None:
    """Load the configuration that `FRANGIBLE_CONFIG` names (the file or its folder), else the nearest one upwards, if there is one.

    Raises `UsageError` when the named one does not exist, `InputError` with all problems when it cannot be used.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        file = configuration_at(Path.cwd())
        return None if file is None else load_estate(file)
    path = Path(named).expanduser().absolute()
    file = path / CONFIGURATION if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{VARIABLE} names {named}, where there is no {CONFIGURATION}; `frangible init {named}` writes one")
    return load_estate(file)


def load_estate(file: Path) -> Estate:
    """Load one `frangible.yaml`; raise `InputError` with all of its problems, missing files and folders too."""
    document = read_document(file, InputError)
    try:
        found = Configuration.model_validate(document.data if document.data is not None else {}, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InputError(problems_of(error, document, Configuration)) from error
    base = file.absolute().parent
    named = [(("inventory",), found.inventory)] if found.inventory else []
    listed = [((key, number), path) for key in ("hypotheses", "experiments") for number, path in enumerate(getattr(found, key))]
    problems = [
        document.problem(loc, f"{path} does not exist", "correct the path, or make it") for loc, path in [*named, *listed] if not (base / path).exists()
    ]
    for key, value in (("journal", found.journal), ("ledger", found.ledger)):
        if "://" in value and "@" in value and ":" in value.partition("://")[2].rpartition("@")[0]:
            hint = f"leave it out and use a passfile (~/.pgpass), or set FRANGIBLE_{key.upper()}"
            problems.append(document.problem((key,), "the URL holds a password, which does not belong into a file that is shared", hint))
    if problems:
        raise InputError(tuple(problems))
    return Estate(
        file=base / file.name,
        inventory=base / found.inventory if found.inventory else None,
        hypotheses=tuple(base / path for path in found.hypotheses),
        experiments=tuple(base / path for path in found.experiments),
        journal_url=_url(base, found.journal),
        ledger_url=_url(base, found.ledger),
    )


def _url(base: Path, value: str) -> str:
    return value if not value or "://" in value else f"sqlite:///{base / value}"
