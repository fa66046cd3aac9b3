"""`frangible demo`: what frangible does, on real parts: who is fragile to what, and what a pipeline makes of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.output import columns, print_json, span
from frangible.errors import UsageError
from frangible.home import Home

__all__ = ["POLICY", "Result", "Stated", "app", "planned", "report"]

ROBUST = "lab-london"
FRAGILE = {
    "node-loss": "lab-newyork",
    "middleware-restart": "lab-frankfurt",
    "cpu-saturation": "lab-newyork-options",
    "volume-surge": "lab-newyork-options",
}
"""Experiments of the demonstration, and which environment does not stand each."""
MORE = ("process-pause", "surge-while-node-lost")
"""Experiments of the whole matrix beside those."""
POLICY = Path(__file__).with_name("demo-policy.yaml")
SEED = "1"
"""What targets are drawn with: each demonstration hits the same nodes."""
BLOCKED = 1
"""Exit code of the gate, since some environments do not stand what the policy asks."""
OUTCOMES = {0: "held", 1: "deviated", 2: "not run", 3: "inconclusive", 4: "refused"}
"""What exit codes of `frangible run` say of its run."""
OURS = ("FRANGIBLE_JOURNAL", "FRANGIBLE_LEDGER", "FRANGIBLE_INVENTORY", "FRANGIBLE_ENVIRONMENT", "FRANGIBLE_CONFIG")
"""Settings of the user's that must not reach the demonstration."""

app = new_app()


@dataclass(frozen=True, slots=True)
class Stated:
    """One run of the demonstration, and what is said to come of it."""

    experiment: str
    environment: str
    outcome: str = ""
    """`held` or `deviated`; empty where nothing is stated."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a demonstration."""

    runs: tuple[Stated, ...]
    outcomes: tuple[str, ...]
    """What came of each run, in their order."""
    asked: int | None
    """Exit code of the gate; None where it was not asked."""
    seconds: float

    @property
    def gate(self) -> str | None:
        """What the gate answered, in words."""
        if self.asked is None:
            return None
        return "fail" if self.asked == BLOCKED else f"exit code {self.asked}"

    @property
    def as_stated(self) -> bool:
        """Whether everything that is stated came out so."""
        return self.gate in {None, "fail"} and all(run.outcome in {"", outcome} for run, outcome in zip(self.runs, self.outcomes, strict=True))

    def to_json(self) -> dict[str, object]:
        """Return it as `--json` prints it: each run with its outcome and what was stated of it (empty: nothing), the gate's answer, seconds."""
        runs = [
            {"experiment": run.experiment, "environment": run.environment, "outcome": outcome, "stated": run.outcome}
            for run, outcome in zip(self.runs, self.outcomes, strict=True)
        ]
        return {"runs": runs, "gate": self.gate, "as-stated": self.as_stated, "seconds": round(self.seconds, 1)}


def planned(*, quick: bool = False, everything: bool = False) -> tuple[Stated, ...]:
    """Return the runs in their order: each experiment on a robust and on a fragile environment, one of them, or all on all."""
    pairs = tuple((Stated(experiment, ROBUST, "held"), Stated(experiment, fragile, "deviated")) for experiment, fragile in FRAGILE.items())
    usual = tuple(run for pair in pairs[: 1 if quick else None] for run in pair)
    if not everything:
        return usual
    from frangible.lab.layout import ESTATE

    stated = {(run.experiment, run.environment): run for run in usual}
    stated |= {(experiment, ROBUST): Stated(experiment, ROBUST, "held") for experiment in MORE}
    names = [(experiment, environment.name) for experiment in (*FRAGILE, *MORE) for environment in ESTATE]
    return tuple(stated.get(name, Stated(*name)) for name in names)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="One experiment only: two runs, in two minutes.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every experiment on every environment, two at a time where they allow it; twenty minutes.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab up, in the home that other commands use.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came out as one JSON document; everything else goes to stderr.")] = False,
) -> None:
    """Find out which environments of the embedded lab are fragile, to what, and why.

    Starts the lab; runs four experiments, each on an environment that stands it and on one that does not; shows the table of who is fragile to
    what, explains the last run, asks the gate; stops the lab. An inconclusive run is no evidence: it is done once more. It uses a journal of
    its own, unless --keep is given. Exits with 0 when all outcomes are as stated; with --all only those of the robust environment and of the
    runs above are. It needs a machine that is otherwise quiet.

    \b
    Example:
      frangible demo
      frangible demo --quick --keep
      frangible demo --all --json > matrix.json
    """
    if quick and everything:
        raise UsageError("--quick and --all: expected one of them, found both")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the lab goes down on SIGTERM as it does on Ctrl-C
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        result = _demonstrated(planned(quick=quick, everything=everything), ask=not quick, keep=keep, together=everything)
    if as_json:
        print_json(result.to_json())
    if not result.as_stated:
        raise typer.Exit(1)


def _demonstrated(runs: tuple[Stated, ...], *, ask: bool, keep: bool, together: bool) -> Result:
    """Have a lab, do the runs there, one by one or `together` those of an experiment, and say what came out."""
    began = time.monotonic()
    home = Home.find() if keep else Home(Home.find().path / "demo")
    environments = tuple(dict.fromkeys(run.environment for run in runs))
    with _lab(home, environments, keep=keep):
        outcomes: list[str] = []
        for group in _by_experiment(runs) if together else [(run,) for run in runs]:
            outcomes += _evident(home, group)
            if len(outcomes) == len(group):
                typer.echo(f"first verdict after {span(time.monotonic() - began)}")
        asked = _ask(home, environments) if ask else None
        _command(home, "explain", "--last")
    result = Result(runs, tuple(outcomes), asked, time.monotonic() - began)
    report(result)
    typer.echo(f"the whole demonstration took {span(result.seconds)}")
    if keep:
        typer.echo("the lab is up: try `frangible lab status`, and `frangible lab down` when done")
    else:
        typer.echo(f"read more with FRANGIBLE_HOME={home.path}, for example: frangible journal list")
    return result


def _by_experiment(runs: Sequence[Stated]) -> Iterator[tuple[Stated, ...]]:
    """Yield the environments of each experiment, in order."""
    for _, group in groupby(runs, key=lambda run: run.experiment):
        yield tuple(group)


def _evident(home: Home, runs: tuple[Stated, ...]) -> list[str]:
    """Run them and return what came of each; what is stated and came out inconclusive is run once more."""
    found = dict(zip(runs, _run(home, runs), strict=True))
    again = tuple(run for run in runs if run.outcome and found[run] == "inconclusive")
    if again:
        typer.echo("inconclusive is no evidence: once more")
        found |= dict(zip(again, _run(home, again), strict=True))
    return [found[run] for run in runs]


def _run(home: Home, runs: tuple[Stated, ...]) -> list[str]:
    """Run one experiment on one environment, or on several as far as their resource keys allow it."""
    command = ("run", runs[0].experiment, *(word for run in runs for word in ("--environment", run.environment)), "--seed", SEED)
    if len(runs) == 1:
        code = _command(home, *command)
        return [OUTCOMES.get(code, f"exit code {code}")]
    with tempfile.TemporaryFile("w+") as records:
        code = _command(home, *command, "--json", output=records)
        records.seek(0)
        text = records.read()
    found = {record["environment"]: str(record["outcome"]) for record in json.loads(text or "[]")}
    return [found.get(run.environment, OUTCOMES.get(code, f"exit code {code}")) for run in runs]


def _ask(home: Home, environments: tuple[str, ...]) -> int:
    """Show who is fragile to what; return what the gate makes of it."""
    _command(home, "fragility", *(word for name in environments for word in ("--environment", name)))
    return _command(home, "gate", "--policy", str(POLICY))


def report(result: Result) -> None:
    """Print what came out against what was stated."""
    rows = [(run.experiment, run.environment, outcome, _mark(run.outcome, outcome)) for run, outcome in zip(result.runs, result.outcomes, strict=True)]
    if result.gate is not None:
        rows.append(("gate", "", result.gate, _mark("fail", result.gate)))
    typer.echo("\n" + columns(("EXPERIMENT", "ENVIRONMENT", "OUTCOME", "STATED"), rows))


def _mark(stated: str, found: str) -> str:
    if not stated:
        return "-"
    return "as stated" if found == stated else f"NOT as stated: {stated}"


@contextlib.contextmanager
def _lab(home: Home, environments: tuple[str, ...], *, keep: bool) -> Iterator[None]:
    """Have a lab, and take it down whatever happens; Ctrl-C while it goes down does not stop that."""
    from frangible import lab

    _say("frangible lab up")
    began = time.monotonic()
    try:
        lab.up(home.lab, lambda text: typer.echo(f"  {text}"), environments)
        typer.echo(f"the lab is up after {span(time.monotonic() - began)}")
        yield
    finally:
        if not keep:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            _say("frangible lab down")
            lab.down(home.lab)
            signal.signal(signal.SIGINT, before)


def _command(home: Home, *arguments: str, output: IO[str] | None = None) -> int:
    """Run one command of ours in a process of its own; Ctrl-C reaches it too, and it is waited for. What it prints may go to a file."""
    _say(f"frangible {' '.join(arguments)}")
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | {"FRANGIBLE_HOME": str(home.path)}
    environment["FRANGIBLE_INVENTORY"] = str(home.lab / "inventory.yaml")
    aside = sys.stderr if sys.stdout is sys.stderr else None  # with --json, standard output is for the document alone
    command = [sys.executable, "-m", "frangible.cli", *arguments]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=aside if output is None else output)
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
