"""Restarting a service and losing a node, with a real API server and what plays its kubelets and controllers."""

import sys
from pathlib import Path

import pytest

from frangible.actions.middleware_restart import MiddlewareRestart
from frangible.actions.node_loss import NodeLoss
from frangible.errors import PlatformError
from frangible.fault import Target
from frangible.platforms import Platform, open_platform
from frangible.process import ContainerIdentity

from ..apiserver import Kubelet, Objects
from .conftest import Declare

NATS = {"middleware": [{"name": "nats"}], "services": [{"name": "gateway"}]}


@pytest.fixture
def estate(objects: Objects, name: str) -> Objects:
    for node in ("a", "b"):
        objects.node(f"{name}-{node}")
    objects.workload("statefulset", name, "nats")
    objects.workload("deployment", name, "gateway", 2)
    objects.pod(name, "nats-0", f"{name}-a", app="nats")
    for node in ("a", "b"):
        objects.pod(name, f"gateway-{node}", f"{name}-{node}", app="gateway")
    return objects


@pytest.mark.parametrize("where", ["a", "b"], ids=["on the same node", "on another node"])
@pytest.mark.parametrize(("fault", "grace"), [(MiddlewareRestart(grace=7.0), 7), (MiddlewareRestart(graceful=False), 1)], ids=["graceful", "hard"])
def test_a_restart_is_proven_by_the_old_pods_end_and_reverted_when_others_run(
    estate: Objects, declare: Declare, name: str, fault: MiddlewareRestart, grace: int, where: str
) -> None:
    """Wherever the controller puts the new pod; how long the service was away is measured."""
    platform, target = open_platform(declare(**NATS)), Target("service", f"{name}-a/nats")
    prior = fault.capture(platform, target)
    assert not fault.observe(platform, target, prior).real
    with Kubelet(estate, name, place=lambda _node: f"{name}-{where}", delay=0.3) as kubelet:
        fault.inject(platform, target, prior)
        assert set(kubelet.graces) == {grace}
        seen = fault.observe(platform, target, prior)
        assert seen.real, seen
        until_ready(platform, f"{name}-a", "nats")
    fault.revert(platform, target, prior)
    after = fault.observe_reverted(platform, target, prior)
    assert after.real
    assert (after.measured or 0) >= 0.3
    assert after.detail.startswith("a new instance, ready ")


def until_ready(platform: Platform, node: str, service: str) -> None:
    for _ in range(400):
        if platform.service(node, service).ready_after is not None:
            return
    pytest.fail("it never got ready")


def test_only_the_pods_on_the_node_are_restarted(estate: Objects, declare: Declare, name: str) -> None:
    platform = open_platform(declare(**NATS))
    before = platform.service(f"{name}-b", "gateway")
    with Kubelet(estate, name, place=lambda node: node):
        platform.stop_service(f"{name}-a", "gateway", 5)
    assert platform.service(f"{name}-b", "gateway") == before


def test_a_service_without_a_pod_on_the_node_runs_when_all_its_pods_are_elsewhere(estate: Objects, declare: Declare, name: str) -> None:
    platform = open_platform(declare(**NATS))
    estate.core.delete_namespaced_pod("gateway-a", name, grace_period_seconds=0)
    missing = platform.service(f"{name}-a", "gateway")
    assert (missing.running, missing.ready, missing.instance, missing.processes) == (False, False, "", ())
    estate.pod(name, "gateway-c", f"{name}-b", app="gateway")
    moved = platform.service(f"{name}-a", "gateway")
    assert (moved.running, moved.ready, moved.processes) == (True, True, ())


def test_a_pod_whose_kubelet_is_silent_is_an_error_after_its_grace(estate: Objects, declare: Declare, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody plays the kubelet: the pod stays. It is named, and so is what tells more."""
    monkeypatch.setattr("frangible.platforms.kubernetes.services.MARGIN", 1.0)
    with pytest.raises(PlatformError, match=f"nats-0 still there 2 s after the deletion; is the kubelet of {name}-a well"):
        open_platform(declare(**NATS)).stop_service(f"{name}-a", "nats", 0)


def test_a_workload_that_wants_no_pod_is_not_started_by_us(estate: Objects, declare: Declare, name: str) -> None:
    estate.apps.patch_namespaced_stateful_set_scale("nats", name, {"spec": {"replicas": 0}})
    with pytest.raises(PlatformError, match=f"{name}/statefulset/nats wants no pod; scale it to 1 or more"):
        open_platform(declare(**NATS)).start_service(f"{name}-a", "nats")


@pytest.fixture
def switch(tmp_path: Path) -> dict[str, object]:
    """A power driver whose nodes are files: off while there is one."""
    script = tmp_path / "power.py"
    script.write_text(
        "import sys; from pathlib import Path\nfile = Path(__file__).with_name(sys.argv[2])\n"
        "{'on': lambda: file.unlink(missing_ok=True), 'off': file.touch, 'state': lambda: print('off' if file.exists() else 'on')}[sys.argv[1]]()\n"
    )
    return {"power": {"driver": "command", **{verb: [sys.executable, str(script), verb, "{node}"] for verb in ("on", "off", "state")}}}


def test_a_lost_nodes_containers_are_gone_whatever_the_api_last_heard(estate: Objects, declare: Declare, name: str, switch: dict[str, object]) -> None:
    """The node's own word is the driver's; the API still shows its pods as running. Afterwards nothing is left, and it may be said twice."""
    platform, fault, target = open_platform(declare(switch, **NATS)), NodeLoss(), Target("node", f"{name}-a")
    assert platform.primitives >= {"power", "services"}
    prior = fault.capture(platform, target)
    assert [item["pod"] for item in prior["processes"]] == [f"{name}/gateway-a", f"{name}/nats-0"]  # type: ignore[index, union-attr, call-overload]
    assert not fault.observe(platform, target, prior).real
    fault.inject(platform, target, prior)
    assert fault.observe(platform, target, prior).detail == "no power; its 2 containers are gone"
    for _ in range(2):
        fault.revert(platform, target, prior)
        assert fault.observe_reverted(platform, target, prior).real
    state = platform.node(f"{name}-a")
    assert (state.powered, state.ready, state.instance) == (True, True, f"boot-{name}-a")


def test_containers_behind_a_silent_kubelet_are_not_called_gone(estate: Objects, declare: Declare, name: str) -> None:
    """The kubelet's last word proves nothing; once it speaks again, a container with another id is another."""
    platform = open_platform(declare(**NATS))
    old = platform.service(f"{name}-a", "nats").processes
    assert all(isinstance(one, ContainerIdentity) for one in old)
    assert not platform.processes_gone(old)
    status = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    estate.core.patch_node_status(f"{name}-a", status)
    with pytest.raises(PlatformError, match=r"its kubelet is silent, so whether its containers still run is not known"):
        platform.processes_gone(old)
    status["status"]["conditions"][0]["status"] = "True"
    estate.core.patch_node_status(f"{name}-a", status)
    uid = estate.core.read_namespaced_pod("nats-0", name).metadata.uid
    estate.run(name, "nats-0", uid, started=2)
    assert platform.processes_gone(old)


def test_the_rate_is_a_key_of_a_config_map_and_nothing_else_of_it_changes(objects: Objects, declare: Declare, name: str) -> None:
    objects.core.create_namespaced_config_map(name, {"metadata": {"name": "generator"}, "data": {"rate": "120", "symbols": "AAPL"}})
    load = {"load": {"driver": "configmap", "name": "generator", "key": "rate"}}
    platform = open_platform(declare(load, volume={"highest-per-second": 500}))
    assert (platform.load().rate, platform.load().highest) == (120.0, 500.0)
    platform.set_load(1000.5)
    assert platform.load().rate == 1000.5
    assert objects.core.read_namespaced_config_map("generator", name).data == {"rate": "1000.5", "symbols": "AAPL"}


@pytest.mark.parametrize(
    ("data", "said"),
    [({"rate": "many"}, "expected a number of 0 or more a second, got 'many'"), ({"other": "1"}, "no key 'rate'; it has 'other'"), (None, "not in test-")],
    ids=["no number", "no key", "no ConfigMap"],
)
def test_a_rate_that_is_not_there_is_an_error(objects: Objects, declare: Declare, name: str, data: dict[str, str] | None, said: str) -> None:
    if data is not None:
        objects.core.create_namespaced_config_map(name, {"metadata": {"name": "generator"}, "data": data})
    with pytest.raises(PlatformError) as caught:
        open_platform(declare({"load": {"driver": "configmap", "name": "generator", "key": "rate"}})).load()
    assert said in str(caught.value)
