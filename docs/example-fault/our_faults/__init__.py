"""Faults of our own for frangible."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaoslib.types import Discovery

__all__ = ["discover"]


def discover(discover_system: bool = True) -> "Discovery":  # noqa: ARG001 - chaoslib passes it
    """Return our activities, for `chaos discover --no-install our_faults`."""
    from importlib.metadata import version

    from chaoslib.discovery.discover import discover_actions, initialize_discovery_result

    discovery: Discovery = initialize_discovery_result("our_faults", version("our_faults"), "our_faults")
    discovery["activities"].extend(discover_actions("our_faults.service_stop"))
    return discovery
