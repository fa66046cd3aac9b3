"""The levels of deploy/access, bound as docs/access.md says, on an API server that asks for permissions: what each suffices for, and that none gives more."""

import itertools
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from frangible.errors import FrangibleError
from frangible.examining import platform as trials_of
from frangible.helper.api import TOLD
from frangible.inventory import Environment
from frangible.platforms import Platform, open_platform
from frangible.platforms.kubernetes.permissions import LEVELS, RULES, Level, Place
from frangible.process import ProcessIdentity
from frangible.trials import in_turn

from ..apiserver import ApiServer, Kubelet, Objects, kube_binary
from .conftest import Declare

ROOT = Path(__file__).resolve().parents[2]
ACCESS = ROOT / "deploy" / "access"
pytestmark = pytest.mark.checkout
numbers = itertools.count(1)

type Rules = set[tuple[str, str, str, str]]
"""Place, API group, resource, verb."""


# --- the manifests ----------------------------------------------------------------------------------------------------


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def granted(level: Level) -> Rules:
    """What the roles of one level grant, and where they are bound."""
    places = {("ClusterRole", f"frangible-{level}", ""): Place.CLUSTER, ("ClusterRole", f"frangible-{level}-namespace", ""): Place.WORKLOADS}
    places |= {("Role", f"frangible-{level}", "frangible"): Place.OWN, ("Role", f"frangible-{level}", "default"): Place.SERVERS}
    found: Rules = set()
    for role in documents(ACCESS / level / "roles.yaml"):
        place = places[role["kind"], role["metadata"]["name"], role["metadata"].get("namespace", "")]
        for rule in role["rules"]:
            found |= {(place, *one) for one in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])}
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_grants_exactly_what_the_code_asks_for(level: Level) -> None:
    """Prometheus's namespace is looked into by the role for any other."""
    asked: Rules = set()
    for rule in RULES:
        if rule.level is level:
            place = Place.WORKLOADS if rule.place is Place.OBSERVER else rule.place
            asked |= {(place, *one) for one in itertools.product([rule.group], rule.resources, rule.verbs)}
    assert granted(level) == asked


def test_every_binding_names_the_levels_from_its_own_upwards() -> None:
    for path in sorted(ACCESS.rglob("binding*.yaml")):
        level = Level(path.parent.name)
        for binding in documents(path):
            if binding["kind"].endswith("Binding"):
                names = [(subject["kind"], subject["name"]) for subject in binding["subjects"]]
                above = LEVELS[LEVELS.index(level) :]
                assert names == [(kind, f"frangible-{one}") for one in above for kind in ("Group", "ServiceAccount")], path


# --- what each suffices for -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def levels(objects: Objects, api: ApiServer) -> None:
    """All levels, applied as the documentation says."""
    apply(api, "-k", str(ACCESS / "node"))


def apply(api: ApiServer, *arguments: str) -> None:
    done = subprocess.run([kube_binary("kubectl"), f"--kubeconfig={api.kubeconfig()}", "apply", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


type Enter = Callable[..., Environment]
SERVICES = {"services": [{"name": "gateway"}], "middleware": [{"name": "nats", "workload": "statefulset/nats"}]}
EVERYTHING = {"helper-image": "estate:1", "load": {"driver": "configmap", "name": "load", "key": "rate"}}


@pytest.fixture
def enter(levels: None, objects: Objects, api: ApiServer, name: str, declare: Declare) -> Enter:
    """Returns the environment as the service account of a level reaches it; with the estate in it, in a namespace that is opened."""
    for node in ("a", "b"):
        objects.node(f"{name}-{node}")
        objects.core.patch_node_status(f"{name}-{node}", {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
    objects.workload("deployment", name, "gateway")
    objects.workload("statefulset", name, "nats")
    objects.pod(name, "gateway-0", f"{name}-a", app="gateway")
    objects.pod(name, "nats-0", f"{name}-b", app="nats")
    objects.core.create_namespaced_config_map(name, {"metadata": {"name": "load"}, "data": {"rate": "25"}})
    apply(api, "--namespace", name, "-k", str(ACCESS / "namespace" / "restart"))

    def entered(level: str, **platform: object) -> Environment:
        return declare({"kubeconfig": str(account(objects, api, level)), **EVERYTHING, **platform}, **SERVICES)

    return entered


def account(objects: Objects, api: ApiServer, level: str) -> Path:
    """Write the kubeconfig of a level's service account, with a token that the API server gives out."""
    body = {"spec": {"expirationSeconds": 3600}}
    token = objects.core.create_namespaced_service_account_token(f"frangible-{level}", "frangible", body).status.token
    path = api.kubeconfig()
    config = yaml.safe_load(path.read_text())
    config["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that is done, and the level that suffices."""

    level: Level
    do: Callable[[Platform, str], object]
    primitive: str = ""


def look(platform: Platform, name: str) -> None:
    platform.survey()
    platform.facts()
    platform.observers()
    platform.node(f"{name}-a")
    platform.service(f"{name}-a", "gateway")
    platform.lease_copies()
    platform.locks().holders()


def lock(platform: Platform, name: str) -> None:
    store = platform.locks()
    held = store.acquire(f"key-of-{name}", "r1", ProcessIdentity.current(), 30.0)
    store.release(store.renew(held, 30.0))


def copy(platform: Platform, name: str) -> None:
    platform.put_lease_copy(f"{name}-a", f"{name}-r1", "{}")
    platform.put_lease_copy(f"{name}-a", f"{name}-r1", "{ }")
    platform.delete_lease_copy(f"{name}-a", f"{name}-r1")


def restart(platform: Platform, name: str) -> None:
    platform.stop_service(f"{name}-a", "gateway", 5.0)
    platform.start_service(f"{name}-a", "gateway")


def load(platform: Platform, name: str) -> None:
    del name
    platform.set_load(platform.load().rate * 2)


def drain(platform: Platform, name: str) -> None:
    platform.drain(f"{name}-a", 20.0)
    platform.undrain(f"{name}-a")


def pause(platform: Platform, name: str) -> None:
    lease = platform.for_lease(f"{name}-pause")
    lease.pause_service(f"{name}-a", "gateway", 20.0)
    lease.resume_service(f"{name}-a", "gateway", (), ())


def kill(platform: Platform, name: str) -> None:
    platform.for_lease(f"{name}-kill").kill_service(f"{name}-a", "gateway")


def roll(platform: Platform, name: str) -> None:
    platform.for_lease(f"{name}-roll").roll("gateway")
    assert platform.rollout("gateway").wanted


def saturate(platform: Platform, name: str) -> None:
    lease = platform.for_lease(f"{name}-cpu")
    lease.start_burner(f"{name}-a", f"{name}-burner", 0.5, 20.0)
    assert lease.burner(f"{name}-a", f"{name}-burner").alive
    lease.stop_burner(f"{name}-a", f"{name}-burner")


def cut(platform: Platform, name: str) -> None:
    lease = platform.for_lease(f"{name}-cut")
    lease.cut(f"{name}-a", "kubelet", 20.0)
    assert lease.cut_state(f"{name}-a").by == f"{name}-cut"
    lease.mend(f"{name}-a")


class Helpers:
    """Plays helper pods on the nodes of one test: each tells that it does its job, and ends well when it is deleted."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._core, self._prefix, self._stop = objects.core, f"{name}-", threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> "Helpers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _play(self) -> None:
        while not self._stop.wait(0.05):
            for pod in self._core.list_namespaced_pod("frangible", label_selector="frangible.io/job").items:
                if pod.spec.node_name.startswith(self._prefix):
                    self._advance(pod)

    def _advance(self, pod: Any) -> None:
        name, told = pod.metadata.name, pod.metadata.annotations
        if "frangible-kill-" in name:
            if pod.status.phase != "Succeeded":
                self._end(name)
        elif TOLD not in told:
            self._core.patch_namespaced_pod(name, "frangible", {"metadata": {"annotations": {TOLD: '{"cut": true}'}}})
        elif pod.metadata.deletion_timestamp is not None:
            self._end(name)
            self._core.delete_namespaced_pod(name, "frangible", grace_period_seconds=0)

    def _end(self, name: str) -> None:
        ended = {"name": "main", "ready": False, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": {"exitCode": 0}}}
        self._core.patch_namespaced_pod_status(name, "frangible", {"status": {"phase": "Succeeded", "containerStatuses": [ended]}})


USES = {
    "look": Use(Level.OBSERVE, look),
    "lock": Use(Level.RESTART, lock),
    "copy": Use(Level.RESTART, copy),
    "restart": Use(Level.RESTART, restart, "services"),
    "load": Use(Level.RESTART, load, "load"),
    "drain": Use(Level.NODE, drain, "drain"),
    "roll": Use(Level.RESTART, roll, "rollout"),
    "kill": Use(Level.NODE, kill, "kill"),
    "pause": Use(Level.NODE, pause, "pause"),
    "cpu": Use(Level.NODE, saturate, "cpu"),
    "cut": Use(Level.NODE, cut, "cut"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_level_suffices_and_the_one_below_does_not(enter: Enter, objects: Objects, name: str, use: Use) -> None:
    """And what the reviews say beforehand is what happens."""
    with Kubelet(objects, name, lambda _: f"{name}-b"), Helpers(objects, name):
        if use.level is not Level.OBSERVE:
            below = open_platform(enter(LEVELS[LEVELS.index(use.level) - 1]))
            with pytest.raises(FrangibleError, match=r"a permission is missing: .*frangible-"):
                use.do(below, name)
            assert below.forbidden([use.primitive] if use.primitive else [])
        enough = open_platform(enter(use.level))
        use.do(enough, name)
        if use.primitive:
            assert enough.forbidden([use.primitive]) == ()


# --- what is said beforehand ------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_what_grants_it(enter: Enter, name: str) -> None:
    """A sentence a level: who may not do what where."""
    restart_needed, node_needed = open_platform(enter("observe")).forbidden(["services", "load", "drain"])
    assert restart_needed == (
        f"environment env-{name}: system:serviceaccount:frangible:frangible-observe may not create, update, delete configmaps in namespace frangible; "
        f"create, update leases in namespace frangible; watch, delete pods in namespace {name}; get, patch configmaps 'load' in namespace {name}; "
        "deploy/access/restart grants it to whom it is bound (docs/access.md)"
    )
    assert "may not patch nodes in the whole cluster; list, watch pods in the whole cluster; create pods/eviction in the whole cluster; deploy" in node_needed


def test_a_role_for_one_configmap_is_no_role_for_another(enter: Enter) -> None:
    """The review asks for the load's own name, so a role may be as narrow as that."""
    (said,) = open_platform(enter("restart", load={"driver": "configmap", "name": "other", "key": "rate"})).forbidden(["load"])
    assert "may not get, patch configmaps 'other' in namespace" in said


def test_a_namespace_that_was_not_opened_is_found_out(levels: None, declare: Declare, objects: Objects, api: ApiServer, name: str) -> None:
    platform = open_platform(declare({"kubeconfig": str(account(objects, api, "node"))}))
    observe, restart = platform.forbidden(["services"])
    assert f"may not get, list deployments in namespace {name}; get, list statefulsets" in observe
    assert f"may not delete pods in namespace {name}; deploy/access/restart" in restart


def test_doctor_says_what_each_level_lacks(enter: Enter, name: str) -> None:
    """What stands on a level that is not there is not tried; nothing is left behind."""
    with_all = {check.name: check for check in in_turn(trials_of(enter("node")))}
    bad = {found: check.found for found, check in with_all.items() if not check.ok}
    assert bad.keys() == {f"kubelet {name}-a", f"kubelet {name}-b", "helper pods"} - ({"helper pods"} if with_all["helper pods"].ok else set())
    assert with_all["cluster"].found.endswith("we are system:serviceaccount:frangible:frangible-node")
    assert with_all["survey"].found == "2 nodes, 2 services and middleware packages, all on nodes"
    assert with_all["left-overs"].found.startswith("none")
    below = list(in_turn(trials_of(enter("observe"))))
    failed = {check.name: check for check in below if not check.ok}
    assert list(failed) == ["permissions restart", "permissions node"]
    assert "kubectl apply -k deploy/access/restart" in failed["permissions restart"].advice
    assert not {"locks", "lease copies", "helper pods"} & {check.name for check in below}


def test_doctor_finds_what_a_dead_run_left(enter: Enter, objects: Objects, name: str) -> None:
    """By label and by the mark on the node; what belongs to a run that holds a lock is in progress."""
    platform = open_platform(enter("node"))
    lease = f"{name}-run-00"
    platform.put_lease_copy(f"{name}-a", lease, f'{{"run_id": "{name}-run", "environment": "env-{name}"}}')
    with Kubelet(objects, name, lambda _: f"{name}-b"):
        platform.for_lease(lease).drain(f"{name}-a", 20.0)
    (check,) = (check for check in in_turn(trials_of(enter("node"))) if check.name == "left-overs")
    assert (check.ok, check.found) == (
        False,
        f"of runs that hold no lock any more: lease copy frangible-lease-{lease}, node {name}-a is cordoned by lease {lease}",
    )
    holder = platform.locks().acquire(f"env:{name}", f"{name}-run", ProcessIdentity.current(), 30.0)
    (check,) = (check for check in in_turn(trials_of(enter("node"))) if check.name == "left-overs")
    assert check.ok
    assert f"{name}-run" in check.found
    platform.locks().release(holder)
    platform.for_lease(lease).undrain(f"{name}-a")
    platform.delete_lease_copy("", lease)
