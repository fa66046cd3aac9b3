"""Declared values without their models: what was validated when a run was planned is read back as it stands, in a process that imports no pydantic."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["PATHS", "TABLES", "Plain"]

PATHS = frozenset({"ca_file", "config_file", "file", "identity_file", "known_hosts", "kubeconfig", "locks", "root", "socket"})
"""Fields that are paths."""
TABLES = frozenset({"headers", "labels", "secret_headers"})
"""Fields whose keys are the user's own."""


class Plain(SimpleNamespace):
    """The fields of a declared part, by the names that its model gives them."""

    @classmethod
    def read(cls, text: str) -> "Plain":
        """Read the JSON of a whole part."""
        return cls._part(json.loads(text))

    @classmethod
    def _part(cls, data: dict[str, Any]) -> "Plain":
        named = ((key.replace("-", "_"), value) for key, value in data.items())
        return cls(**{name: cls._value(name, value) for name, value in named})

    @classmethod
    def _value(cls, name: str, value: object) -> object:
        if isinstance(value, dict) and name not in TABLES:
            return cls._part(value)
        if isinstance(value, list):
            return tuple(cls._value("", one) for one in value)
        return Path(value) if name in PATHS and isinstance(value, str) else value
