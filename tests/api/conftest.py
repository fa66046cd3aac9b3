"""One API server for all tests here; each test has namespaces and nodes of its own."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from frangible.inventory import Environment, load_inventory

from ..apiserver import ApiServer, Objects, listening

HERE = Path(__file__).parent
numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share the API server on one worker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("api"))


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server that tests share; whoever kills it starts it again."""
    yield from listening(tmp_path_factory.mktemp("api") / "server")


@pytest.fixture(scope="session")
def objects(api: ApiServer) -> Objects:
    """Makes objects with all rights; the namespace `frangible` is there."""
    from kubernetes.config import new_client_from_config

    made = Objects(new_client_from_config(str(api.kubeconfig())))
    made.namespace("frangible")
    return made


@pytest.fixture
def name(objects: Objects) -> str:
    """A namespace of the test's own, which is also the prefix of its nodes."""
    own = f"test-{next(numbers)}"
    objects.namespace(own)
    return own


type Declare = Callable[..., Environment]


@pytest.fixture
def declare(tmp_path: Path, api: ApiServer, name: str) -> Declare:
    """Returns an environment in the test's own namespace, through a real inventory file; `platform` and other keys override."""

    def declared(platform: dict[str, Any] | None = None, user: str = "admin", **more: Any) -> Environment:
        settings = {"kind": "kubernetes", "kubeconfig": str(api.kubeconfig(user)), "namespaces": [name], **(platform or {})}
        entry = {
            "name": f"env-{name}",
            "region": "london",
            "tier": "staging",
            "owner": {"team": "t"},
            "platform": {key: value for key, value in settings.items() if value is not None},
            **more,
        }
        path = tmp_path / "inventory.yaml"
        path.write_text(yaml.safe_dump({"environments": [entry]}))
        return load_inventory(path).get(f"env-{name}")

    return declared
