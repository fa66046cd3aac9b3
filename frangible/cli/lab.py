"""`frangible lab`: start, look at and stop the embedded estate."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson
from frangible.cli.output import columns, print_json
from frangible.errors import UsageError
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.lab.state import LabState
    from frangible.lab.survey import EnvironmentView, NodeView

__all__ = ["app"]

DOWN = 3
"""Exit code of `status` when no lab runs."""

app = new_app(
    help="The embedded estate: a miniature of trading environments made of real parts, in one folder, on this machine."
    "\n\n\b\nExample:\n  frangible lab up -e lab-london\n  frangible lab status\n  frangible lab down"
)


@app.command()
def up(
    environments: Annotated[
        list[str] | None, typer.Option("--environment", "-e", metavar="NAME", help="Only this one; may be repeated. Without it: all five.")
    ] = None,
) -> None:
    """Start the lab; return once orders flow and Prometheus sees them.

    A lab that is up already stays as it is. One that cannot start leaves nothing running, and its logs where `frangible lab logs` finds them.

    \b
    Example:
      frangible lab up
      frangible lab up -e lab-london -e lab-newyork
      frangible run node-loss --environment lab-london
    """
    from frangible import lab

    state = lab.up(Home.find().lab, typer.echo, tuple(environments or ()))
    typer.echo(f"inventory:  {state.inventory}")
    typer.echo(f"prometheus: {state.prometheus_url}")


@app.command()
def down(
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Leave databases, metrics and logs in the lab's folder.")] = False,
) -> None:
    """Stop the lab and remove its data; works too when its rack has been killed.

    \b
    Example:
      frangible lab down
    """
    from frangible import lab

    found = lab.down(Home.find().lab, keep_data=keep_data)
    typer.echo("the lab is down, nothing of it runs" if found else f"there is no lab in {Home.find().lab}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show environments, nodes, what is on and ready, ports, offered rate and CPU headroom.

    Headroom is the share of a node's declared CPUs that it did not use during one second, now and when the lab had come up.
    Exits with 3 when the lab is down.

    \b
    Example:
      frangible lab status
      frangible lab status --json
    """
    from frangible import lab

    state = lab.status(Home.find().lab)
    if state is None:
        if as_json:
            print_json({"up": False, "folder": str(Home.find().lab)})
        else:
            typer.echo("the lab is down; start it with `frangible lab up`")
        raise typer.Exit(DOWN)
    from frangible.lab.survey import survey

    views = survey(state)
    if as_json:
        print_json(_document(state, views))
        return
    typer.echo(f"up: {state.folder}\nprometheus: {state.prometheus_url}\ninventory: {state.inventory}")
    for view in views:
        typer.echo(f"\n{view.name} ({view.description}), {view.rate:g} orders/s")
        typer.echo(columns(("NODE", "ROLES", "POWER", "READY", "HEADROOM", "AT UP", "PORTS"), [_row(node) for node in view.nodes]))


def _row(node: "NodeView") -> tuple[str, ...]:
    headroom = "-" if node.headroom is None else f"{node.headroom:.0%} of {node.cpus:g} CPU"
    calibrated = "-" if node.calibrated is None else f"{node.calibrated:.0%}"
    ports = " ".join(f"{name}:{port}" for name, port in node.ports.items())
    return (node.name, ",".join(node.roles) or "outside", "on" if node.powered else "OFF", "yes" if node.ready else "no", headroom, calibrated, ports)


def _document(state: "LabState", views: "tuple[EnvironmentView, ...]") -> dict[str, object]:
    return {
        "up": True,
        "folder": str(state.folder),
        "prometheus": state.prometheus_url,
        "inventory": str(state.inventory),
        "versions": dict(state.tools.versions),
        "environments": [
            {
                "name": view.name,
                "description": view.description,
                "rate": view.rate,
                "nodes": [
                    {
                        "name": node.name,
                        "roles": list(node.roles),
                        "powered": node.powered,
                        "ready": node.ready,
                        "cpus": node.cpus,
                        "cpus-used": round(node.cpus_used, 4),
                        "headroom": None if node.headroom is None else round(node.headroom, 4),
                        "headroom-at-up": node.calibrated,
                        "ports": node.ports,
                    }
                    for node in view.nodes
                ],
            }
            for view in views
        ],
    }


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A log's name, or the beginning of one; without it the logs are listed.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="How many of the last lines to show.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is appended, until Ctrl-C.")] = False,
) -> None:
    """List the lab's logs, or show the end of one.

    \b
    Example:
      frangible lab logs
      frangible lab logs lab-london_app-1_gateway --follow
    """
    from frangible import lab

    files = lab.log_files(Home.find().lab)
    if not name:
        for file in files:
            typer.echo(f"{file.stem}  {file.stat().st_size} bytes")
        if not files:
            typer.echo("no log: no lab was started here; start one with `frangible lab up`")
        return
    file = _chosen(name, files)
    with file.open(errors="replace") as stream:
        for line in stream.read().splitlines()[-lines:] if lines else []:
            typer.echo(line)
        while follow:
            if text := stream.read():
                typer.echo(text, nl=False)
            else:
                time.sleep(0.2)


def _chosen(name: str, files: tuple[Path, ...]) -> Path:
    exact = [file for file in files if file.stem == name]
    found = exact or [file for file in files if file.stem.startswith(name)]
    if len(found) != 1:
        names = ", ".join(file.stem for file in found or files) or "none, since no lab was started here"
        expected = f"expected one log that begins with {name!r}, found {len(found)}"
        raise UsageError(f"lab logs: {expected}; {'it could be' if found else 'there are'}: {names}")
    return found[0]
