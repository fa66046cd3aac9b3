"""JSON Schemas of the declared files, generated from their models: for editors, and for those who generate such files.

A schema checks one file's shape. What needs several places of a file (parents, placement, selectors) is checked by `frangible validate`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from frangible.agenda import Agenda
from frangible.durations import PATTERN, format_duration
from frangible.environment import Environment
from frangible.estate import Configuration
from frangible.experiment import Extension
from frangible.fault import JsonValue
from frangible.hypothesis import Hypothesis
from frangible.policy import Policy

__all__ = ["schema", "schemas"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> Mapping[str, dict[str, JsonValue]]:
    """Return the schemas of `configuration`, `inventory`, `hypothesis`, `experiment`, `policy` and `gameday`."""
    return {
        "configuration": _whole(Configuration, "A frangible configuration"),
        "inventory": _inventory(),
        "hypothesis": _whole(Hypothesis, "A frangible hypothesis"),
        "experiment": _experiment(),
        "policy": _whole(Policy, "A policy of frangible gate"),
        "gameday": _gameday(),
    }


def schema(kind: str) -> dict[str, JsonValue]:
    """Return the schema of one file format; raise `KeyError` for a name that is not in `schemas()`."""
    return schemas()[kind]


def _inventory() -> dict[str, Any]:
    """Only the name is required of an item: everything else may be inherited."""
    environment = _of(Environment)
    definitions = environment.pop("$defs", {})
    environment["required"] = ["name"]
    return {
        "$schema": DIALECT,
        "title": "A frangible inventory",
        "type": "object",
        "properties": {"environments": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Environment"}}},
        "required": ["environments"],
        "additionalProperties": False,
        "$defs": {**definitions, "Environment": environment},
    }


def _experiment() -> dict[str, Any]:
    """Everything but our extension is the toolkit's own and is left to it."""
    extension = _of(Extension)
    ours = {"type": "object", "required": ["name"], "properties": {"name": {"const": "frangible"}}}
    return {
        "$schema": DIALECT,
        "title": "A Chaos Toolkit experiment with frangible's extension",
        "type": "object",
        "properties": {"extensions": {"type": "array", "items": {"if": ours, "then": {"$ref": "#/$defs/Extension"}}}},
        "$defs": {**extension.pop("$defs", {}), "Extension": extension},
    }


def _gameday() -> dict[str, Any]:
    """A plain list of environments stands for their names."""
    found = _whole(Agenda, "A plan of frangible gameday")
    environments = found["$defs"]["Wave"]["properties"]["environments"]
    found["$defs"]["Wave"]["properties"]["environments"] = {
        "description": environments.pop("description", ""),
        "anyOf": [environments, {"type": "array", "items": {"type": "string"}}],
    }
    return found


def _whole(model: type[BaseModel], title: str) -> dict[str, Any]:
    return {"$schema": DIALECT, **_of(model), "title": title}


def _of(model: type[BaseModel]) -> dict[str, Any]:
    found = model.model_json_schema(by_alias=True)
    _write_durations(found)
    return found


def _write_durations(place: object) -> None:
    """Give defaults the form that files use: `5s` instead of 5.0."""
    if isinstance(place, list):
        for item in place:
            _write_durations(item)
    if not isinstance(place, dict):
        return
    if _is_duration(place) and isinstance(place.get("default"), int | float):
        place["default"] = format_duration(place["default"])
    for value in place.values():
        _write_durations(value)


def _is_duration(place: Mapping[str, Any]) -> bool:
    return place.get("pattern") == PATTERN or str(place.get("$ref", "")).rpartition("/")[2] in ("Seconds", "Positive")
