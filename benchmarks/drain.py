"""Draining a node with frangible and with chaostoolkit-kubernetes's `drain_nodes`, side by side: the same pods, the same node, in turn.

    python -m benchmarks.drain --context kind-frangible --node frangible-worker --image localhost/frangible/estate:1 --pods 12 --turns 3

Makes a namespace of its own with one Deployment whose pods belong on that node, and removes it at the end. With `--budget N` a
PodDisruptionBudget lets N of them be away at once, as real estates have it; then they may go elsewhere, since the budget waits for
those that replace them, and a way that gives up at the first refusal is shown as that. The time of one turn is from the call until it
returns: then the node is cordoned and none of the pods is left there. Between two turns the node is uncordoned and the pods are put back.
"""

import argparse
import importlib
import logging
import math
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chaoslib.exceptions import ActivityFailed
from kubernetes import client

from frangible.inventory import Environment
from frangible.platforms.kubernetes.client import Cluster
from frangible.platforms.kubernetes.drain import Drains
from frangible.platforms.kubernetes.objects import Pod

LABEL = "frangible-drain-benchmark"
OURS, THEIRS = "frangible", "chaostoolkit-kubernetes"
ENDS_AT_ONCE = "trap 'exit 0' TERM; sleep 86400 & wait"
"""A program that a polite signal ends, as services should: what is timed is the drain."""
SETTLED = 180.0
"""Seconds that the pods have to be on the node, all ready."""


def affinity(node: str, *, elsewhere: bool) -> client.V1NodeAffinity:
    """On that node; or, where need be, `elsewhere`."""
    term = client.V1NodeSelectorTerm(match_expressions=[client.V1NodeSelectorRequirement(key="kubernetes.io/hostname", operator="In", values=[node])])
    if elsewhere:
        return client.V1NodeAffinity(preferred_during_scheduling_ignored_during_execution=[client.V1PreferredSchedulingTerm(weight=100, preference=term)])
    return client.V1NodeAffinity(required_during_scheduling_ignored_during_execution=client.V1NodeSelector(node_selector_terms=[term]))


def deployment(node: str, image: str, pods: int, *, elsewhere: bool) -> client.V1Deployment:
    """Pods that go to the node when it takes any; `elsewhere` when it does not."""
    spec = client.V1PodSpec(
        termination_grace_period_seconds=1,
        affinity=client.V1Affinity(node_affinity=affinity(node, elsewhere=elsewhere)),
        containers=[client.V1Container(name="pod", image=image, image_pull_policy="IfNotPresent", command=["sh", "-c", ENDS_AT_ONCE])],
    )
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name=LABEL),
        spec=client.V1DeploymentSpec(
            replicas=pods,
            selector=client.V1LabelSelector(match_labels={"app": LABEL}),
            template=client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": LABEL}), spec=spec),
        ),
    )


@contextmanager
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that is gone afterwards."""
    name = f"{LABEL}-{secrets.token_hex(3)}"
    cluster.ask(cluster.core.create_namespace, client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    try:
        yield name
    finally:
        cluster.ask(cluster.core.delete_namespace, name)


def put_on(cluster: Cluster, space: str, node: str, image: str, pods: int, *, elsewhere: bool) -> None:
    """Have all pods on the node, ready; those of before are gone."""
    cluster.ask(cluster.apps.create_namespaced_deployment, space, deployment(node, image, pods, elsewhere=elsewhere))
    seen: tuple[Pod, ...] = ()
    for items in cluster.follow(cluster.core.list_namespaced_pod, space, seconds=SETTLED):
        seen = tuple(map(Pod.of, items))
        if pods == len(seen) == sum(pod.node == node and pod.ready and pod.staying for pod in seen):
            return
    raise SystemExit(f"the pods are not on {node} after {SETTLED:g} s: {[(pod.name, pod.node, pod.ready) for pod in seen]}")


def keep_budget(cluster: Cluster, space: str, away: int) -> None:
    """Let only so many of the pods be away at once."""
    spec = client.V1PodDisruptionBudgetSpec(max_unavailable=away, selector=client.V1LabelSelector(match_labels={"app": LABEL}))
    budget = client.V1PodDisruptionBudget(metadata=client.V1ObjectMeta(name=LABEL), spec=spec)
    cluster.ask(cluster.policy.create_namespaced_pod_disruption_budget, space, budget)


def take_away(cluster: Cluster, space: str) -> None:
    """Have no pods any more."""
    cluster.ask(cluster.apps.delete_namespaced_deployment, LABEL, space, propagation_policy="Background")
    for items in cluster.follow(cluster.core.list_namespaced_pod, space, seconds=SETTLED):
        if not items:
            return
    raise SystemExit("pods of the benchmark do not end")


def by_them(node: str) -> None:
    """Drain and leave cordoned."""
    importlib.import_module("chaosk8s.node.actions").drain_nodes(name=node, timeout=120)


def uncordon(cluster: Cluster, node: str) -> None:
    """Make the node schedulable, whoever has cordoned it."""
    Drains(cluster, LABEL).uncordon(node)
    cluster.ask(cluster.core.patch_node, node, {"spec": {"unschedulable": None}}, _content_type="application/merge-patch+json")


def cluster_of(context: str) -> Cluster:
    """The cluster of a context of KUBECONFIG."""
    platform = {"kind": "kubernetes", "context": context, "namespaces": ["default"]}
    entry = {"name": LABEL, "region": "here", "tier": "staging", "owner": {"team": "benchmarks"}, "platform": platform}
    return Cluster(Environment.model_validate(entry, strict=False))


def told(seconds: float) -> str:
    """Show a time."""
    return f"{seconds:.2f} s" if math.isfinite(seconds) else "gave up"


def measure(context: str, node: str, image: str, pods: int, turns: int, budget: int, tell: Callable[[str], None]) -> dict[str, list[float]]:
    """Drain in turns; return the seconds of each way, infinite where it gave up. A budget of 0 is none."""
    os.environ["KUBERNETES_CONTEXT"] = context  # where chaostoolkit-kubernetes looks for it
    cluster = cluster_of(context)
    ways: dict[str, Callable[[], None]] = {OURS: lambda: Drains(cluster, LABEL).drain(node, 120.0), THEIRS: lambda: by_them(node)}
    took: dict[str, list[float]] = {name: [] for name in ways}
    with namespace(cluster) as space:
        if budget:
            keep_budget(cluster, space, budget)
        for _ in range(turns):
            for name, drain in ways.items():
                put_on(cluster, space, node, image, pods, elsewhere=budget > 0)
                begun = time.monotonic()
                try:
                    drain()
                    took[name].append(time.monotonic() - begun)
                except ActivityFailed as error:
                    took[name].append(math.inf)
                    tell(f"{name:24} gave up: {str(error).partition(': ')[0]}")
                finally:
                    uncordon(cluster, node)
                take_away(cluster, space)
                tell(f"{name:24} {told(took[name][-1]):>8}")
    return took


def main() -> None:
    """Take turns and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", required=True, help="context of KUBECONFIG")
    parser.add_argument("--node", required=True, help="a worker that holds nothing of value")
    parser.add_argument("--image", required=True, help="image of the pods, present on the nodes")
    parser.add_argument("--pods", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--budget", type=int, default=0, help="pods that a PodDisruptionBudget lets be away at once; 0: no budget")
    asked = parser.parse_args()
    logging.disable(logging.ERROR)
    took = measure(asked.context, asked.node, asked.image, asked.pods, asked.turns, asked.budget, lambda line: print(line, flush=True))
    middle = {name: statistics.median(times) for name, times in took.items()}
    print(f"\n{asked.pods} pods on {asked.node}, {asked.turns} turns, median")
    for name, seconds in middle.items():
        print(f"  {name:24} {told(seconds):>8}")
    if math.isfinite(middle[THEIRS]):
        print(f"  frangible is {middle[THEIRS] / middle[OURS]:.1f} times as fast")


if __name__ == "__main__":
    main()
