"""The inventory: every environment of the organisation, loaded from YAML, with inheritance, selection and resource keys."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from pydantic import ConfigDict, ValidationError

from frangible.environment import (
    WORKLOAD,
    Basic,
    Environment,
    Limits,
    Middleware,
    Node,
    Owner,
    PlatformSettings,
    PowerSettings,
    PrometheusSettings,
    Secret,
    Service,
)
from frangible.errors import InventoryError, Problem, UsageError
from frangible.estate import VARIABLE, find_estate
from frangible.home import Home
from frangible.yamlfile import Declared, Document, Loc, details, nearest, problem_of, read_document, yaml_files

__all__ = [
    "Basic",
    "Environment",
    "Inventory",
    "Limits",
    "Middleware",
    "Node",
    "Owner",
    "PlatformSettings",
    "PowerSettings",
    "PrometheusSettings",
    "Secret",
    "Selection",
    "Service",
    "find_inventory",
    "load_inventory",
]

FILE_NAME = "frangible-inventory.yaml"
HIDDEN = frozenset({"prometheus", "notify"})
"""Keys below which a file's values are never shown: somebody may have put a secret in the wrong place."""
OWN = frozenset({"name", "parent"})
"""Keys that no child inherits."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which environments are meant; everything that is given must match."""

    names: tuple[str, ...] = ()
    """Names or globs (`ny-*`); any of them may match."""
    region: str = ""
    parent: str = ""
    """Everything below this environment, at any depth."""
    owner: str = ""
    """The owning team."""
    tier: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every environment by name, inheritance applied."""

    path: Path
    environments: Mapping[str, Environment]

    def get(self, name: str) -> Environment:
        """Return one environment; raise `UsageError` with the nearest name when there is none."""
        if name not in self.environments:
            raise UsageError(f"the inventory {self.path} has no environment {name!r}; {nearest(name, self.environments) or 'it is empty'}")
        return self.environments[name]

    def select(self, selection: Selection) -> tuple[Environment, ...]:
        """Return what matches, sorted by name; a plain name or a parent that does not exist raises `UsageError`."""
        for name in (*selection.names, selection.parent):
            if name and not any(character in name for character in "*?["):
                self.get(name)
        return tuple(self.environments[name] for name in sorted(self.environments) if self._matches(self.environments[name], selection))

    def _matches(self, environment: Environment, wanted: Selection) -> bool:
        return (
            (not wanted.names or any(fnmatchcase(environment.name, pattern) for pattern in wanted.names))
            and wanted.region in ("", environment.region)
            and wanted.owner in ("", environment.owner.team)
            and wanted.tier in ("", environment.tier)
            and (not wanted.parent or any(fnmatchcase(name, wanted.parent) for name in self.ancestors(environment.name)))
            and all(environment.labels.get(name) == value for name, value in wanted.labels.items())
        )

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Return the names above an environment, nearest first."""
        found: list[str] = []
        parent = self.get(name).parent
        while parent is not None:
            found.append(parent)
            parent = self.get(parent).parent
        return tuple(found)

    def descendants(self, name: str) -> tuple[str, ...]:
        """Return the names below an environment, sorted."""
        self.get(name)
        return tuple(sorted(other for other in self.environments if name in self.ancestors(other)))

    def resource_keys(self, name: str, exclusive: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the keys that a run on an environment holds, sorted, so that everybody takes them in the same order.

        `environment:NAME` of itself and its descendants, so a parent's run keeps its children's out and they keep out the parent's, while siblings
        leave each other alone; `shared:KEY` for what these share; and for each part that is needed `exclusive`ly (such as `cpu`) `PART:MACHINE`.
        """
        below = [self.get(each) for each in (name, *self.descendants(name))]
        keys = {f"environment:{each.name}" for each in below} | {f"shared:{key}" for each in below for key in each.shares}
        machines = {each.machine for each in below if each.machine is not None}
        return tuple(sorted(keys | {f"{part}:{machine}" for part in exclusive for machine in machines}))


def find_inventory(explicit: Path | None, home: Home) -> Path:
    """Return the inventory to use: the flag, `FRANGIBLE_INVENTORY`, that of `FRANGIBLE_CONFIG`, the nearest upwards, the lab's.

    The nearest is a `frangible-inventory.yaml`, or what a `frangible.yaml` names.

    Raises `UsageError` when there is none, or when the one that was asked for does not exist.
    """
    asked = explicit or (Path(named) if (named := os.environ.get("FRANGIBLE_INVENTORY")) else None)
    if asked is not None:
        if not asked.exists():
            source = "--inventory" if explicit else "FRANGIBLE_INVENTORY"
            raise UsageError(f"{source} names {asked}, which does not exist; give a YAML file or a folder of them")
        return asked
    estate, here = find_estate(), Path.cwd()
    configured = estate.inventory if estate else None
    if estate is not None and configured is not None and os.environ.get(VARIABLE):
        return configured
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).exists():
            return folder / FILE_NAME
        if estate is not None and configured is not None and folder == estate.folder:
            return configured
    if (home.lab / "inventory.yaml").exists():
        return home.lab / "inventory.yaml"
    raise UsageError(
        f"no inventory found: looked for {FILE_NAME} and for the inventory of a frangible.yaml in {here} and above, and for a lab in {home.lab}; "
        "give --inventory, set FRANGIBLE_INVENTORY, write a folder of your own with `frangible init`, or start the lab with `frangible lab up`"
    )


def load_inventory(path: Path) -> Inventory:
    """Load one YAML file, or a folder of them as one inventory; raise `InventoryError` with all problems of all files."""
    entries, problems = _read(path)
    by_name: dict[str, _Entry] = {}
    for entry in entries:
        first = by_name.setdefault(entry.name, entry)
        if entry.name and first is not entry:
            place = f"{first.document.file}:{first.document.line(first.loc)}"
            problems.append(entry.problem(("name",), f"the environment {entry.name!r} is already declared at {place}"))
    environments: dict[str, Environment] = {}
    for entry in entries:
        problems.extend(_parent_problems(entry, by_name))
        merged = _merge(entry, by_name)
        environment = merged.environment(problems)
        problems.extend(_placement_problems(merged))
        if environment is not None:
            environments[environment.name] = environment
    if problems:
        raise InventoryError(tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line or 0))))
    return Inventory(path, MappingProxyType(dict(sorted(environments.items()))))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One item of an `environments:` list as it stands in its file."""

    document: Document
    loc: Loc
    raw: Mapping[str, object]

    @property
    def name(self) -> str:
        name = self.raw.get("name")
        return name if isinstance(name, str) else ""

    @property
    def parent(self) -> str:
        parent = self.raw.get("parent")
        return parent if isinstance(parent, str) else ""

    def problem(self, loc: Loc, message: str, hint: str = "") -> Problem:
        return self.document.problem((*self.loc, *loc), message, hint)


@dataclass(frozen=True, slots=True)
class _Merged:
    """An entry with what it inherits, and which entry each value comes from."""

    entry: _Entry
    values: Mapping[str, object]
    sources: Mapping[Loc, _Entry]
    complete: bool
    """False when an ancestor is missing: then nothing can be said about what is not there."""

    def source(self, loc: Loc) -> _Entry:
        return self.sources.get(loc[:2]) or self.sources.get(loc[:1]) or self.entry

    def problem(self, loc: Loc, message: str, hint: str = "") -> Problem:
        return self.source(loc).problem(loc, message, hint)

    def environment(self, problems: list[Problem]) -> Environment | None:
        """Build the environment, or add to `problems` what prevents it."""
        base = Path(self.entry.document.file).parent
        try:
            return Environment.model_validate(self.values, by_alias=True, by_name=False, context={"file": True, "base": base})
        except ValidationError as error:
            for detail in details(error):
                if detail["type"] == "missing" and len(detail["loc"]) == 1 and not self.complete:
                    continue
                source = self.source(detail["loc"])
                problems.append(problem_of(detail, source.document, Environment, source.loc, HIDDEN))
        return None


def _read(path: Path) -> tuple[list[_Entry], list[Problem]]:
    entries: list[_Entry] = []
    problems: list[Problem] = []
    for file in yaml_files(path, InventoryError):
        try:
            document = read_document(file, InventoryError)
        except InventoryError as error:
            problems.extend(error.problems)
            continue
        problems.extend(_shape_problems(document))
        listed = document.data.get("environments") if isinstance(document.data, dict) else None
        for index, raw in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(raw, dict):
                entries.append(_Entry(document, ("environments", index), raw))
            else:
                problems.append(document.problem(("environments", index), "expected a mapping that begins with `name`, found something else"))
    return entries, problems


def _shape_problems(document: Document) -> Iterator[Problem]:
    if not isinstance(document.data, dict) or not isinstance(document.data.get("environments"), list) or not document.data["environments"]:
        yield document.problem((), "expected `environments:` with a list of at least one environment, found something else")
    if isinstance(document.data, dict):
        for key in document.data:
            if key != "environments":
                yield document.problem((str(key),), f"unknown key `{key}`", nearest(str(key), ("environments",)))


def _parent_problems(entry: _Entry, by_name: Mapping[str, _Entry]) -> Iterator[Problem]:
    if entry.parent and entry.parent not in by_name:
        yield entry.problem(("parent",), f"no environment is called {entry.parent!r}", nearest(entry.parent, by_name.keys() - {"", entry.name}))
    chain, _ = _chain(entry, by_name)
    last = chain[-1]
    if last.parent == entry.name and entry.name:
        circle = " → ".join([*(each.name for each in chain), entry.name])
        yield entry.problem(("parent",), f"the parents form a circle: {circle}", "remove one `parent`")


def _chain(entry: _Entry, by_name: Mapping[str, _Entry]) -> tuple[list[_Entry], bool]:
    """Return the entry and those above it, and whether that goes up to one without parent."""
    chain, seen = [entry], {entry.name}
    while chain[-1].parent:
        above = by_name.get(chain[-1].parent)
        if above is None or above.name in seen:
            return chain, False
        chain.append(above)
        seen.add(above.name)
    return chain, True


def _merge(entry: _Entry, by_name: Mapping[str, _Entry]) -> _Merged:
    """Apply inheritance: the nearest value of each key counts; labels are merged one by one."""
    chain, complete = _chain(entry, by_name)
    values: dict[str, object] = {}
    sources: dict[Loc, _Entry] = {}
    for each in reversed(chain):
        for key, value in each.raw.items():
            if key in OWN and each is not entry:
                continue
            inherited = values.get(key)
            if key == "labels" and isinstance(value, dict) and isinstance(inherited, dict):
                values[key] = inherited | value
                sources |= {(key, label): each for label in value}
            else:
                values[key] = value
                sources |= {(key, label): each for label in value} if key == "labels" and isinstance(value, dict) else {}
            sources[(key,)] = each
    return _Merged(entry, values, sources, complete)


class _Item(Declared):
    """What the placement checks need of a node, a service or a package."""

    model_config = ConfigDict(extra="ignore")

    name: str
    roles: tuple[str, ...] = ()
    role: str | None = None
    nodes: tuple[str, ...] = ()


def _items(merged: _Merged, kind: str) -> dict[int, _Item]:
    """Return the items of a list that can be read, by index: placement is checked even when the rest of an entry is wrong."""
    listed = merged.values.get(kind)
    found: dict[int, _Item] = {}
    for index, raw in enumerate(listed if isinstance(listed, list) else ()):
        with suppress(ValidationError):  # reported with the whole entry
            found[index] = _Item.model_validate(raw, by_alias=True, by_name=False)
    return found


def _placement_problems(merged: _Merged) -> Iterator[Problem]:
    items = {kind: _items(merged, kind) for kind in ("nodes", "services", "middleware")}
    nodes = [node.name for node in items["nodes"].values()]
    for kind, listed in items.items():
        for name, count in Counter(item.name for item in listed.values()).items():
            if count > 1:
                yield merged.problem((kind,), f"expected each name under `{kind}` once, found {name!r} {count} times")
    for kind in ("services", "middleware"):
        for index, item in items[kind].items():
            for at, name in enumerate(item.nodes):
                if name not in nodes:
                    message = f"{item.name} is on {name!r}, which is no node of {merged.entry.name}"
                    yield merged.problem((kind, index, "nodes", at), message, nearest(name, nodes))
    if _is_kubernetes(merged):
        yield from _told_by_the_cluster(merged)
    else:
        yield from _role_problems(merged, items)
        yield from _workload_problems(merged)
    yield from _observer_problems(merged, nodes)


def _is_kubernetes(merged: _Merged) -> bool:
    platform = merged.values.get("platform")
    return isinstance(platform, dict) and platform.get("kind") == "kubernetes"


def _told_by_the_cluster(merged: _Merged) -> Iterator[Problem]:
    """Where pods run changes by itself, so a place that is written down would soon be wrong."""
    for kind, keys in (("services", ("role", "nodes")), ("middleware", ("nodes",))):
        for index, key in _given(merged, kind, keys):
            message = f"on Kubernetes the cluster says where something runs: remove `{key}`"
            yield merged.problem((kind, index, key), message, "`workload: deployment/NAME` says what runs it")


def _workload_problems(merged: _Merged) -> Iterator[Problem]:
    for kind in ("services", "middleware"):
        for index, key in _given(merged, kind, ("workload",)):
            yield merged.problem((kind, index, key), "`workload` means nothing for the platform 'hosts': remove it", "`nodes` says where something runs")


def _given(merged: _Merged, kind: str, keys: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield index and key of each of these keys that an item of a list gives."""
    listed = merged.values.get(kind)
    for index, raw in enumerate(listed if isinstance(listed, list) else ()):
        yield from ((index, key) for key in keys if isinstance(raw, dict) and raw.get(key))


def _role_problems(merged: _Merged, items: Mapping[str, Mapping[int, _Item]]) -> Iterator[Problem]:
    roles = {role for node in items["nodes"].values() for role in node.roles}
    for index, service in items["services"].items():
        if service.role is not None and service.role not in roles:
            hint = nearest(service.role, roles) or "give a node this role"
            yield merged.problem(("services", index, "role"), f"no node of {merged.entry.name} has the role {service.role!r}", hint)


def _observer_problems(merged: _Merged, nodes: list[str]) -> Iterator[Problem]:
    if "outside" in nodes:
        yield merged.problem(("nodes",), "no node may be called 'outside': `runs-on: outside` would be ambiguous")
    prometheus = merged.values.get("prometheus")
    runs_on = prometheus.get("runs-on", "outside") if isinstance(prometheus, dict) else "outside"
    if _is_kubernetes(merged):
        if isinstance(runs_on, str) and "/" in runs_on and not re.fullmatch(WORKLOAD, runs_on):
            message = f"expected `outside`, a node, or a workload such as `monitoring/deployment/prometheus`, found {runs_on!r}"
            yield merged.problem(("prometheus", "runs-on"), message)
    elif isinstance(runs_on, str) and runs_on != "outside" and runs_on not in nodes:
        yield merged.problem(
            ("prometheus", "runs-on"), f"no node of {merged.entry.name or 'this environment'} is called that", nearest(runs_on, [*nodes, "outside"])
        )
