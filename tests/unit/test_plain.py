"""A declared part read back without its model says the same as the model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from frangible.environment import Environment
from frangible.experiment import Windows
from frangible.plain import PATHS, TABLES, Plain

HERE = Path("/somewhere")
WHOLE = {
    "name": "lab-london",
    "parent": "lab",
    "region": "london",
    "tier": "staging",
    "owner": {"team": "t", "contact": "c"},
    "exchanges": ["XLON"],
    "platform": {
        "kind": "hosts",
        "root": "targets",
        "locks": "/locks",
        "power": {"driver": "rack", "socket": "rack.sock"},
        "cpu": {"driver": "host"},
        "services": {"driver": "rack", "socket": "rack.sock"},
        "load": {"driver": "command", "read": ["read"], "set": ["set", "{rate}"]},
    },
    "prometheus": {
        "url": "http://localhost:9090",
        "ca-file": "ca.pem",
        "basic": {"user": "u", "password": {"file": "secret"}},
        "headers": {"X-Scope-OrgID": "a-b"},
        "secret-headers": {"X-Some-Name": {"variable": "V"}},
        "scrape-interval": 2.5,
    },
    "labels": {"some_label": "x-y"},
    "nodes": [{"name": "app-1", "roles": ["app", "other"], "cpus": 2}],
    "services": [{"name": "gateway", "version": "1", "role": "app"}],
    "middleware": [{"name": "nats", "nodes": ["app-1"]}],
    "shares": ["network"],
    "machine": "m",
    "volume": {"highest-per-second": 5},
    "limits": {"nodes-at-once": 2},
}
LEAST = {"name": "a", "region": "r", "tier": "staging", "owner": {"team": "t"}, "platform": {"kind": "hosts", "root": "r", "locks": "l"}}

FAR = LEAST | {
    "platform": {
        "kind": "hosts",
        "root": "/r",
        "locks": "/l",
        "transport": "ssh",
        "ssh": {"host": "far", "identity-file": "key", "known-hosts": "/known", "config-file": "ssh.config"},
    }
}


def assert_same(plain: object, model: object, where: str = "") -> None:
    """Compare field by field; `plain` has the names of the model's fields and nothing else."""
    if isinstance(model, BaseModel):
        assert vars(plain).keys() == type(model).model_fields.keys(), where
        for name in type(model).model_fields:
            assert_same(getattr(plain, name), getattr(model, name), f"{where}.{name}")
    elif isinstance(model, tuple):
        assert isinstance(plain, tuple), where
        for number, (left, right) in enumerate(zip(plain, model, strict=True)):
            assert_same(left, right, f"{where}[{number}]")
    elif not any(isinstance(value, BaseModel) for value in model.values()) if isinstance(model, Mapping) else True:
        assert (plain, type(plain)) == (model, type(model)), where


@pytest.mark.parametrize("data", [WHOLE, LEAST, FAR], ids=["everything given", "as little as possible", "over ssh"])
def test_an_environment_has_the_same_fields_with_the_same_values(data: dict[str, Any]) -> None:
    model = Environment.model_validate(data, by_alias=True, context={"base": HERE})
    assert_same(Plain.read(model.model_dump_json(by_alias=True)), model)


@pytest.mark.parametrize("data", [{}, {"baseline": 3, "recovery-limit": 4.5, "observe-for": 1}], ids=["none given", "some given"])
def test_windows_have_the_same_lengths(data: dict[str, Any]) -> None:
    model = Windows.model_validate(data)
    assert_same(Plain.read(model.model_dump_json(by_alias=True)), model)


def test_every_path_and_every_table_of_an_environment_is_known() -> None:
    """A field that is added later, and that JSON holds in another form, has to be named there."""
    kinds = dict(fields(Environment))
    assert {name for name, text in kinds.items() if "Path" in text} == PATHS
    assert {name for name, text in kinds.items() if text in {"Labels", "Headers", "SecretHeaders"} or text.startswith("dict")} == TABLES


def fields(model: type[BaseModel], seen: set[type] | None = None) -> Iterator[tuple[str, str]]:
    """Yield every field of a model and of the models in it, with its type as text."""
    from frangible.yamlfile import _models_in

    seen = set() if seen is None else seen
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield name, str(field.annotation)
        for inner in _models_in(field.annotation):
            yield from fields(inner, seen)
