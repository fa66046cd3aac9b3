"""What is where, as a real API server tells it."""

import pytest

from frangible.errors import PlatformError
from frangible.inventory import Environment
from frangible.platforms import open_platform
from frangible.targets import Choice, candidates, service_nodes

from ..apiserver import Objects
from .conftest import Declare

SERVICES = {"services": [{"name": "gateway"}, {"name": "execution", "workload": "deployment/execution-engine"}], "middleware": [{"name": "nats"}]}


@pytest.fixture
def estate(objects: Objects, name: str) -> Objects:
    """Three workers and a control plane; a gateway on two of them and on the control plane, an engine, a broker."""
    for node in ("a", "b", "c"):
        objects.node(f"{name}-{node}", labels={"estate": name})
    objects.node(f"{name}-control", labels={"estate": name, "node-role.kubernetes.io/control-plane": ""})
    objects.workload("deployment", name, "gateway", 3)
    objects.workload("deployment", name, "execution-engine")
    objects.workload("statefulset", name, "nats")
    for number, node in enumerate(("a", "b", "control")):
        objects.pod(name, f"gateway-{number}", f"{name}-{node}", app="gateway")
    objects.pod(name, "execution-0", f"{name}-b", app="execution-engine")
    objects.pod(name, "nats-0", f"{name}-a", app="nats")
    objects.pod(name, "stray", f"{name}-c")
    return objects


def roles(environment: Environment, name: str) -> dict[str, tuple[str, ...]]:
    return {node.name.removeprefix(f"{name}-"): node.roles for node in environment.nodes}


def test_nodes_are_where_the_pods_are_and_have_their_names_as_roles(estate: Objects, declare: Declare, name: str) -> None:
    """Without a word about nodes in the inventory: never the control plane, never a node that none of its services is on."""
    found = open_platform(declare(**SERVICES)).survey()
    assert roles(found, name) == {"a": ("gateway", "nats"), "b": ("gateway", "execution")}
    assert {node.cpus for node in found.nodes} == {4.0}
    assert service_nodes(found) == {
        "gateway": (f"{name}-a", f"{name}-b"),
        "execution": (f"{name}-b",),
        "nats": (f"{name}-a",),
    }
    assert [str(target) for target in candidates(found, "service", Choice(role="execution"))] == [
        f"service {name}-b/execution",
        f"service {name}-b/gateway",
    ]


def test_a_selector_brings_empty_nodes_too_and_no_control_plane(estate: Objects, declare: Declare, name: str) -> None:
    found = open_platform(declare({"node-selector": f"estate={name}"}, **SERVICES)).survey()
    assert roles(found, name) == {"a": ("gateway", "nats"), "b": ("gateway", "execution"), "c": ()}


def test_declared_nodes_are_the_nodes_with_the_roles_and_cpus_that_they_are_given(estate: Objects, declare: Declare, name: str) -> None:
    """A control plane that is declared is one of them; a pod on a node that is not declared gives nothing."""
    nodes = [{"name": f"{name}-control", "roles": ["edge"], "cpus": 2}, {"name": f"{name}-c"}]
    found = open_platform(declare(nodes=nodes, **SERVICES)).survey()
    assert roles(found, name) == {"c": (), "control": ("edge", "gateway")}
    assert [node.cpus for node in sorted(found.nodes, key=lambda node: node.name)] == [4.0, 2.0]


def test_a_pod_that_moved_is_found_where_it_is_now(estate: Objects, declare: Declare, name: str) -> None:
    """The survey is made each time that it is asked for; a pod on its way out does not count."""
    platform = open_platform(declare(**SERVICES))
    assert platform.survey().middleware[0].nodes == (f"{name}-a",)
    estate.core.delete_namespaced_pod("nats-0", name)  # nobody plays its kubelet: it stays, on its way out
    estate.pod(name, "nats-1", f"{name}-c", app="nats")
    assert platform.survey().middleware[0].nodes == (f"{name}-c",)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"services": [{"name": "nothing"}]}, "service nothing: no Deployment, StatefulSet or DaemonSet the label app.kubernetes.io/name=nothing in"),
        ({"services": [{"name": "x", "workload": "daemonset/gateway"}]}, "no Deployment, StatefulSet or DaemonSet daemonset/gateway in"),
        ({"nodes": [{"name": "no-such-node"}]}, 'nodes "no-such-node" not found; name a node that `kubectl get nodes` lists'),
    ],
    ids=["label", "workload", "node"],
)
def test_what_is_declared_and_not_there_is_an_error_that_says_what_to_do(estate: Objects, declare: Declare, more: dict[str, object], said: str) -> None:
    with pytest.raises(PlatformError) as caught:
        open_platform(declare(**more)).survey()
    assert said in str(caught.value)
    assert str(caught.value).startswith("environment env-test-")


def test_two_workloads_for_one_service_are_told_apart_by_name(estate: Objects, declare: Declare, name: str) -> None:
    estate.workload("statefulset", name, "gateway-canary", labels={"app.kubernetes.io/name": "gateway"})
    with pytest.raises(PlatformError, match=r"means several .*gateway, .*gateway-canary.; name one of them with `workload`"):
        open_platform(declare(**SERVICES)).survey()
    chosen = {"services": [{"name": "gateway", "workload": f"{name}/deployment/gateway"}]}
    assert roles(open_platform(declare(**chosen)).survey(), name) == {"a": ("gateway",), "b": ("gateway",)}


def test_namespaces_are_chosen_by_label(estate: Objects, declare: Declare, name: str) -> None:
    estate.namespace(f"{name}-more", team=name)
    estate.workload("deployment", f"{name}-more", "pricing")
    estate.pod(f"{name}-more", "pricing-0", f"{name}-c", app="pricing")
    chosen = {"namespaces": None, "namespace-selector": f"team={name}"}
    assert roles(open_platform(declare(chosen, services=[{"name": "pricing"}])).survey(), name) == {"c": ("pricing",)}
    with pytest.raises(PlatformError, match=r"no namespace has the labels 'team=nobody'"):
        open_platform(declare({"namespaces": None, "namespace-selector": "team=nobody"})).survey()


def test_where_prometheus_is_is_looked_up(estate: Objects, declare: Declare, name: str) -> None:
    """Each pod of its workload is an observer; a workload without a pod is an error, since a guard without answer refuses."""
    estate.workload("statefulset", name, "prometheus", 2)
    named = {"prometheus": {"url": "http://127.0.0.1:9090", "runs-on": f"{name}/statefulset/prometheus"}}
    platform = open_platform(declare(**named))
    with pytest.raises(PlatformError, match=f"no pod of {name}/statefulset/prometheus is on a node"):
        platform.observers()
    for number, node in enumerate("cb"):
        estate.pod(name, f"prometheus-{number}", f"{name}-{node}", app="prometheus")
    found = platform.observers()
    assert (found["prometheus"], found["prometheus (prometheus-1)"]) == (f"{name}-c", f"{name}-b")
    assert found["runner"]


def test_facts_name_versions_images_and_replicas(estate: Objects, declare: Declare) -> None:
    facts = open_platform(declare(**SERVICES)).facts()
    assert facts["kubernetes.version"].startswith("v1.")
    assert (facts["kernel.release"], facts["os.name"], facts["kubernetes.kubelet"]) == ("6.1.0", "Debian 12", "v1.34.4")
    assert (facts["service.gateway.replicas"], facts["kubernetes.nodes"], facts["cpu.count"]) == ("3", "2", "4")
    assert facts["middleware.nats.image"] == f"nats-0:1@sha256:{'0' * 64}"
    assert list(facts) == sorted(facts)
