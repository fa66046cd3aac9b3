"""What the shell may complete: quick, and silent whatever goes wrong."""

from pathlib import Path

from frangible.errors import FrangibleError
from frangible.home import Home

__all__ = ["environments", "experiments", "faults", "runs"]

MOST = 50
"""Runs offered, newest first."""


def environments(incomplete: str) -> list[str]:
    """Names of environments in the inventory that would be found."""
    from frangible.inventory import find_inventory, load_inventory

    try:
        names = load_inventory(find_inventory(None, Home.find())).environments
    except (FrangibleError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def experiments(incomplete: str) -> list[str]:
    """Names of your own and of shipped experiments, and files and folders that begin like this."""
    from frangible.cli.opening import known_experiments

    try:
        files = [
            f"{path}/" if path.is_dir() else str(path) for path in _beginning_with(incomplete) if path.is_dir() or path.suffix in {".yaml", ".yml", ".json"}
        ]
        return [name for name in known_experiments() if name.startswith(incomplete)] + sorted(files)
    except (FrangibleError, ImportError, OSError):
        return []


def faults(incomplete: str) -> list[str]:
    """Kinds of faults, shipped and of the user's own."""
    from frangible.fault import FaultRegistry

    try:
        return [kind for kind in FaultRegistry().kinds() if kind.startswith(incomplete)]
    except ImportError:
        return []


def _beginning_with(incomplete: str) -> list[Path]:
    folder, _, start = incomplete.rpartition("/")
    base = Path(folder or ("/" if incomplete.startswith("/") else "."))
    return [path for path in base.iterdir() if path.name.startswith(start) and not path.name.startswith(".")]


def runs(incomplete: str) -> list[str]:
    """Ids of the newest runs of this home; their folders are read, not the journal, which takes a library to open."""
    try:
        names = sorted((path.name for path in Home.find().runs.iterdir()), reverse=True)
    except (FrangibleError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)][:MOST]
