"""The plan of a game day as its file declares it: who takes part, which runs in which waves, within which limits, and when to stop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from frangible.durations import Seconds
from frangible.errors import GameDayError, Problem, UsageError
from frangible.moments import parse_moment
from frangible.policy import Where, matching, where_problems
from frangible.yamlfile import Declared, Document, problems_of, read_document

if TYPE_CHECKING:
    from frangible.inventory import Environment, Inventory

__all__ = ["Agenda", "Person", "Step", "Wave", "experiment_files", "load_agenda", "steps"]

SHAPE = "expected a mapping with `title` and `waves`, found something else"


def _named(value: object) -> object:
    """A plain list stands for names."""
    return {"names": value} if isinstance(value, list) else value


def _moment(value: object) -> object:
    if isinstance(value, str) and value:
        parse_moment(value)
    return value


type Moment = Annotated[str, BeforeValidator(_moment)]


class Window(Declared):
    """When runs may be started."""

    from_: Moment = Field(default="", description="not before, such as `2026-12-01T18:00 Europe/London`")
    until: Moment = Field(default="", description="nothing more is started afterwards; runs in progress go on to their end")

    @model_validator(mode="after")
    def _ordered(self) -> "Window":
        if self.begins and self.ends and self.begins >= self.ends:
            raise ValueError("expected `from` before `until`, found it after")
        return self

    @property
    def begins(self) -> datetime | None:
        """When the first run may start."""
        return parse_moment(self.from_) if self.from_ else None

    @property
    def ends(self) -> datetime | None:
        """When nothing more is started."""
        return parse_moment(self.until) if self.until else None


class Person(Declared):
    """Somebody who takes part."""

    name: str = Field(min_length=1)
    role: str = Field(default="", description="such as lead, observer, on call")
    contact: str = Field(default="", description="address, channel or telephone")


class Wave(Declared):
    """Runs that go side by side where their resource keys allow it; the next wave waits for all of them."""

    name: str = Field(default="", description="what the report calls it; else its number")
    experiments: tuple[str, ...] = Field(min_length=1, description="names of experiments, or files beside the plan; in this order")
    environments: Annotated[Where, BeforeValidator(_named)] = Field(description="names and globs, or a selection by region, parent, owner, tier, labels")


class Pace(Declared):
    """How fast the day goes."""

    at_once: int = Field(default=1, ge=1, description="runs side by side")
    pause: Seconds = Field(default=0.0, description="between two waves, such as 5m")


class Stop(Declared):
    """When nothing more is started; runs in progress go on to their end."""

    after_deviated: int = Field(default=0, ge=0, description="after so many runs that deviated; 0: never")
    on_refused: bool = Field(default=True, description="after a run that a guard refused")


class Agenda(Declared):
    """The plan of a game day."""

    title: str = Field(min_length=1, description="what the day is called")
    purpose: str = Field(default="", description="what the day is to find out")
    ticket: str = Field(default="", description="kept with each run")
    when: Window = Field(default_factory=Window, description="when runs may be started; left out: at any time")
    people: tuple[Person, ...] = Field(default=(), description="who takes part")
    teams: tuple[str, ...] = Field(default=(), description="teams that take part, beside those that own the environments")
    waves: tuple[Wave, ...] = Field(min_length=1, description="what is run, one wave after the other")
    limits: Pace = Field(default_factory=Pace, description="runs at once, pause between waves")
    stop: Stop = Field(default_factory=Stop, description="when nothing more is started")


@dataclass(frozen=True, slots=True)
class Step:
    """One run that the plan wants."""

    wave: int
    """Number of its wave, from 0."""
    experiment: Path
    environment: "Environment"


def load_agenda(path: Path) -> tuple[Agenda, Document]:
    """Load one plan; raise `GameDayError` with all of its problems."""
    document = read_document(path, GameDayError)
    if not isinstance(document.data, dict):
        raise GameDayError((document.problem((), SHAPE),))
    try:
        return Agenda.model_validate(document.data, by_alias=True, by_name=False, context={"file": True}), document
    except ValidationError as error:
        raise GameDayError(problems_of(error, document, Agenda)) from error


def experiment_files(agenda: Agenda, document: Document, find: Callable[[str], Path]) -> dict[str, Path]:
    """Return the file of each experiment that the plan names; raise `GameDayError` with all that are not there.

    A file beside the plan comes first, then what `find` returns for a name; it raises `UsageError` for one that it does not know.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for number, wave in enumerate(agenda.waves):
        for at, name in enumerate(wave.experiments):
            beside = Path(document.file).parent / name
            try:
                found[name] = beside if beside.is_file() else find(name)
            except UsageError as error:
                problems.append(document.problem(("waves", number, "experiments", at), str(error)))
    if problems:
        raise GameDayError(tuple(problems))
    return found


def steps(agenda: Agenda, document: Document, inventory: "Inventory", find: Callable[[str], Path]) -> tuple[Step, ...]:
    """Return every run in order (waves, experiments, environments as they are named); raise `GameDayError` with all that is named and not there."""
    problems: list[Problem] = []
    files: dict[str, Path] = {}
    try:
        files = experiment_files(agenda, document, find)
    except GameDayError as error:
        problems += error.problems
    for number, wave in enumerate(agenda.waves):
        problems += where_problems(wave.environments, ("waves", number, "environments"), document, inventory)
    if problems:
        raise GameDayError(tuple(problems))
    return tuple(_steps(agenda, files, inventory))


def _steps(agenda: Agenda, files: dict[str, Path], inventory: "Inventory") -> Iterator[Step]:
    for number, wave in enumerate(agenda.waves):
        environments = sorted(matching(wave.environments, inventory), key=lambda one: _rank(one.name, wave.environments.names))
        yield from (Step(number, files[name], environment) for name in dict.fromkeys(wave.experiments) for environment in environments)


def _rank(name: str, patterns: tuple[str, ...]) -> int:
    """Environments go in the order in which they are named; those of one glob by name."""
    return next((number for number, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), len(patterns))
