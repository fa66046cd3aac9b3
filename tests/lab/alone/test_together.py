"""Two faults in force at the same time on the lab: one run, two leases, two proofs, one verdict."""

from pathlib import Path

import yaml

from frangible.experiment import shipped_experiments
from frangible.inventory import load_inventory
from frangible.platforms import open_platform

from ..conftest import RunningLab
from ..runs import Event, execute, hypothesis, orders

LONDON = "lab-london"


def test_a_surge_while_a_node_is_lost_proves_both_and_leaves_neither(running_lab: RunningLab, tmp_path: Path) -> None:
    """While both are proven the rack says that the node is off and the load is higher; afterwards it says that both are as before."""
    experiment = yaml.safe_load((shipped_experiments() / "surge-while-node-lost.yaml").read_text())
    experiment["extensions"] = [{"name": "frangible", "baseline": "3s", "baseline-limit": "45s", "settle": "300ms"}]
    experiment["steady-state-hypothesis"]["probes"][0]["provider"]["arguments"]["hypothesis"] = "flow"
    experiment["method"][0]["provider"]["arguments"] |= {"hold": 10.0}
    experiment["method"][0]["provider"]["arguments"]["faults"][1]["arguments"] = {"factor": 1.25}
    (tmp_path / "hypotheses").mkdir()
    (tmp_path / "hypotheses" / "flow.yaml").write_text(yaml.safe_dump(hypothesis("flow", orders())))
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    platform = open_platform(load_inventory(running_lab.inventory).get(LONDON))
    seen: list[tuple[bool, float]] = []

    def look(event: Event) -> None:
        if event["event"] == "fault" and event["state"] == "proven":
            seen.append((running_lab.do("node", LONDON, "app-1")["powered"] is running_lab.do("node", LONDON, "app-2")["powered"], platform.load().rate))

    ended = execute(running_lab.home, running_lab.inventory, LONDON, file, look)
    assert ended.outcome == "held", ended.why
    assert seen == [(False, 50.0)] * 2
    assert [(proof.fault, proof.proven_share >= 0.95) for proof in ended.record.proofs] == [("node-loss", True), ("volume-surge", True)]
    assert ended.reverted
    assert ended.record.keys == ("cpu:lab-host", f"environment:{LONDON}")
    told = [event["fault"] for event in ended.events if event["event"] == "fault" and event["state"] == "reverted"]
    assert told == ["volume-surge", "node-loss"]
    assert platform.load().rate == 40
    for node in ("app-1", "app-2"):
        running_lab.wait_ready(LONDON, node)
