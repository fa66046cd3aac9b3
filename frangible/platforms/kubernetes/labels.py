"""What every object that a run creates in a cluster carries, so that garbage is found by label. Pure."""

import hashlib
import re
from collections.abc import Mapping

__all__ = ["ENVIRONMENT", "LEASE", "MANAGED", "NODE", "RUN", "labels", "object_name", "value"]

MANAGED = ("app.kubernetes.io/managed-by", "frangible")
RUN = "frangible.io/run"
LEASE = "frangible.io/lease"
ENVIRONMENT = "frangible.io/environment"
NODE = "frangible.io/node"
LONGEST_VALUE = 63
LONGEST_NAME = 253
HASHED = 10


def labels(**more: str) -> Mapping[str, str]:
    """Return the labels of an object: that it is ours, and `run`, `lease`, `environment`, `node` as far as they are given."""
    return dict([MANAGED]) | {f"frangible.io/{key}": value(text) for key, text in more.items() if text}


def value(text: str) -> str:
    """Return a text as a label's value: as it is where it may be one, else cut and told apart by a hash.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    """
    if len(text) <= LONGEST_VALUE and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", text):
        return text
    return _hashed(re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("-._"), text, LONGEST_VALUE)


def object_name(prefix: str, text: str) -> str:
    """Return the name of the object that stands for a text: the same for the same text, another for every other.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
    """
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text) and len(prefix) + len(text) <= LONGEST_NAME:
        return f"{prefix}{text}"
    return prefix + _hashed(re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"), text, LONGEST_NAME - len(prefix))


def _hashed(readable: str, text: str, longest: int) -> str:
    """Cut what can be read and add a hash of the whole; the dot keeps it apart from every text that needs no hash."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASHED]
    return f"{readable[: longest - HASHED - 1].rstrip('-._')}.{digest}".lstrip(".")
