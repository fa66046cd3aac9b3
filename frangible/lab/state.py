"""What is written down about a running lab, so that any later command finds it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from frangible.errors import LabError
from frangible.lab.layout import EnvironmentSpec, Folder, chosen
from frangible.process import ProcessIdentity

__all__ = ["LabState", "Tools"]

FORMAT = 3


@dataclass(frozen=True, slots=True)
class Tools:
    """The real parts that were found, with their versions."""

    nats: Path
    postgres: Path
    """Folder of PostgreSQL's programs."""
    prometheus: Path
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabState:
    """One lab: where it is, who its rack is, which ports it uses."""

    folder: Path
    rack: ProcessIdentity | None
    """None until the rack has said who it is."""
    ports: Mapping[str, int]
    password: str
    """Of PostgreSQL and of the nodes' supervisord; made for this lab alone."""
    tools: Tools
    environments: tuple[str, ...] = ()
    """Which of the estate's it has; all of them where none is named."""
    calibrated: Mapping[str, float] = field(default_factory=dict)
    """Headroom of each node when the lab had come up, by node key."""

    @property
    def estate(self) -> tuple[EnvironmentSpec, ...]:
        """The environments of this lab."""
        return chosen(self.environments)

    @property
    def prometheus_url(self) -> str:
        """Where the lab's Prometheus answers."""
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    @property
    def inventory(self) -> Path:
        """The lab's inventory file."""
        return Folder(self.folder).inventory

    @property
    def alive(self) -> bool:
        """Whether the rack runs."""
        return self.rack is not None and self.rack.is_alive()

    def with_rack(self, rack: ProcessIdentity) -> "LabState":
        """The same lab with its rack known."""
        return replace(self, rack=rack)

    def with_headroom(self, calibrated: Mapping[str, float]) -> "LabState":
        """The same lab with what its nodes had left when it had come up."""
        return replace(self, calibrated=calibrated)

    def write(self) -> None:
        """Replace the state file at once; only the owner may read it."""
        file = Folder(self.folder).state
        tools = self.tools
        data = {
            "format": FORMAT,
            "rack": self.rack.to_json() if self.rack else None,
            "ports": dict(self.ports),
            "password": self.password,
            "environments": list(self.environments),
            "calibrated": dict(self.calibrated),
            "tools": {
                "nats": str(tools.nats),
                "postgres": str(tools.postgres),
                "prometheus": str(tools.prometheus),
                "versions": dict(tools.versions),
            },
        }
        fresh = file.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(data, stream, indent=1)
        fresh.replace(file)

    @classmethod
    def read(cls, folder: Path) -> "LabState | None":
        """Read the state of the lab in a folder; None where there is none."""
        file = Folder(folder).state
        try:
            data = json.loads(file.read_text())
            if data["format"] != FORMAT:
                raise LabError(f"{file}: format {data['format']} was written by another version of frangible; stop that lab with its own version")
            tools = data["tools"]
            return cls(
                folder,
                ProcessIdentity.from_json(data["rack"]) if data["rack"] else None,
                {str(name): int(port) for name, port in data["ports"].items()},
                str(data["password"]),
                Tools(Path(tools["nats"]), Path(tools["postgres"]), Path(tools["prometheus"]), dict(tools["versions"])),
                tuple(map(str, data["environments"])),
                {str(key): float(share) for key, share in data["calibrated"].items()},
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{file}: expected the state of a lab, found something else ({error}); remove it after `frangible lab down`") from error
