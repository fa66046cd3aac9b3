"""Where frangible keeps its own files: journal, ledger, one folder a run, the lab."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.estate import Estate

__all__ = ["CONFIGURATION", "Home"]

CONFIGURATION = "frangible.yaml"
"""Name of the file that says where the parts of an estate are."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of frangible's own state; `FRANGIBLE_HOME` names it, else the XDG state folder."""

    path: Path
    journal: str = ""
    """URL that the estate's `frangible.yaml` gives the journal; empty where it gives none."""
    ledger: str = ""

    @classmethod
    def find(cls) -> "Home":
        """Return the home that environment variables and the estate's configuration ask for; nothing is created."""
        estate = _estate()
        return cls(_folder()) if estate is None else cls(_folder(), estate.journal_url, estate.ledger_url)

    @classmethod
    def plain(cls) -> "Home":
        """Return the home without what an estate's configuration says of journal and ledger: its folder is known at once."""
        return cls(_folder())

    @property
    def journal_url(self) -> str:
        """SQLAlchemy URL of the journal: `FRANGIBLE_JOURNAL`, the estate's, SQLite in this folder."""
        return os.environ.get("FRANGIBLE_JOURNAL") or self.journal or f"sqlite:///{self.path / 'journal.db'}"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger: `FRANGIBLE_LEDGER`, the estate's, SQLite in this folder."""
        return os.environ.get("FRANGIBLE_LEDGER") or self.ledger or f"sqlite:///{self.path / 'ledger.db'}"

    @property
    def runs(self) -> Path:
        """Folder with one folder a run: plan, events, logs, Chaos Toolkit journal."""
        return self.path / "runs"

    @property
    def lab(self) -> Path:
        """The embedded lab's one data folder."""
        return self.path / "lab"


def _folder() -> Path:
    explicit = os.environ.get("FRANGIBLE_HOME")
    if explicit:
        return Path(explicit).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "frangible"


def _estate() -> "Estate | None":
    """Load the estate's configuration; without one, nothing that reads YAML is imported."""
    if not os.environ.get("FRANGIBLE_CONFIG") and not any((folder / CONFIGURATION).is_file() for folder in (Path.cwd(), *Path.cwd().parents)):
        return None
    from frangible.estate import find_estate

    return find_estate()
