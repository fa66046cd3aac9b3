"""`frangible demo`: what frangible does, on real parts, in two minutes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.output import span
from frangible.home import Home

__all__ = ["app"]

EXPERIMENT = "node-loss"
EXPECTED = (("lab-london", "held", 0), ("lab-newyork", "deviated", 1))
"""Environment, outcome, exit code: the robust one first."""
OUTCOMES = {0: "held", 1: "deviated", 3: "inconclusive", 4: "refused"}
OURS = ("FRANGIBLE_JOURNAL", "FRANGIBLE_LEDGER", "FRANGIBLE_INVENTORY", "FRANGIBLE_ENVIRONMENT")
"""Settings of the user's that must not reach the demonstration."""

app = new_app()


@app.command()
def demo(keep: Annotated[bool, typer.Option("--keep", help="Leave the lab up, in the home that other commands use.")] = False) -> None:
    """Lose a node in a robust and in a fragile lab environment, and explain the difference.

    Starts the embedded lab, runs node-loss on lab-london (it holds) and on lab-newyork (it deviates), explains the deviated run, stops the lab.
    It uses a journal of its own, unless --keep is given. Exits with 0 when both outcomes are as stated.

    \b
    Example:
      frangible demo
      frangible demo --keep
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the lab goes down on SIGTERM as it does on Ctrl-C
    home = Home.find() if keep else Home(Home.find().path / "demo")
    with _lab(home, keep=keep):
        codes = []
        for environment, _, _ in EXPECTED:
            codes.append(_command(home, "run", EXPERIMENT, "--environment", environment))
            if len(codes) == 1:
                typer.echo(f"first verdict after {span(time.monotonic() - began)}")
        _command(home, "explain", "--last")
    as_stated = _report(codes, time.monotonic() - began)
    if keep:
        typer.echo("the lab is up: try `frangible lab status`, and `frangible lab down` when done")
    else:
        typer.echo(f"read more with FRANGIBLE_HOME={home.path}, for example: frangible journal list")
    if not as_stated:
        raise typer.Exit(1)


def _report(codes: list[int], took: float) -> bool:
    """Say what came out against what was stated; return whether it is the same."""
    typer.echo("")
    for (environment, outcome, code), found in zip(EXPECTED, codes, strict=True):
        mark = "as stated" if found == code else f"NOT as stated: expected {outcome}"
        typer.echo(f"{EXPERIMENT} on {environment}: {OUTCOMES.get(found, f'exit code {found}')}, {mark}")
    typer.echo(f"the whole demonstration took {span(took)}")
    return codes == [code for _, _, code in EXPECTED]


@contextlib.contextmanager
def _lab(home: Home, *, keep: bool) -> Iterator[None]:
    """Have a lab, and take it down whatever happens; Ctrl-C while it goes down does not stop that."""
    from frangible import lab

    _say("frangible lab up")
    began = time.monotonic()
    try:
        lab.up(home.lab, lambda text: typer.echo(f"  {text}"), tuple(environment for environment, _, _ in EXPECTED))
        typer.echo(f"the lab is up after {span(time.monotonic() - began)}")
        yield
    finally:
        if not keep:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            _say("frangible lab down")
            lab.down(home.lab)
            signal.signal(signal.SIGINT, before)


def _command(home: Home, *arguments: str) -> int:
    """Run one command of ours in a process of its own; Ctrl-C reaches it too, and it is waited for."""
    _say(f"frangible {' '.join(arguments)}")
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | {"FRANGIBLE_HOME": str(home.path)}
    environment["FRANGIBLE_INVENTORY"] = str(home.lab / "inventory.yaml")
    process = subprocess.Popen([sys.executable, "-m", "frangible.cli", *arguments], env=environment, stdin=subprocess.DEVNULL)
    with _passing_on(process):
        interrupted = False
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True  # the command got the signal as well, and is reverting
    if interrupted:
        raise KeyboardInterrupt
    return code


@contextlib.contextmanager
def _passing_on(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Pass SIGTERM on to the command; Ctrl-C reaches it from the terminal."""

    def pass_on(number: int, _frame: object) -> None:
        process.send_signal(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(command: str) -> None:
    typer.echo(f"\n$ {command}")
    sys.stdout.flush()
