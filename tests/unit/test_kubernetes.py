"""The platform `kubernetes` as far as it needs no cluster: what the inventory may say, what is laid over it, names and selectors."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from frangible.environment import Node
from frangible.errors import InventoryError, PlatformError
from frangible.inventory import Environment, load_inventory
from frangible.platforms import open_platform
from frangible.platforms.kubernetes.labels import object_name, value
from frangible.platforms.kubernetes.objects import ClusterNode, Pod, Selector, Workload, quantity
from frangible.platforms.kubernetes.survey import Found, place
from frangible.platforms.power import ContainerDriver
from frangible.validation import primitives_of, surveyed

PLATFORM = {"kind": "kubernetes", "namespaces": ["robust"]}
SERVICES = [{"name": "gateway"}]


def written(folder: Path, platform: dict[str, object], **more: object) -> Path:
    entry = {"name": "k8s", "region": "london", "tier": "staging", "owner": {"team": "t"}, "platform": platform, **more}
    path = folder / "inventory.yaml"
    path.write_text(yaml.safe_dump({"environments": [entry]}))
    return path


def declared(folder: Path, platform: dict[str, object] | None = None, **more: object) -> Environment:
    return load_inventory(written(folder, {**PLATFORM, **(platform or {})}, **more)).get("k8s")


@pytest.mark.parametrize(
    ("platform", "more", "said"),
    [
        (PLATFORM | {"root": "r", "transport": "ssh"}, {}, "`transport`, `root` belongs to the platform 'hosts' and means nothing for 'kubernetes'"),
        ({"kind": "hosts", "root": "r", "locks": "l", "context": "c"}, {}, "`context` belongs to the platform 'kubernetes' and means nothing for 'hosts'"),
        ({"kind": "kubernetes"}, {}, "expected either `namespaces` or `namespace-selector` for the platform 'kubernetes', found both or neither"),
        (PLATFORM | {"namespace-selector": "a=b"}, {}, "expected either `namespaces` or `namespace-selector`"),
        (PLATFORM | {"power": {"driver": "rack", "socket": "s"}}, {}, "the driver 'rack' of `power` is none of the platform 'kubernetes'"),
        (PLATFORM | {"power": {"driver": "container"}}, {}, "expected exactly `runtime` for the driver 'container', found none"),
        (PLATFORM | {"load": {"driver": "configmap", "name": "load"}}, {}, "expected exactly `key`, `name` for the driver 'configmap', found name"),
        (PLATFORM | {"namespaces": ["Robust"]}, {}, "namespaces"),
        (PLATFORM, {"services": [{"name": "gateway", "role": "edge"}]}, "on Kubernetes the cluster says where something runs: remove `role`"),
        (PLATFORM, {"middleware": [{"name": "nats", "nodes": ["n"]}], "nodes": [{"name": "n"}]}, "remove `nodes`"),
        (PLATFORM, {"services": [{"name": "gateway", "workload": "job/gateway"}]}, "workload"),
        (PLATFORM, {"prometheus": {"url": "http://p:1", "runs-on": "pod/prometheus"}}, "expected `outside`, a node, or a workload such as"),
        (
            {"kind": "hosts", "root": "r", "locks": "l"},
            {"services": [{"name": "gateway", "workload": "deployment/gateway"}]},
            "`workload` means nothing for the platform 'hosts': remove it",
        ),
    ],
)
def test_what_belongs_to_the_other_platform_or_is_incomplete_is_a_problem(
    tmp_path: Path, platform: dict[str, object], more: dict[str, object], said: str
) -> None:
    """Named by its key, with what to do."""
    with pytest.raises(InventoryError) as caught:
        load_inventory(written(tmp_path, platform, **more))
    assert said in str(caught.value)


def test_an_environment_survives_being_written_into_a_plan(tmp_path: Path) -> None:
    """Where defaults are written too."""
    found = declared(tmp_path, {"kubeconfig": "config", "power": {"driver": "container", "runtime": "podman"}}, services=SERVICES)
    assert Environment.model_validate_json(found.model_dump_json(by_alias=True)) == found
    assert found.platform.kubeconfig == tmp_path / "config"


@pytest.mark.parametrize(("runtime", "meant"), [("podman", "podman"), ("bin/runtime", "{}/bin/runtime"), ("/bin/runtime", "/bin/runtime")])
def test_a_runtime_is_a_name_or_a_path_beside_the_file(tmp_path: Path, runtime: str, meant: str) -> None:
    power = declared(tmp_path, {"power": {"driver": "container", "runtime": runtime}}).platform.power
    assert power is not None
    assert power.runtime == meant.format(tmp_path)


def test_primitives_are_known_from_the_inventory_without_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's import takes a second, so validation of primitives does without it."""
    for module in [name for name in sys.modules if name.partition(".")[0] == "kubernetes"]:
        monkeypatch.delitem(sys.modules, module)
    assert {"services", "power", "load"} & primitives_of(declared(tmp_path)) == {"services"}
    more: dict[str, object] = {"power": {"driver": "container", "runtime": "docker"}, "load": {"driver": "configmap", "name": "load", "key": "rate"}}
    assert primitives_of(declared(tmp_path, more)) >= {"services", "power", "load"}
    assert "kubernetes" not in sys.modules


def test_a_cluster_that_cannot_be_asked_leaves_an_environment_without_nodes_and_says_why(tmp_path: Path) -> None:
    """Declared nodes without what the cluster would add have no roles, which must not pass for a wrong role in an experiment."""
    found = declared(tmp_path, {"kubeconfig": "missing"})
    blind, why = surveyed(found.model_copy(update={"nodes": (Node(name="worker", cpus=0.8),)}))
    assert blind == found
    assert "names no cluster that can be reached" in why


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(PlatformError, match=r"whose client is not installed: pip install 'frangible\[kubernetes\]'"):
        open_platform(declared(tmp_path)).survey()


def test_what_the_platform_does_not_offer_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    platform = open_platform(declared(tmp_path))
    for call in (lambda: platform.power_off("n"), platform.load, lambda: platform.set_load(1.0)):
        with pytest.raises(PlatformError, match=r"declare `platform\.(power|load)` in the inventory"):
            call()


NODE = ClusterNode("n1", {}, ready=True, cordoned=False, boot="b", cpus=4.0, info={})
POD = Pod("robust", "p", "u", "n1", {"app": "gateway"}, ended=False, deleting=False, ready=True, containers=())
GATEWAY = Workload("robust", "deployment", "gateway", {"app.kubernetes.io/name": "gateway"}, Selector({"app": "gateway"}), 2)


@pytest.mark.parametrize(
    ("pod", "nodes"),
    [
        (POD, ("n1",)),
        (replace(POD, ready=False), ("n1",)),
        (replace(POD, node=""), ()),
        (replace(POD, ended=True), ()),
        (replace(POD, deleting=True), ()),
        (replace(POD, namespace="other"), ()),
        (replace(POD, labels={"app": "other"}), ()),
    ],
    ids=["running", "not ready", "not scheduled", "ended", "on its way out", "of another namespace", "of another workload"],
)
def test_a_node_has_the_role_of_what_is_on_it(tmp_path: Path, pod: Pod, nodes: tuple[str, ...]) -> None:
    found = place(declared(tmp_path, services=SERVICES), Found((NODE,), (pod,), (GATEWAY,)))
    assert found.services[0].nodes == nodes
    assert [node.name for node in found.nodes] == list(nodes)


@pytest.mark.parametrize(("text", "number"), [("2", 2.0), ("1930m", 1.93), ("0.5", 0.5), ("3920k", 3920e3), ("1Ki", 1024.0)])
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "many", "1x", "m"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(PlatformError, match="where a quantity such as `1930m` is expected"):
        quantity(text)


@pytest.mark.parametrize(
    ("expression", "labels", "matches", "text"),
    [
        ({"key": "a", "operator": "In", "values": ["x", "y"]}, {"a": "y"}, True, "a in (x,y)"),
        ({"key": "a", "operator": "In", "values": ["x"]}, {}, False, "a in (x)"),
        ({"key": "a", "operator": "NotIn", "values": ["x"]}, {}, True, "a notin (x)"),
        ({"key": "a", "operator": "NotIn", "values": ["x"]}, {"a": "x"}, False, "a notin (x)"),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True, "a"),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False, "!a"),
        ({"key": "a", "operator": "DoesNotExist"}, {}, True, "!a"),
    ],
)
def test_selectors_mean_what_the_api_means_by_them(expression: dict[str, object], labels: dict[str, str], matches: bool, text: str) -> None:
    selector = Selector.of({"matchLabels": {"app": "g"}, "matchExpressions": [expression]})
    assert selector.matches({"app": "g", **labels}) is matches
    assert not selector.matches(labels)
    assert str(selector) == f"app=g,{text}"


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_names_of_objects_are_valid_and_never_the_same_for_two_texts(texts: list[str]) -> None:
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names."""
    import re

    names = [object_name("frangible-lock-", text) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name) and len(name) <= 253 for name in names)


@given(st.text(max_size=200))
def test_values_of_labels_are_valid(text: str) -> None:
    import re

    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value(text))
    assert len(value(text)) <= 63


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """Something that answers as podman does; its one container runs while there is a file."""
    script = tmp_path / "podman"
    script.write_text(
        f"""#!{sys.executable}
import sys
from pathlib import Path
runs = Path(__file__).with_name("runs")
match sys.argv[1]:
    case "start": runs.touch()
    case "kill":
        if not runs.exists(): sys.exit("container is not running")
        runs.unlink()
    case "container": print("true 5f1c 2026-11-26 17:49:10 +0000 UTC" if runs.exists() else "false 5f1c 0001-01-01 00:00:00 +0000 UTC")
"""
    )
    script.chmod(0o755)
    return script


def test_a_node_that_is_a_container_is_lost_by_killing_it(runtime: Path) -> None:
    """On and off may be said twice; the instance is the container and its start, and empty while it is off."""
    driver = ContainerDriver("k8s", str(runtime))
    for _ in range(2):
        driver.on("n1")
        assert (driver.state("n1").powered, driver.state("n1").instance) == (True, "5f1c 2026-11-26 17:49:10 +0000 UTC")
    for _ in range(2):
        driver.off("n1")
        assert (driver.state("n1").powered, driver.state("n1").instance) == (False, "")


def test_a_runtime_that_answers_something_else_or_is_not_there_is_an_error(runtime: Path) -> None:
    runtime.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(PlatformError, match=r"node n1: .* inspect: expected `true` or `false`, an id and a time, got"):
        ContainerDriver("k8s", str(runtime)).state("n1")
    with pytest.raises(PlatformError, match="cannot start"):
        ContainerDriver("k8s", "/nowhere/podman").on("n1")
