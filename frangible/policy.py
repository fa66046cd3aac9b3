"""A gate's policy: which experiments must have held, how fresh, on which environments."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from frangible.durations import Positive
from frangible.errors import PolicyError, Problem
from frangible.gate import Requirement, strictest
from frangible.inventory import Selection
from frangible.yamlfile import Declared, Document, Loc, nearest, problems_of, read_document

if TYPE_CHECKING:
    from frangible.inventory import Environment, Inventory

__all__ = ["Policy", "Rule", "Where", "load_policy", "matching", "requirements", "where_problems"]


class Where(Declared):
    """Which environments are meant; everything that is given must match."""

    names: tuple[str, ...] = Field(default=(), description="names or globs such as `ny-*`; any of them may match")
    region: str = ""
    parent: str = Field(default="", description="everything below this environment")
    owner: str = Field(default="", description="the owning team")
    tier: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether these are names only, which need no inventory."""
        return self == Where(names=self.names) and bool(self.names) and not any(_is_glob(name) for name in self.names)


class Rule(Declared):
    """What must have held where."""

    experiments: tuple[str, ...] = Field(min_length=1, description="names of experiments, as in `frangible journal list`")
    environments: Where = Field(description="which environments: names, region, parent, owner, tier, labels")
    within: Positive = Field(description="how fresh a run must be, such as 7d")
    held_in_a_row: int = Field(default=1, ge=1, le=1000, description="how many of the newest runs must have held")


class Policy(Declared):
    """What a gate asks."""

    name: str = Field(description="what the gate is for, such as `release`")
    rules: tuple[Rule, ...] = Field(min_length=1, description="what must have held")


def load_policy(path: Path) -> tuple[Policy, Document]:
    """Load one policy; raise `PolicyError` with all of its problems."""
    document = read_document(path, PolicyError)
    if not isinstance(document.data, dict):
        raise PolicyError((document.problem((), "expected a mapping with `name` and `rules`, found something else"),))
    try:
        return Policy.model_validate(document.data, by_alias=True, by_name=False, context={"file": True}), document
    except ValidationError as error:
        raise PolicyError(problems_of(error, document, Policy)) from error


def requirements(policy: Policy, document: Document, inventory: "Inventory | None") -> tuple[Requirement, ...]:
    """Return what is required of each experiment on each environment, the strictest where rules overlap.

    Raises `PolicyError` for a rule that names an environment that there is not, or that means none at all: an empty gate must not pass.
    """
    problems: list[Problem] = []
    wanted: list[Requirement] = []
    for index, rule in enumerate(policy.rules):
        found = list(where_problems(rule.environments, ("rules", index, "environments"), document, inventory))
        problems += found
        if not found:
            names = _names(rule.environments, inventory)
            wanted += [Requirement(name, experiment, rule.within, rule.held_in_a_row) for name in names for experiment in rule.experiments]
    if problems:
        raise PolicyError(tuple(problems))
    return strictest(wanted)


def where_problems(where: Where, place: Loc, document: Document, inventory: "Inventory | None") -> Iterator[Problem]:
    """Yield what is wrong with a choice that stands at `place`: names that the inventory does not have, or nothing that matches."""
    if inventory is None:
        if not where.plain:
            yield document.problem(place, "an inventory is needed to know which environments these are", "give --inventory, or plain names only")
        return
    unknown = False
    named = [(document.has((*place, "names", at)), name) for at, name in enumerate(where.names)] + [((*place, "parent"), where.parent)]
    for loc, name in named:
        if name and not _is_glob(name) and name not in inventory.environments:
            unknown = True
            yield document.problem(loc, f"the inventory {inventory.path} has no environment {name!r}", nearest(name, inventory.environments))
    if not unknown and not matching(where, inventory):
        yield document.problem(place, "no environment of the inventory matches", f"there are {', '.join(inventory.environments)}")


def matching(where: Where, inventory: "Inventory") -> "tuple[Environment, ...]":
    """Return the environments that are meant, sorted by name."""
    wanted = Selection(names=where.names, region=where.region, parent=where.parent, owner=where.owner, tier=where.tier, labels=where.labels)
    return inventory.select(wanted)


def _names(where: Where, inventory: "Inventory | None") -> tuple[str, ...]:
    return where.names if inventory is None else tuple(one.name for one in matching(where, inventory))


def _is_glob(name: str) -> bool:
    return any(character in name for character in "*?[")
