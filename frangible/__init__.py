"""Chaos and resilience experiments that prove their faults, judge with statistics and remember what was fragile."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaoslib.types import DiscoveredActivities, Discovery

    __version__: str
else:  # a checker that sees `__getattr__` believes in every name

    def __getattr__(name: str) -> str:
        """Read the version from the installed metadata only when somebody asks: `import frangible` stays free of cost."""
        if name != "__version__":
            raise AttributeError(f"module 'frangible' has no attribute {name!r}")
        from importlib.metadata import version

        return version("frangible")


__all__ = ["__version__", "discover"]


def discover(discover_system: bool = True) -> "Discovery":  # noqa: ARG001 - chaoslib passes it
    """Return every shipped action and probe, for `chaos discover --no-install frangible`."""
    from importlib.metadata import version

    from chaoslib.discovery.discover import initialize_discovery_result

    discovery: Discovery = initialize_discovery_result("frangible", version("frangible"), "frangible")
    discovery["activities"].extend(_shipped_activities())
    return discovery


def _shipped_activities() -> "DiscoveredActivities":
    """Collect activities; the folder a module lives in decides its kind."""
    import importlib
    import pkgutil

    from chaoslib.discovery.discover import discover_activities

    found: DiscoveredActivities = []
    for folder, kind in (("actions", "action"), ("probes", "probe")):
        package = importlib.import_module(f"frangible.{folder}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            found.extend(discover_activities(module.name, kind))
    return found
