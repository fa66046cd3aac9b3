"""Templates of metric selectors and PromQL: `${labels}` becomes an environment's label matchers, escaped; nothing else is filled in."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["LABELS", "check_label", "check_query", "check_selector", "escape", "render"]

LABELS = "${labels}"
METRIC = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*"
STRING = r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'|`[^`]*`"
MATCHER = rf"\s*(?:(?P<fill>\$\{{labels\}})|(?P<label>{LABEL})\s*(?P<operator>=~|!~|!=|=)\s*(?P<text>{STRING}))\s*"
TOKEN = re.compile(
    rf"(?P<space>\s+|\#[^\n]*)|(?P<string>{STRING})|(?P<fill>\$\{{labels\}})|(?P<number>[0-9.][0-9a-zA-Z_.]*(?:(?<=[eE])[-+][0-9]+)?)"
    rf"|(?P<name>{METRIC})|(?P<symbol>[-+*/%^=!<>~(){{}}\[\],@:])"
)
GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
WORDS = frozenset({"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan"}) | GROUPING


@dataclass(frozen=True, slots=True)
class Token:
    """One lexical piece of a query."""

    kind: str
    text: str


def escape(value: str) -> str:
    r"""Escape a label value for a double-quoted PromQL string: backslash, quote and newline (Go's string literals)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def check_label(name: str, value: str) -> None:
    """Raise `ValueError` unless Prometheus can match this label to this value."""
    if not re.fullmatch(LABEL, name, re.ASCII):
        raise ValueError(f"expected a Prometheus label name (letters, digits, underscores), found {name!r}")
    if name.startswith("__"):
        raise ValueError(f"the label {name!r} cannot be used: names that begin with two underscores are Prometheus's own")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the value of label {name!r} is not valid Unicode text") from error


def render(template: str, labels: Mapping[str, str]) -> str:
    """Return the template with `${labels}` replaced by matchers; the template must have passed `check_selector` or `check_query`."""
    for name, value in labels.items():
        check_label(name, value)
    matchers = ",".join(f'{name}="{escape(labels[name])}"' for name in sorted(labels))
    if matchers:
        return template.replace(LABELS, matchers)
    return re.sub(r"\$\{labels\}\s*,?", "", template)  # PromQL allows a trailing comma, never a leading one


def check_selector(template: str) -> str:
    """Return a plain metric selector with `${labels}` in it, unchanged; raise `ValueError` for anything else."""
    shape = re.fullmatch(rf"\s*{METRIC}\s*\{{(?P<matchers>.*)\}}\s*", template, re.DOTALL | re.ASCII)
    if shape is None:
        raise ValueError(f"expected a plain metric selector such as name{{{LABELS}}}, without functions or ranges, found {template!r}")
    _check_matchers(shape["matchers"], template)
    return template.strip()


def _check_matchers(inside: str, template: str) -> None:
    fills, at = 0, 0
    while inside[at:].strip():
        found = re.compile(rf"{MATCHER}(?:,|$)", re.ASCII).match(inside, at)
        if found is None:
            raise ValueError(f'expected matchers such as name="value" separated by commas in {template!r}, found {inside[at:].strip()!r}')
        if found["label"] == "__name__":
            raise ValueError(f"the metric's name stands before the braces in {template!r}, not in a matcher for __name__")
        if LABELS in (found["text"] or ""):
            raise ValueError(f"{LABELS} stands inside a quoted text in {template!r}; it stands for whole matchers")
        fills += found["fill"] is not None
        at = found.end()
    if fills != 1:
        raise ValueError(f"expected {LABELS} exactly once inside the braces of {template!r}, found it {fills} times")


def check_query(template: str) -> str:
    """Return PromQL in which each selector has `${labels}`, unchanged; raise `ValueError` for anything else.

    This is no PromQL parser: it finds the selectors, and leaves the rest to Prometheus.
    """
    tokens = tuple(_tokens(template))
    selectors, at = 0, 0
    while at < len(tokens):
        at, selector = _step(tokens, at, template)
        selectors += selector
    if not selectors:
        raise ValueError(f"expected at least one selector such as name{{{LABELS}}} in {template!r}, found none")
    return template.strip()


def _tokens(template: str) -> Iterator[Token]:
    at = 0
    while at < len(template):
        found = TOKEN.match(template, at)
        if found is None:
            raise ValueError(f"expected PromQL, found {template[at : at + 20]!r} in {template!r}; only {LABELS} is filled in")
        kind = found.lastgroup or ""
        if kind == "string" and LABELS in found.group():
            raise ValueError(f"{LABELS} stands inside a quoted text in {template!r}; it stands for whole matchers")
        if kind != "space":
            yield Token(kind, found.group())
        at = found.end()


def _step(tokens: tuple[Token, ...], at: int, template: str) -> tuple[int, bool]:
    """Return where the next thing begins, and whether the one just passed was a selector."""
    token = tokens[at]
    after = tokens[at + 1].text if at + 1 < len(tokens) else ""
    if token.text == "{":
        return _closing(tokens, at, template), True
    if token.text == "[":
        return _skip(tokens, at, "]", template), False
    if token.kind == "fill":
        raise ValueError(f"{LABELS} stands outside the braces of a selector in {template!r}")
    if token.kind != "name":
        return at + 1, False
    word = token.text.lower()
    if word in GROUPING:
        return (_skip(tokens, at, ")", template) if after == "(" else at + 1), False
    if word in WORDS or after == "(" or after.lower() in ("by", "without"):
        return at + 1, False
    if after != "{":
        raise ValueError(f"the selector {token.text!r} in {template!r} has no {{{LABELS}}}: it would match every environment")
    return _closing(tokens, at + 1, template), True


def _skip(tokens: tuple[Token, ...], at: int, closing: str, template: str) -> int:
    for index in range(at, len(tokens)):
        if tokens[index].text == closing:
            return index + 1
    raise ValueError(f"expected {closing!r} after {tokens[at].text!r} in {template!r}, found the end")


def _closing(tokens: tuple[Token, ...], at: int, template: str) -> int:
    """Return what follows a selector's braces; they must hold the labels exactly once."""
    end = _skip(tokens, at, "}", template)
    fills = sum(token.kind == "fill" for token in tokens[at:end])
    if fills != 1:
        raise ValueError(f"expected {LABELS} exactly once in each selector of {template!r}, found {fills} in one of them")
    return end
