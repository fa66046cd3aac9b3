"""Plan a run, start its supervisor, and follow it."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from frangible.beforehand import free_run_id, spawn
from frangible.channel import Channel, ChannelClosed
from frangible.errors import ExperimentError, FrangibleError
from frangible.plan import Plan, actor
from frangible.request import Request
from frangible.targets import new_seed

if TYPE_CHECKING:
    import subprocess

    from frangible.admission import Link
    from frangible.beforehand import Beforehand
    from frangible.experiment import ExperimentFile
    from frangible.forkserver import Forked, ForkServer
    from frangible.home import Home
    from frangible.hypothesis import Hypothesis
    from frangible.inventory import Environment, Inventory
    from frangible.progress import Event
    from frangible.validation import Checked

__all__ = ["Known", "RunHandle", "exclusive_parts", "hidden_hypotheses", "hypotheses_for", "own_hypotheses", "prepare", "start", "start_beside", "start_forked"]


def hypotheses_for(experiment: Path | None, more: "tuple[Path, ...]" = ()) -> "Mapping[str, Hypothesis]":
    """Load the hypotheses that an experiment may name: the shipped, those in `hypotheses/` beside it (or beside its folder), the estate's, and `more`.

    One of your own hides a shipped one of the same name; `hidden_hypotheses` tells. Two of your own with one name are a problem.
    """
    from frangible.hypothesis import load_hypotheses, shipped_hypotheses

    return {**load_hypotheses((shipped_hypotheses(),)), **load_hypotheses(own_hypotheses(experiment, more))}


def own_hypotheses(experiment: Path | None, more: "tuple[Path, ...]" = ()) -> tuple[Path, ...]:
    """Return the files and folders of hypotheses that are not shipped; each place once."""
    from frangible.estate import find_estate
    from frangible.hypothesis import shipped_hypotheses

    estate, shipped = find_estate(), shipped_hypotheses().resolve()
    beside = [] if experiment is None else [experiment.parent / "hypotheses", experiment.parent.parent / "hypotheses"]
    places = [*(folder for folder in beside if folder.is_dir()), *(estate.hypotheses if estate else ()), *more]
    return tuple({place.resolve(): place for place in places if place.resolve() != shipped}.values())


def hidden_hypotheses(places: "tuple[Path, ...]") -> tuple[str, ...]:
    """Return the names in these files and folders that hide a shipped hypothesis, sorted."""
    if not places:
        return ()
    from frangible.hypothesis import load_hypotheses, shipped_hypotheses

    return tuple(sorted(load_hypotheses(places).keys() & load_hypotheses((shipped_hypotheses(),)).keys()))


class Known(Mapping[str, "Hypothesis"]):
    """What `hypotheses_for` loads, when the first one is asked for: an experiment that names none does not wait for it."""

    def __init__(self, experiment: Path, more: tuple[Path, ...] = ()) -> None:
        """Load nothing yet, unless somebody asked for more: what is wrong with that is said in any case."""
        self._load = partial(hypotheses_for, experiment, more)
        if more:
            self._all  # noqa: B018 - loads them

    @cached_property
    def _all(self) -> "Mapping[str, Hypothesis]":
        return self._load()

    def __getitem__(self, name: str) -> "Hypothesis":
        """Return one by its name."""
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._all)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)


def prepare(
    experiment: Path,
    environment: "Environment",
    inventory: "Inventory",
    home: "Home",
    *,
    request: Request = Request(),
    hypotheses: "Mapping[str, Hypothesis] | None" = None,
    beforehand: "Beforehand | None" = None,
    checked: "Checked | None" = None,
) -> Plan:
    """Validate everything and write the run's plan; raise `InputError` with all problems, before anything was done.

    With processes that were started beforehand the run is theirs, and the toolkit is asked in theirs. An experiment of many runs is checked once.
    """
    from frangible import toolkit
    from frangible.validation import check, problems_there, surveyed

    known = Known(experiment) if hypotheses is None else hypotheses
    found = checked or check(experiment, known, toolkit.complaints if beforehand is None else beforehand.complaints)
    # Where the cluster cannot be asked the guards will refuse; whatever is wrong with the files is said all the same.
    if problems := problems_there(found, surveyed(environment)[0], inventory, known):
        raise ExperimentError(problems)
    file = found.file
    plan = _plan(file, environment, inventory, home, known, request, free_run_id(home.runs) if beforehand is None else beforehand.run_id)
    try:
        plan.save()
        plan.document_path.write_text(json.dumps(file.document, default=str))
    except OSError as error:
        raise FrangibleError(
            f"{plan.folder}: the run's plan cannot be written ({error.strerror}), so nothing was started; make room there or set FRANGIBLE_HOME"
        ) from error
    return plan


def _plan(
    file: "ExperimentFile",
    environment: "Environment",
    inventory: "Inventory",
    home: "Home",
    known: "Mapping[str, Hypothesis]",
    request: Request,
    run_id: str,
) -> Plan:
    return Plan(
        run_id=run_id,
        folder=home.runs / run_id,
        home=home.path,
        journal_url=home.journal_url,
        ledger_url=home.ledger_url,
        experiment_path=str(file.path),
        experiment=file.name,
        title=file.title,
        digest=file.digest,
        injects=bool(file.injections),
        has_control=file.has_control,
        longest_hold=sum(float(injection.arguments.get("hold", 20.0)) for injection in file.holds),
        actor=actor(),
        note=request.note,
        ticket=request.ticket,
        keys=inventory.resource_keys(environment.name, exclusive_parts(file)),
        environment_json=environment.model_dump_json(by_alias=True),
        hypotheses_json=json.dumps([known[name].model_dump(mode="json", by_alias=True) for name in file.hypotheses]),
        windows_json=file.windows.model_dump_json(by_alias=True),
        needs=primitives_used(file),
        seed=request.seed or new_seed(),
    )


def primitives_used(file: "ExperimentFile") -> tuple[str, ...]:
    """Return the platform primitives that the experiment's faults use, sorted."""
    from frangible.fault import FaultRegistry

    registry = FaultRegistry()
    return tuple(sorted(frozenset[str]().union(*(registry.load(injection.fault).needs for injection in file.injections if injection.fault))))


def exclusive_parts(file: "ExperimentFile") -> frozenset[str]:
    """Return the parts of a machine that the experiment's faults need alone."""
    from frangible.fault import FaultRegistry

    registry = FaultRegistry()
    return frozenset[str]().union(*(registry.exclusive(injection.fault) for injection in file.injections if injection.fault))


@dataclass
class RunHandle:
    """A run that this process started. While it lives, the run goes on; when it dies, the supervisor aborts and reverts."""

    plan: Plan
    supervisor: "subprocess.Popen[bytes] | Forked"
    channel: Channel

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.plan.run_id

    def events(self) -> "Iterator[Event]":
        """Yield events until the supervisor has ended."""
        yield from self.channel.messages()  # type: ignore[misc]
        self.supervisor.wait()

    def abort(self, reason: str) -> None:
        """Ask the supervisor to stop, revert and judge what was seen; the events go on until it has."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send({"type": "abort", "reason": reason})


def start(plan: Plan, beforehand: "Beforehand | None" = None) -> RunHandle:
    """Start the supervisor, which starts the chaoslib process; or let those begin that were started beforehand."""
    if beforehand is not None and beforehand.go():
        return RunHandle(plan, beforehand.supervisor, beforehand.channel)
    ours, theirs = Channel.pair()
    process = _supervisor(plan, ["--starter", str(theirs.fileno())], theirs)
    return RunHandle(plan, process, ours)


def start_forked(plan: Plan, server: "ForkServer") -> RunHandle:
    """Let the supervisor be forked, and the chaoslib process from it; start them directly where the server is not there any more."""
    ours, theirs = Channel.pair()
    supervisor = server.fork(plan.folder, theirs)
    theirs.close_here()
    if supervisor is not None:
        with contextlib.suppress(ChannelClosed):
            ours.send({"type": "go"})
            return RunHandle(plan, supervisor, ours)
    ours.close()  # if it was forked all the same, it ends: it has not been told to begin
    return start(plan)


def start_beside(plan: Plan) -> "Link":
    """Start a supervisor for the chaoslib process that this is."""
    from frangible.admission import Link

    ours, theirs = Channel.pair()
    _supervisor(plan, ["--child", str(theirs.fileno())], theirs)
    return Link(ours)


def _supervisor(plan: Plan, options: list[str], end: Channel) -> "subprocess.Popen[bytes]":
    with (plan.folder / "supervisor.log").open("ab") as log:
        return spawn(plan.folder, options, (end,), log.fileno())
