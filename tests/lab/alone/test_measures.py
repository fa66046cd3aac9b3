"""What the lab is like when nothing else runs on its machine: orders in time, and CPU left."""

from frangible.lab.survey import survey
from frangible.lab.tree import still

from ...waiting import eventually

LONDON, NEWYORK = "lab-london", "lab-newyork"


def test_orders_flow_and_every_target_is_scraped(running_lab):
    """Once the lab is up, Prometheus has every target with its environment, and orders are acknowledged in time."""
    up = 'sum by (environment) (up) / count by (environment) (up) and count by (environment) (up{environment!=""})'
    eventually(lambda: running_lab.query(up) == {(LONDON,): 1.0, (NEWYORK,): 1.0}, "every target is scraped")
    assert running_lab.query('up{job="prometheus"}')
    for environment in (LONDON, NEWYORK):
        assert running_lab.share_of_next(environment, 80) > 0.95


def test_the_robust_environment_loses_a_node_and_keeps_its_orders_in_time(running_lab):
    """With two of everything that takes orders, nine in ten orders are in time while one node is off; the node stays off until it is switched on."""
    before = running_lab.do("node", LONDON, "app-1")
    running_lab.do("power_off", LONDON, "app-1")
    assert running_lab.share_of_next(LONDON, 300) > 0.9
    off = running_lab.do("node", LONDON, "app-1")
    assert (off["powered"], off["ready"], off["processes"], off["instance"]) == (False, False, [], "")
    running_lab.do("power_on", LONDON, "app-1")
    running_lab.wait_ready(LONDON, "app-1")
    after = running_lab.do("node", LONDON, "app-1")
    assert after["instance"] not in {"", before["instance"]}
    assert not any(still(process["pid"], process["start"]) for process in before["processes"])


def test_nodes_have_headroom(running_lab):
    """At its normal rate each node uses a part of the CPUs that it declares."""
    views = survey(running_lab.state)
    assert {node.calibrated is None for view in views for node in view.nodes if node.cpus is not None} == {False}
    assert all(node.headroom > 0.2 for view in views for node in view.nodes if node.headroom is not None)
