"""Requests: deadlines, errors in words, what is made again; and an API server that goes away and comes back."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from frangible.errors import PlatformError
from frangible.platforms.kubernetes import client
from frangible.platforms.kubernetes.client import Cluster, Conflict, NotFound

from ..apiserver import ApiServer, Objects
from .conftest import Declare


@pytest.fixture
def cluster(declare: Declare) -> Cluster:
    return Cluster(declare())


def test_every_error_says_who_asked_what_of_whom(cluster: Cluster, api: ApiServer, name: str) -> None:
    """A missing object and a second one of a name are told apart from everything else."""
    with pytest.raises(NotFound) as missing:
        cluster.ask(cluster.core.read_namespaced_pod, "none", name)
    assert str(missing.value) == f'environment env-{name}, cluster {api.url}: read namespaced pod: pods "none" not found'
    body = {"metadata": {"name": "twice"}}
    cluster.ask(cluster.core.create_namespaced_config_map, name, body)
    with pytest.raises(Conflict, match='"twice" already exists'):
        cluster.ask(cluster.core.create_namespaced_config_map, name, body)
    with pytest.raises(PlatformError, match=r"refused \(422\)"):
        cluster.ask(cluster.core.create_namespaced_config_map, name, {"metadata": {"name": "NOT A NAME"}})


def test_a_missing_permission_is_named(declare: Declare, name: str) -> None:
    """What the API says of it, which names user, verb, resource and place, and what to do."""
    cluster = Cluster(declare(user="stranger"))
    with pytest.raises(PlatformError) as forbidden:
        cluster.ask(cluster.core.list_namespaced_pod, name)
    for part in ("a permission is missing", 'User "stranger" cannot list resource "pods"', f'in the namespace "{name}"', "frangible doctor"):
        assert part in str(forbidden.value)


def test_credentials_that_the_cluster_does_not_know_are_an_error_at_once(declare: Declare, api: ApiServer) -> None:
    config = api.kubeconfig()
    config.write_text(config.read_text().replace("admin-token", "nobodys-token"))
    cluster, began = Cluster(declare({"kubeconfig": str(config)})), time.monotonic()
    with pytest.raises(PlatformError, match=r"it does not know us .*: renew the credentials"):
        cluster.ask(cluster.core.list_node)
    assert time.monotonic() - began < client.PATIENCE


def test_a_certificate_of_somebody_else_is_never_accepted(declare: Declare, api: ApiServer) -> None:
    """And it is no passing trouble: nothing is tried again."""
    config = api.kubeconfig()
    loaded = yaml.safe_load(config.read_text())
    del loaded["clusters"][0]["cluster"]["certificate-authority"]
    config.write_text(yaml.safe_dump(loaded))
    cluster, began = Cluster(declare({"kubeconfig": str(config)})), time.monotonic()
    with pytest.raises(PlatformError, match=r"its certificate is not trusted"):
        cluster.ask(cluster.core.list_node)
    assert time.monotonic() - began < client.PATIENCE
    config = api.kubeconfig(**{"certificate-authority": str(Path(__file__))})
    cluster = Cluster(declare({"kubeconfig": str(config)}))
    with pytest.raises(PlatformError):
        cluster.ask(cluster.core.list_node)


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ({"context": "nowhere"}, "'nowhere'"),
        ({"kubeconfig": "/nowhere/config"}, "/nowhere/config"),
    ],
    ids=["context", "file"],
)
def test_a_cluster_that_cannot_be_found_is_an_error_that_names_it(declare: Declare, platform: dict[str, object], said: str) -> None:
    with pytest.raises(PlatformError) as caught:
        Cluster(declare(platform)).core  # noqa: B018 - the client is made here
    assert said in str(caught.value)
    assert "`platform.kubeconfig` and `platform.context` of the inventory" in str(caught.value)


def test_the_users_own_kubeconfig_is_the_last_resort_and_may_be_a_list(
    declare: Declare, api: ApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """KUBECONFIG with several files is merged, as kubectl does; where there is none at all, the error says so and nothing is asked of localhost."""
    environment = declare({"kubeconfig": None, "context": "tests"})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(PlatformError, match=r"there is no kubeconfig at ~/.kube/config; name one with `platform.kubeconfig` or KUBECONFIG"):
        Cluster(environment).core  # noqa: B018
    other = tmp_path / "other"
    other.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": [], "current-context": "other"}))
    monkeypatch.setenv("KUBECONFIG", f"{other}:{api.kubeconfig()}")
    cluster = Cluster(environment)
    assert cluster.ask(cluster.version.get_code).data["major"] == "1"


def test_credentials_come_from_a_command_where_the_kubeconfig_has_one(declare: Declare, api: ApiServer, tmp_path: Path) -> None:
    """As clouds have it (`exec`)."""
    script = tmp_path / "credentials"
    credential = '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"admin-token"}}'
    script.write_text(f"#!/bin/sh\necho '{credential}'\n")
    script.chmod(0o755)
    config = api.kubeconfig()
    document = yaml.safe_load(config.read_text())
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "args": [], "interactiveMode": "Never"}
    document["users"][0]["user"] = {"exec": run}
    config.write_text(yaml.safe_dump(document))
    cluster = Cluster(declare({"kubeconfig": str(config)}))
    assert cluster.ask(cluster.version.get_code).data["major"] == "1"


def test_two_clusters_in_one_process_are_never_mixed_up(declare: Declare, api: ApiServer, name: str, silent: str) -> None:
    """Each environment has a client of its own, and the library's process-wide default is left alone."""
    from kubernetes.client import Configuration

    before = Configuration.get_default_copy().host
    here = Cluster(declare())
    elsewhere = Cluster(declare({"kubeconfig": str(api.kubeconfig(server=silent))}))
    assert here.core.api_client.configuration.host == api.url
    assert elsewhere.core.api_client.configuration.host == silent
    assert here.ask(here.core.list_namespaced_pod, name).items == []
    assert Configuration.get_default_copy().host == before


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_says_nothing_is_given_up(declare: Declare, api: ApiServer, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request has a deadline, and all repeats of it too."""
    monkeypatch.setattr(client, "CONNECT", 0.3)
    monkeypatch.setattr(client, "PATIENCE", 0.5)
    cluster = Cluster(declare({"kubeconfig": str(api.kubeconfig(server=silent))}))
    with pytest.raises(PlatformError, match=f"cluster {silent}: list node: no answer: .*; is the cluster up and reachable from here"):
        cluster.ask(cluster.core.list_node, read=0.3)


def test_a_proxy_of_the_kubeconfig_is_used(declare: Declare, api: ApiServer) -> None:
    """The proxy is asked, and nothing is when it is not there."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        asked: list[bytes] = []

        def answer() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        cluster = Cluster(declare({"kubeconfig": str(api.kubeconfig(**{"proxy-url": f"http://127.0.0.1:{proxy.getsockname()[1]}"}))}))
        with pytest.raises(PlatformError):
            cluster.ask(cluster.core.list_node, repeat=False)
        thread.join()
    assert asked[0].startswith(f"CONNECT {api.url.removeprefix('https://')} ".encode())


def test_requests_outlast_a_server_that_is_started_again(cluster: Cluster, api: ApiServer, name: str) -> None:
    """While it is away an error says so within the patience; what was asked as it came back is answered; nothing was lost."""
    cluster.ask(cluster.core.create_namespaced_config_map, name, {"metadata": {"name": "kept"}})
    api.kill_api()
    began = time.monotonic()
    with pytest.raises(PlatformError, match=r"no answer: .*refused.*; is the cluster up"):
        cluster.ask(cluster.core.list_namespaced_config_map, name)
    assert time.monotonic() - began < client.PATIENCE + 5
    api.start_api()
    assert "kept" in [item["metadata"]["name"] for item in cluster.ask(cluster.core.list_namespaced_config_map, name).items]


def test_a_request_that_meets_no_server_for_a_moment_is_made_again(cluster: Cluster, api: ApiServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 120.0)
    api.kill_api()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(cluster.ask(cluster.core.list_namespaced_pod, name).items)))
    thread.start()
    api.start_api()
    thread.join(120)
    assert found == [0]


def test_changes_are_followed_by_a_watch_also_across_a_restart(cluster: Cluster, api: ApiServer, objects: Objects, name: str) -> None:
    """Each change is seen once it is there; a connection that ends is begun anew with what there is by then."""
    seen: list[set[str]] = []
    following = cluster.follow(cluster.core.list_namespaced_pod, name, seconds=120)
    seen.append({item["metadata"]["name"] for item in next(following)})
    objects.pod(name, "one", running=False)
    seen.append({item["metadata"]["name"] for item in next(following)})
    api.kill_api()
    api.start_api()
    objects.pod(name, "two", running=False)
    while "two" not in seen[-1]:
        seen.append({item["metadata"]["name"] for item in next(following)})
    objects.core.delete_namespaced_pod("one", name)
    while "one" in seen[-1]:
        seen.append({item["metadata"]["name"] for item in next(following)})
    assert (seen[0], seen[1], seen[-1]) == (set(), {"one"}, {"two"})


def test_following_ends_with_its_time(cluster: Cluster, name: str) -> None:
    assert list(cluster.follow(cluster.core.list_namespaced_pod, name, seconds=1)) == [()]


def test_long_lists_come_page_by_page(cluster: Cluster, objects: Objects, name: str) -> None:
    for number in range(7):
        objects.core.create_namespaced_config_map(name, {"metadata": {"name": f"page-{number}"}})
    found = [item["metadata"]["name"] for item in cluster.pages(cluster.core.list_namespaced_config_map, name, limit=3)]
    assert [one for one in found if one.startswith("page")] == [f"page-{number}" for number in range(7)]
