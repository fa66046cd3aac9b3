"""Each hypothesis that is shipped can be held by an experiment of ordinary length."""

from pathlib import Path

import pytest

from frangible.hypothesis import load_hypotheses, shipped_hypotheses
from frangible.inventory import load_inventory
from frangible.validation import validate

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "node-loss.yaml"
INVENTORY = """\
environments:
  - name: here
    region: london
    tier: staging
    owner: {team: t}
    platform: {kind: hosts, root: r, locks: l, power: {driver: rack, socket: r.sock}}
    prometheus: {url: "http://127.0.0.1:9", scrape-interval: 1s}
    labels: {environment: here}
    nodes: [{name: app-1, roles: [execution]}, {name: app-2, roles: [execution]}]
"""
SHIPPED = load_hypotheses((shipped_hypotheses(),))


@pytest.mark.checkout
@pytest.mark.parametrize("name", SHIPPED)
def test_held_can_be_reached(tmp_path: Path, name: str) -> None:
    """In the windows of node-loss, with a scrape a second."""
    (tmp_path / "inventory.yaml").write_text(INVENTORY)
    inventory = load_inventory(tmp_path / "inventory.yaml")
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(EXPERIMENT.read_text().replace("order-flow", name))
    assert validate(experiment, inventory.get("here"), inventory, SHIPPED) == ()
