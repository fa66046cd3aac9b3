"""The journal: which environments proved fragile, to what, and since which change.

`RunRecord` and its JSON form come without a database library; `Journal` brings SQLAlchemy when it is asked for.
"""

from typing import TYPE_CHECKING

from frangible.journal.record import RunRecord, RunState, record_from_json, record_to_json

if TYPE_CHECKING:
    from frangible.journal.store import Journal

__all__ = ["Journal", "RunRecord", "RunState", "record_from_json", "record_to_json"]


def __getattr__(name: str) -> object:
    if name == "Journal":
        from frangible.journal.store import Journal

        return Journal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
