"""YAML files with line numbers: what pydantic finds wrong becomes problems that name file, line and the nearest valid key."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAliasType, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from frangible.errors import InputError, Problem

__all__ = ["Declared", "Document", "Loc", "dotted", "kebab", "nearest", "problems_of", "read_document", "yaml_files"]

type Loc = tuple[str | int, ...]

BASE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def kebab(name: str) -> str:
    """Turn a Python field name into the key that files use."""
    return name.rstrip("_").replace("_", "-")


class Declared(BaseModel):
    """A part of a declared file: frozen, kebab-case keys, no unknown keys, and never an input value in a pydantic error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=kebab,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        defer_build=True,  # a command builds the validators of the few parts that it reads, not of all that it imports
    )


class PlainLoader(BASE_LOADER):  # type: ignore[misc]
    """YAML in which only `true` and `false` are booleans: `on:` and `NO` stay text, and nothing becomes a date."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?:\.[0-9]*)?[eE][-+][0-9]+)$", "-+.0123456789"),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("merge", r"^<<$", "<"),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file: its bytes, its data, and the line of each place in it."""

    file: str
    content: bytes
    data: Any
    root: yaml.Node | None

    def line(self, loc: Loc) -> int | None:
        """Return the 1-based line of a place, or of the closest place above it that the file has."""
        if self.root is None:
            return None
        node, line = self.root, self.root.start_mark.line + 1
        for step in loc:
            found = _child(node, step)
            if found is not None:
                node, line = found
        return line

    def has(self, loc: Loc) -> Loc:
        """Return the part of `loc` that the file really has: pydantic adds the tags of unions."""
        node, kept = self.root, []
        for step in loc:
            found = _child(node, step) if node is not None else None
            if found is not None:
                node = found[0]
                kept.append(step)
        return tuple(kept)

    def problem(self, loc: Loc, message: str, hint: str = "") -> Problem:
        """Build a problem about one place of this file."""
        return Problem(self.file, self.line(loc), dotted(loc), message, hint)


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # a merged key comes first, the mapping's own one last
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        found = node.value[step]
        return found, found.start_mark.line + 1
    return None


def dotted(loc: Loc) -> str:
    """Render `("nodes", 2, "cpus")` as `nodes[2].cpus`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def read_document(path: Path, error: type[InputError], loader: type = PlainLoader) -> Document:
    """Parse one YAML file; raise `error` with what is wrong with it as YAML (syntax, duplicate keys, encoding)."""
    file = str(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as cause:
        raise error((Problem(file, None, "", f"cannot be read: {cause.strerror}"),)) from cause
    except UnicodeDecodeError as cause:
        raise error((Problem(file, None, "", "expected UTF-8 text, found other bytes"),)) from cause
    parser = loader(text)
    try:
        root = parser.get_single_node()
        problems = tuple(_structure(file, root))
        if problems:
            raise error(problems)
        data = None if root is None else parser.construct_document(root)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        what = getattr(cause, "problem", None) or "characters that YAML does not allow"
        raise error((Problem(file, mark.line + 1 if mark else None, "", f"not valid YAML: {what}"),)) from cause
    except ValueError as cause:
        raise error((Problem(file, None, "", "not valid YAML: a value cannot be represented"),)) from cause
    finally:
        parser.dispose()
    return Document(file, content, data, root)


def _structure(file: str, node: yaml.Node | None, loc: Loc = (), above: tuple[int, ...] = ()) -> Iterator[Problem]:
    """Yield keys that a mapping has twice, and aliases that contain themselves."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return
    if id(node) in above:
        yield Problem(file, node.start_mark.line + 1, dotted(loc), "this alias contains itself")
        return
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _structure(file, item, (*loc, index), above)
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)
        line = key.start_mark.line + 1
        if name in first and name != "<<":
            yield Problem(file, line, dotted((*loc, name)), f"the key `{name}` was already given in line {first[name]}")
        first.setdefault(name, line)
        yield from _structure(file, value, (*loc, name), above)


def yaml_files(path: Path, error: type[InputError]) -> tuple[Path, ...]:
    """Return the file itself, or the YAML files of a folder in the order of their names."""
    if not path.is_dir():
        return (path,)
    found = tuple(sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file()))
    if not found:
        raise error((Problem(str(path), None, "", "expected YAML files in this folder, found none"),))
    return found


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `did you mean …?`, or the valid names where none is close; empty when there are none."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name.replace("_", "-"), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"valid: {', '.join(names)}" if names else ""


def problems_of(error: ValidationError, document: Document, model: type[BaseModel], hidden: frozenset[str] = frozenset()) -> tuple[Problem, ...]:
    """Turn what pydantic found in a whole document into problems; values below keys in `hidden` are never shown."""
    return tuple(problem_of(detail, document, model, (), hidden) for detail in details(error))


def details(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's errors, without those that only say that a list's items, reported themselves, were left out."""
    return [detail for detail in error.errors(include_url=False) if not (detail["type"] == "too_short" and detail["input"])]


def problem_of(detail: ErrorDetails, document: Document, model: type[BaseModel], prefix: Loc, hidden: frozenset[str]) -> Problem:
    """Turn one of pydantic's errors into a problem; `prefix` is where in the document the model begins."""
    loc = detail["loc"]
    kind = detail["type"]
    secret = not hidden.isdisjoint(str(step) for step in loc)
    where = document.has((*prefix, *loc))
    if kind == "extra_forbidden":
        key = str(loc[-1])
        return document.problem(where, f"unknown key `{key}`", nearest(key, _keys(_model_at(model, loc[:-1]))))
    if kind == "missing":
        key = str(loc[-1])
        return document.problem(where, f"`{key}` is missing", _description(_model_at(model, loc[:-1]), key))
    return document.problem(where, _message(detail, secret), _choice_hint(detail, secret))


def _message(detail: ErrorDetails, secret: bool) -> str:
    if detail["type"] == "value_error":
        message = str(detail.get("ctx", {}).get("error", detail["msg"]))
        return message.replace(repr(detail["input"]), "another value (not shown)") if secret else message
    if detail["type"] == "string_pattern_mismatch":
        return f"expected text of the form {detail.get('ctx', {}).get('pattern')}, found {'other text' if secret else _shown(detail['input'])}"
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ").partition(", unable to")[0]
    if detail["type"] == "string_type" and not isinstance(detail["input"], str):
        expected = "text (put it in quotes)" if isinstance(detail["input"], int | float) else "text"
    if detail["type"] == "path_type":
        expected = "a path"
    found = f"a {_type_name(detail['input'])}" if secret else _shown(detail["input"])
    return f"expected {expected[:1].lower()}{expected[1:]}, found {found}"


def _choice_hint(detail: ErrorDetails, secret: bool) -> str:
    if detail["type"] != "literal_error" or secret or not isinstance(detail["input"], str):
        return ""
    close = difflib.get_close_matches(detail["input"].lower(), re.findall(r"'([^']*)'", detail.get("ctx", {}).get("expected", "")), n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def _type_name(value: object) -> str:
    names: Mapping[type, str] = {dict: "mapping", list: "list", str: "text", bool: "true/false", int: "number", float: "number", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "…'"
    return f"a {_type_name(value)}"


def _keys(models: tuple[type[BaseModel], ...]) -> set[str]:
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _description(models: tuple[type[BaseModel], ...], key: str) -> str:
    for model in models:
        for name, field in model.model_fields.items():
            if key in (field.alias, name):
                return field.description or ""
    return ""


def _model_at(model: type[BaseModel], loc: Loc) -> tuple[type[BaseModel], ...]:
    """Return the models that may stand at a place; steps that are no field (indexes, union tags) stay where they are."""
    models: tuple[type[BaseModel], ...] = (model,)
    for step in loc:
        inner = tuple(
            found
            for candidate in models
            for name, field in candidate.model_fields.items()
            if step in (field.alias, name)
            for found in _models_in(field.annotation)
        )
        tagged = tuple(candidate for candidate in models if step in _tags(candidate))
        models = inner or tagged or models
    return models


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind is not None else ()


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield every model named in a type, however deeply it is wrapped in unions, tuples and aliases."""
    if isinstance(annotation, TypeAliasType):
        yield from _models_in(annotation.__value__)
    elif isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models_in(get_args(annotation)[0])
    else:
        for argument in get_args(annotation):
            yield from _models_in(argument)
