"""What a run is: everything resolved before anything starts, in one file of the run's folder."""

import getpass
import json
import os
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from frangible.errors import FrangibleError
from frangible.plain import Plain

if TYPE_CHECKING:
    from frangible.experiment import Windows
    from frangible.hypothesis import Hypothesis
    from frangible.inventory import Environment

__all__ = ["Plan", "actor"]

FORMAT = 1


def actor() -> str:
    """Return who starts the run, `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True)
class Plan:
    """One run of one experiment on one environment. `document` and the models are kept as JSON, parsed when asked for."""

    run_id: str
    folder: Path
    home: Path
    journal_url: str
    ledger_url: str
    experiment_path: str
    experiment: str
    """Short name, the file's stem."""
    title: str
    digest: str
    injects: bool
    """Whether the method has an action that injects a fault."""
    has_control: bool
    longest_hold: float
    """Seconds: the sum of all holds, for the deadline."""
    actor: str
    note: str
    ticket: str
    keys: tuple[str, ...]
    environment_json: str
    hypotheses_json: str
    windows_json: str
    needs: tuple[str, ...] = ()
    """Primitives that the experiment's faults use."""
    seed: int = 0
    """See `Request.seed`; never 0 in a run that was planned."""

    @cached_property
    def environment(self) -> "Environment":
        """The environment as it was when the run was planned; a run on hosts that neither injects nor judges reads its values only."""
        if not self.injects and not self.hypotheses:
            plain = cast("Environment", Plain.read(self.environment_json))
            if plain.platform.kind == "hosts":
                return plain
        from frangible.inventory import Environment

        return Environment.model_validate_json(self.environment_json)

    @cached_property
    def hypotheses(self) -> "tuple[Hypothesis, ...]":
        """The hypotheses that the experiment names."""
        items = json.loads(self.hypotheses_json)
        if not items:
            return ()
        from frangible.hypothesis import Hypothesis

        return tuple(Hypothesis.model_validate(item) for item in items)

    @cached_property
    def windows(self) -> "Windows":
        """Lengths of the run's windows."""
        return cast("Windows", Plain.read(self.windows_json))

    @property
    def document_path(self) -> Path:
        """The experiment as it was when the run was planned, JSON."""
        return self.folder / "experiment.json"

    @property
    def events_path(self) -> Path:
        """Events, one JSON object a line."""
        return self.folder / "events.jsonl"

    @property
    def record_path(self) -> Path:
        """Where the record goes when the journal cannot be written."""
        return self.folder / "record.json"

    def save(self) -> Path:
        """Write `plan.json` into the run's folder and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        data: dict[str, Any] = {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}
        data |= {"folder": str(self.folder), "home": str(self.home), "keys": list(self.keys), "needs": list(self.needs), "format": FORMAT}
        path = self.folder / "plan.json"
        path.write_text(json.dumps(data, indent=1))
        return path

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read the plan of a run's folder; raise `FrangibleError` when it is not one."""
        path = folder / "plan.json"
        try:
            data = json.loads(path.read_text())
            if data.pop("format") != FORMAT:
                raise FrangibleError(f"{path}: written by another version of frangible; run the experiment again")
            data |= {"folder": Path(data["folder"]), "home": Path(data["home"]), "keys": tuple(data["keys"]), "needs": tuple(data.get("needs", ()))}
            return cls(**data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FrangibleError(f"{path}: expected the plan of a run, found something else: {error}") from error
