"""`frangible doctor`: can this environment be measured, and would a fault in it be reverted?"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, EnvironmentName, HypothesisFolders, InventoryPath, inventory_at
from frangible.cli.output import print_json
from frangible.errors import FrangibleError
from frangible.examining import examine
from frangible.home import Home
from frangible.trials import Check

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["app"]

app = new_app()


@app.command()
def doctor(environment: EnvironmentName, inventory: InventoryPath = None, hypotheses: HypothesisFolders = None, as_json: AsJson = False) -> None:
    """Check that an environment can be measured and reverted; inject nothing.

    Inventory, Prometheus and its clock, scrape interval, each query of the hypotheses, each node, locks, lease copies, ledger and journal.
    On Kubernetes also each permission and the manifest that grants it, the API server's clock, kubelets' figures, helper pods, left-overs.
    Exits with 0 when all is well, with 1 when something is not.

    \b
    Example:
      frangible doctor --environment lab-london
    """
    checks = list(_examine(Home.find(), environment, inventory, hypotheses))
    well = all(check.ok for check in checks)
    if as_json:
        print_json({"environment": environment, "ok": well, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            typer.echo(_line(check))
    if not well:
        raise typer.Exit(1)


def _line(check: Check) -> str:
    head = f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.found}"
    return head if check.ok or not check.advice else f"{head}\n        {check.advice}"


def _examine(home: Home, name: str, inventory: "Path | None", folders: "list[Path] | None") -> Iterator[Check]:
    """Try everything; without files that can be used, nothing else."""
    from frangible import launch

    try:
        path, loaded = inventory_at(inventory, home)
        environment = loaded.get(name)
        hypotheses = launch.hypotheses_for(None, tuple(folders or ())).values()
    except FrangibleError as error:
        yield Check("inventory and hypotheses", ok=False, found=str(error), advice="correct the files; `frangible validate FILE` shows all problems")
        return
    yield Check("inventory", ok=True, found=f"{path}: {name} has {len(environment.nodes)} nodes; {len(hypotheses)} hypotheses")
    yield from examine(home, environment, hypotheses)
