"""Where frangible keeps its own files: journal, ledger, one folder a run, the lab."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Home"]


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of frangible's own state; `FRANGIBLE_HOME` names it, else the XDG state folder."""

    path: Path

    @classmethod
    def find(cls) -> "Home":
        """Return the home that the environment variables ask for; nothing is created."""
        explicit = os.environ.get("FRANGIBLE_HOME")
        if explicit:
            return cls(Path(explicit).expanduser().absolute())
        state = os.environ.get("XDG_STATE_HOME")
        base = Path(state) if state else Path.home() / ".local" / "state"
        return cls(base / "frangible")

    @property
    def journal_url(self) -> str:
        """SQLAlchemy URL of the journal; `FRANGIBLE_JOURNAL` overrides the SQLite default."""
        return os.environ.get("FRANGIBLE_JOURNAL") or f"sqlite:///{self.path / 'journal.db'}"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger; `FRANGIBLE_LEDGER` overrides the SQLite default."""
        return os.environ.get("FRANGIBLE_LEDGER") or f"sqlite:///{self.path / 'ledger.db'}"

    @property
    def runs(self) -> Path:
        """Folder with one folder a run: plan, events, logs, Chaos Toolkit journal."""
        return self.path / "runs"

    @property
    def lab(self) -> Path:
        """The embedded lab's one data folder."""
        return self.path / "lab"
