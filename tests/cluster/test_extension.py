"""Plain `chaos run` of an experiment that has activities of chaostoolkit-kubernetes beside frangible's control: journalled, proven, judged, undone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Cluster
from .test_runs import LONGEST, User, calm, user

__all__ = ["calm", "user"]  # fixtures

pytestmark = pytest.mark.cluster
CHAOS = str(Path(sys.executable).with_name("chaos"))


def activity(module: str, func: str, **arguments: Any) -> dict[str, Any]:
    return {"provider": {"type": "python", "module": f"chaosk8s.{module}", "func": func, "arguments": arguments}}


def experiment(namespace: str, service: str, replicas: int, fewer: int) -> dict[str, Any]:
    """Scale a service down: a bare probe of theirs, then their action as a fault, by their probe."""
    selector = f"app.kubernetes.io/name={service}"
    counted = activity("pod.probes", "count_pods", label_selector=selector, ns=namespace)
    scaled = [activity("deployment.actions", "scale_deployment", name=service, ns=namespace, replicas=number) for number in (fewer, replicas)]
    arguments = {"service": service, "action": scaled[0], "proof": counted | {"tolerance": fewer}, "revert": scaled[1], "hold": 20.0}
    fault = {"type": "python", "module": "frangible.actions.toolkit_action", "func": "take_action", "arguments": arguments}
    steady = {"type": "python", "module": "frangible.probes.steady_state", "func": "steady_state", "arguments": {"hypothesis": "order-flow"}}
    return {
        "title": f"{service} has {fewer} of {replicas} pods",
        "description": "For a test.",
        "controls": [{"name": "frangible", "provider": {"type": "python", "module": "frangible.control"}}],
        "extensions": [{"name": "frangible", "baseline": "15s", "baseline-limit": "120s", "recovery-limit": "90s"}],
        "steady-state-hypothesis": {"title": "Orders flow", "probes": [{"type": "probe", "name": "flow", "tolerance": True, "provider": steady}]},
        "method": [{"type": "probe", "name": "theirs", **counted}, {"type": "action", "name": "scale-down", "provider": fault}],
        "rollbacks": [],
        "runtime": {"rollbacks": {"strategy": "always"}},
    }


def test_an_action_of_chaostoolkit_kubernetes_is_a_proven_and_judged_fault(calm: Cluster, user: User, tmp_path: Path) -> None:
    """The deviation is the toolkit's own result too; the probe of theirs that is no fault stands in the journal that is kept."""
    path = tmp_path / "scale-down.yaml"
    path.write_text(yaml.safe_dump(experiment("fragile", "risk", 1, 0), sort_keys=False))
    variables = {**user.variables, "FRANGIBLE_ENVIRONMENT": "k8s-fragile", "KUBECONFIG": str(calm.cache / "kubeconfig")}
    command = [CHAOS, "--no-version-check", "--no-log-file", "run", str(path)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True, timeout=LONGEST)
    (listed,) = json.loads(user.run("journal", "list", "--json").stdout)
    record = json.loads(user.run("journal", "show", listed["id"], "--json").stdout)
    assert (record["outcome"], done.returncode) == ("deviated", 1), done.stderr
    (proof,) = record["proofs"]
    assert (proof["fault"], proof["injected"], proof["reverted"]) == ("toolkit-action", True, True)
    assert proof["proven_share"] >= 0.9
    kept = tmp_path / "kept.json"
    user.run("journal", "export", listed["id"], "--chaos-journal", str(kept))
    theirs = json.loads(kept.read_text())["run"][0]
    assert (theirs["activity"]["name"], theirs["output"]) == ("theirs", 1)
    deployment = json.loads(calm.kubectl("get", "deployment", "risk", "-n", "fragile", "-o", "json"))
    assert deployment["spec"]["replicas"] == 1
