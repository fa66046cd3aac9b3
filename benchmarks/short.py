"""Short experiments for benchmarks: one for each kind of fault, with windows no longer than the lab allows, and a hypothesis that some orders pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FAULTS", "Injected", "experiments", "write_hypothesis"]


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

NAME = "some-orders"


def experiments(folder: Path, hold: float = 6.5) -> dict[str, Path]:
    """Write an experiment for each fault, with windows as short as they can be, and their hypothesis; return them by fault."""
    write_hypothesis(folder)
    return {name: _experiment(folder, name, fault, hold) for name, fault in FAULTS.items()}


def write_hypothesis(folder: Path) -> str:
    """Write the hypothesis where an experiment of the folder finds it; return its name."""
    (folder / "hypotheses").mkdir()
    (folder / "hypotheses" / f"{NAME}.yaml").write_text(HYPOTHESIS)
    return NAME


def _experiment(folder: Path, name: str, fault: Injected, hold: float) -> Path:
    path = folder / f"short-{name}.yaml"
    path.write_text(
        """\
title: A short FAULT
description: As short as the lab allows.
controls:
  - name: frangible
    provider: {type: python, module: frangible.control}
extensions:
  - {name: frangible, baseline: 3s, baseline-limit: 45s, recovery-limit: 20s, settle: 300ms}
runtime: {rollbacks: {strategy: always}}
steady-state-hypothesis:
  title: orders flow
  probes:
    - name: orders-flow
      type: probe
      tolerance: true
      provider: {type: python, module: frangible.probes.steady_state, func: steady_state, arguments: {hypothesis: some-orders}}
method:
  - name: inject
    type: action
    provider: {type: python, module: frangible.actions.MODULE, func: FUNC, arguments: ARGUMENTS}
rollbacks: []
""".replace("FAULT", name)
        .replace("MODULE", fault.module)
        .replace("FUNC", fault.func)
        .replace("ARGUMENTS", fault.arguments)
        .replace("HOLD", str(hold))
    )
    return path


HYPOTHESIS = """\
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
