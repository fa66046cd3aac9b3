"""What is tried of an environment on Kubernetes before anybody relies on it. Nothing is created but by a dry run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from frangible.errors import PlatformError
from frangible.platforms.kubernetes.access import Access
from frangible.platforms.kubernetes.burning import METRICS, samples_in
from frangible.platforms.kubernetes.client import NotFound
from frangible.platforms.kubernetes.drain import CORDONED_BY
from frangible.platforms.kubernetes.labels import ENVIRONMENT, LEASE, MANAGED, RUN, value
from frangible.platforms.kubernetes.permissions import LEVELS, Level, Permission, needed, told
from frangible.platforms.kubernetes.pods import Job, manifest
from frangible.reverting import SKEW
from frangible.targets import service_nodes
from frangible.trials import Trial

if TYPE_CHECKING:
    from frangible.environment import Environment
    from frangible.platforms.kubernetes.platform import KubernetesPlatform

__all__ = ["ClusterTrials", "permissions_of"]

CLUSTER = "cluster"
SURVEY = "survey"
PROBE = "doctor"


def permissions_of(level: Level) -> str:
    """Name the trial of a level's permissions."""
    return f"permissions {level}"


@dataclass
class ClusterTrials:
    """Trials of one environment; each is made when those before it have been tried."""

    opened: "KubernetesPlatform"
    _reached: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[Trial]:
        """Yield: the cluster answers, permissions level by level, what is where, nodes with their power and figures, helper pods, left-overs."""
        yield Trial(CLUSTER, self._answers, "is it up and reachable from here, is the kubeconfig that of this environment, are both clocks set?")
        if not self._reached:
            return
        for level in dict.fromkeys(one.level for one in self._needed):
            advice = f"`kubectl apply -k deploy/access/{level}` and bind it (docs/access.md), or `kubectl auth can-i --list` shows what there is"
            yield Trial(permissions_of(level), partial(self._permitted, level), advice)
        yield Trial("own namespace", self._own_namespace, "`kubectl apply -k deploy/frangible` makes it; `platform.namespace` names another")
        yield Trial(SURVEY, self._survey, "what the inventory names has to be in the cluster", permissions_of(Level.OBSERVE))
        yield Trial("observers", self._observers, "no fault on a node is admitted while that is not known", SURVEY)
        for name in self.nodes:
            yield Trial(f"node {name}", partial(self._node, name), "a run refuses a node that is off; is its power driver reachable?", SURVEY)
        for name in self.nodes if "cpu" in self.opened.primitives else ():
            advice = "without it a CPU fault has its own pod's word alone; can the API server reach the kubelet's port?"
            yield Trial(f"kubelet {name}", partial(self._kubelet, name), advice, permissions_of(Level.NODE))
        yield Trial(
            "helper pods",
            self._helper,
            "what does the cluster's admission say? deploy/frangible lets privileged pods into the namespace",
            permissions_of(Level.NODE),
        )
        yield Trial(
            "left-overs", self._left_over, "`frangible recover` reverts what runs that died have left; delete what is there then", permissions_of(Level.OBSERVE)
        )

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the environment's nodes; none where the survey fails."""
        try:
            return tuple(node.name for node in self._surveyed.nodes)
        except PlatformError:
            return ()

    @cached_property
    def _surveyed(self) -> "Environment":
        return self.opened.survey()

    @cached_property
    def _needed(self) -> tuple[Permission, ...]:
        """What the primitives that the environment offers need; nothing about its namespaces where they cannot be told."""
        environment = self.opened.environment
        try:
            namespaces = self.opened.looker.namespaces()
        except PlatformError:
            namespaces = ()
        found = needed(environment, namespaces, self.opened.primitives, runs=True)
        return tuple(sorted(found, key=lambda permission: LEVELS.index(permission.level)))

    @property
    def _access(self) -> Access:
        return Access(self.opened.looker)

    def _answers(self) -> str:
        """Compare clocks by an answer's `Date`, which is in whole seconds, cut off."""
        cluster = self.opened.cluster
        cluster.ask(cluster.version.get_code)  # connects
        before = time.time()
        answer = cluster.ask(cluster.version.get_code)
        after = time.time()
        self._reached = True
        if answer.at is None:
            raise PlatformError("it does not say what time it is, so locks in it would not expire in time")
        ahead, behind = answer.at - after, answer.at + 1 - before
        if ahead > SKEW or behind < -SKEW:
            raise PlatformError(f"its clock differs from this host's by {(ahead + behind) / 2:+.1f} s, more than {SKEW:g} s: locks and times would mislead")
        took, apart = (after - before) * 1000, max(abs(ahead), abs(behind))
        return f"{answer.data.get('gitVersion')} answers in {took:.0f} ms; its clock is this host's within {apart:.1f} s; we are {self._access.user()}"

    def _permitted(self, level: Level) -> str:
        asked = [one for one in self._needed if one.level is level]
        missing = self._access.missing(asked)
        if missing:
            raise PlatformError(f"{self._access.user()} may not {told(missing)}")
        return f"all {len(asked)} that the environment's primitives need"

    def _own_namespace(self) -> str:
        cluster, name = self.opened.cluster, self.opened.environment.platform.namespace
        try:
            cluster.ask(cluster.core.read_namespace, name)
        except NotFound as error:
            raise PlatformError(f"there is no namespace {name}, where locks and lease copies would be") from error
        return name

    def _survey(self) -> str:
        found = self._surveyed
        placed = service_nodes(found)
        nowhere = [name for name, nodes in placed.items() if not nodes]
        if nowhere:
            raise PlatformError(f"no pod of {', '.join(nowhere)} is on a node of the environment")
        return f"{len(found.nodes)} nodes, {len(placed)} services and middleware packages, all on nodes"

    def _observers(self) -> str:
        return ", ".join(f"{observer} on {place}" for observer, place in sorted(self.opened.observers().items()))

    def _node(self, name: str) -> str:
        state = self.opened.node(name)
        if not state.powered:
            raise PlatformError("its power driver says that it is off")
        if not state.ready:
            raise PlatformError("its kubelet is not ready")
        switched = "powered, as its driver says" if "power" in self.opened.primitives else "nothing switches it (no `platform.power`)"
        return f"ready, {switched}, {len(state.processes)} containers"

    def _kubelet(self, name: str) -> str:
        cluster = self.opened.cluster
        samples = tuple(samples_in(cluster.text(cluster.core.connect_get_node_proxy_with_path, name, METRICS)))
        if not samples:
            raise PlatformError("its figures say nothing of the node's CPU time")
        return f"{samples[-1].used:.0f} CPU seconds used"

    def _helper(self) -> str:
        """Have the cluster admit a privileged pod by a dry run."""
        environment = self.opened.environment
        if not environment.platform.helper_image:
            return "no `platform.helper-image` is declared, so pause, cpu and cut are not offered"
        cluster, settings = self.opened.cluster, environment.platform
        job = Job("pause", next(iter(self.nodes), "none"), of=PROBE, seconds=1)
        body = manifest(job, PROBE, environment.name, settings.helper_image)
        cluster.ask(cluster.core.create_namespaced_pod, settings.namespace, body, dry_run="All")
        return f"a privileged pod of {settings.helper_image} would be admitted in {settings.namespace}"

    def _left_over(self) -> str:
        live = {value(holder.run_id) for holder in self.opened.locks().holders()}
        found = [*self._objects(live), *self._cordoned(live)]
        if found:
            raise PlatformError(f"of runs that hold no lock any more: {', '.join(found)}")
        return f"none{f'; runs in progress: {", ".join(sorted(live))}' if live else ''}"

    def _objects(self, live: set[str]) -> Iterator[str]:
        cluster, environment = self.opened.cluster, self.opened.environment
        selector = f"{'='.join(MANAGED)},{LEASE},{ENVIRONMENT}={value(environment.name)}"
        for kind, listing in (("pod", cluster.core.list_namespaced_pod), ("lease copy", cluster.core.list_namespaced_config_map)):
            for item in cluster.pages(listing, environment.platform.namespace, label_selector=selector):
                if item["metadata"]["labels"].get(RUN) not in live:
                    yield f"{kind} {item['metadata']['name']}"

    def _cordoned(self, live: set[str]) -> Iterator[str]:
        """A drained node may not be one of the environment's any more, so all that could be are looked at."""
        cluster, selector = self.opened.cluster, self.opened.environment.platform.node_selector
        for item in cluster.pages(cluster.core.list_node, label_selector=selector):
            lease = str((item["metadata"].get("annotations") or {}).get(CORDONED_BY, ""))
            if lease and value(lease.rpartition("-")[0]) not in live:
                yield f"node {item['metadata']['name']} is cordoned by lease {lease}"
