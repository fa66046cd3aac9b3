"""Short experiments for benchmarks: one for each kind of fault, with windows no longer than the lab allows, and a hypothesis that some orders pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

__all__ = ["FAULTS", "Injected", "experiments", "write_experiment", "write_hypothesis"]


@dataclass(frozen=True)
class Injected:
    """One kind of fault as benchmarks inject it."""

    module: str
    func: str
    arguments: str
    """As YAML; HOLD becomes the seconds."""
    places: Mapping[str, int]
    """The platform's methods that inject and revert it, and how often each is called for that."""
    leases: int = 1
    """How many faults are in force together."""
    alone: bool = False
    """Whether it needs the machine's CPUs alone, so that no two of its runs go on side by side."""


LOST_AND_BUSY = (
    "{hold: HOLD, faults: [{module: frangible.actions.node_loss, func: lose_nodes, arguments: {role: execution}}, "
    "{module: frangible.actions.volume_surge, func: surge_volume, arguments: {factor: 1.25}}]}"
)
FAULTS = {
    "node-loss": Injected("node_loss", "lose_nodes", "{role: execution, count: 1, hold: HOLD}", {"power_off": 1, "power_on": 1}),
    "middleware-restart": Injected("middleware_restart", "restart", "{service: execution, hold: HOLD}", {"stop_service": 1, "start_service": 1}),
    "process-pause": Injected("process_pause", "pause", "{service: execution, hold: HOLD}", {"pause_service": 1, "resume_service": 1}),
    "cpu-saturation": Injected(
        "cpu_saturation", "saturate_cpus", "{utilisation: 60.0, role: execution, hold: HOLD}", {"start_burner": 1, "stop_burner": 1}, alone=True
    ),
    "volume-surge": Injected("volume_surge", "surge_volume", "{factor: 1.25, hold: HOLD}", {"set_load": 2}, alone=True),
    "surge-while-node-lost": Injected("together", "hold_together", LOST_AND_BUSY, {"power_off": 1, "set_load": 2, "power_on": 1}, 2, alone=True),
}

SOME_ORDERS = """\
name: some-orders
title: Some orders are acknowledged
requires: {metric: 'orders_offered_total{${labels}}', at-least: 30}
recovery: {within: 20s, steady-for: 1s}
indicators:
  - name: orders-acknowledged
    kind: ratio
    block: 1s
    good: 'order_outcomes_total{${labels},outcome="in_time"}'
    valid: 'order_outcomes_total{${labels}}'
    bound: {at-least: 0.2}
    tolerated-share: 0.19
    when-absent: broken
"""


def experiments(folder: Path, hold: float = 6.5) -> dict[str, Path]:
    """Write an experiment for each fault, with windows as short as they can be, and their hypothesis; return them by fault."""
    hypothesis = write_hypothesis(folder)
    windows = {"baseline": "3s", "baseline-limit": "45s", "recovery-limit": "20s", "settle": "300ms"}
    return {
        name: write_experiment(
            folder / f"short-{name}.yaml", hypothesis, windows, fault.module, fault.func, yaml.safe_load(fault.arguments.replace("HOLD", str(hold)))
        )
        for name, fault in FAULTS.items()
    }


def write_hypothesis(folder: Path, text: str = SOME_ORDERS) -> str:
    """Write a hypothesis where an experiment of the folder finds it; return its name."""
    name = str(yaml.safe_load(text)["name"])
    (folder / "hypotheses").mkdir()
    (folder / "hypotheses" / f"{name}.yaml").write_text(text)
    return name


def write_experiment(path: Path, hypothesis: str, windows: Mapping[str, str], module: str, func: str, arguments: Mapping[str, object]) -> Path:
    """Write an experiment that injects one fault by an action of ours and is judged by one hypothesis; return its path."""
    document = {
        "title": f"A short {path.stem}",
        "description": "As short as its bounds can be shown to be kept or broken.",
        "controls": [{"name": "frangible", "provider": _python("frangible.control")}],
        "extensions": [{"name": "frangible", **windows}],
        "runtime": {"rollbacks": {"strategy": "always"}},
        "steady-state-hypothesis": {
            "title": "orders flow",
            "probes": [
                {
                    "name": "orders-flow",
                    "type": "probe",
                    "tolerance": True,
                    "provider": _python("frangible.probes.steady_state", func="steady_state", arguments={"hypothesis": hypothesis}),
                }
            ],
        },
        "method": [{"name": "inject", "type": "action", "provider": _python(f"frangible.actions.{module}", func=func, arguments=dict(arguments))}],
        "rollbacks": [],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _python(module: str, **more: object) -> dict[str, object]:
    return {"type": "python", "module": module, **more}
