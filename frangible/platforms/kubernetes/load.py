"""The load of an environment on Kubernetes: a ConfigMap that its generator follows, or the user's commands."""

from dataclasses import dataclass

from frangible.errors import PlatformError
from frangible.platforms.asking import short
from frangible.platforms.kubernetes.client import NotFound
from frangible.platforms.kubernetes.survey import Looker
from frangible.platforms.loading import CommandLoad, LoadDriver, as_rate

__all__ = ["ConfigMapLoad", "load_driver"]


def load_driver(looker: Looker) -> LoadDriver | None:
    """Return what sets the load, where the inventory says."""
    environment = looker.environment
    settings = environment.platform.load
    if settings is None:
        return None
    if settings.name is not None:
        return ConfigMapLoad(looker, settings.name, settings.key)
    return CommandLoad(environment.name, settings.read, settings.set)


@dataclass(frozen=True, slots=True)
class ConfigMapLoad:
    """The rate as a key of a ConfigMap in a namespace of the environment; the generator has to follow it."""

    looker: Looker
    name: str
    key: str

    def rate(self) -> float:
        """Read the key."""
        _, data = self._found()
        if self.key not in data:
            raise PlatformError(f"{self._who}: no key {self.key!r}; it has {short(', '.join(sorted(data)) or 'none')}")
        return as_rate(self._who, data[self.key])

    def set(self, rate: float) -> None:
        """Change the key and nothing else."""
        namespace, _ = self._found()
        cluster = self.looker.cluster
        cluster.ask(cluster.core.patch_namespaced_config_map, self.name, namespace, {"data": {self.key: f"{rate:.15g}"}})

    def _found(self) -> tuple[str, dict[str, str]]:
        """Return the namespace that has it, and its data."""
        cluster, namespaces = self.looker.cluster, self.looker.namespaces()
        for namespace in namespaces:
            try:
                return namespace, cluster.ask(cluster.core.read_namespaced_config_map, self.name, namespace).data.get("data") or {}
            except NotFound:
                continue
        raise PlatformError(f"{self._who}: not in {', '.join(namespaces)}; `platform.load.name` says which one the generator follows")

    @property
    def _who(self) -> str:
        return f"environment {self.looker.environment.name}: ConfigMap {self.name}"
