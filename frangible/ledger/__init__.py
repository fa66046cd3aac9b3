"""Leases: the durable record of every fault, written before it is injected, and their state machine.

`Lease` and its companions import nothing heavy. `Ledger` brings SQLAlchemy with it, so a light caller names it in annotations only and
imports it where it opens one.
"""

from typing import TYPE_CHECKING

from frangible.ledger.lease import EVERYTHING, Lease, LeaseState, Step, Stop

if TYPE_CHECKING:
    from frangible.ledger.store import Ledger

__all__ = ["EVERYTHING", "Lease", "LeaseState", "Ledger", "Step", "Stop"]


def __getattr__(name: str) -> object:
    """Import `Ledger` when somebody asks for it (PEP 562)."""
    if name == "Ledger":
        from frangible.ledger.store import Ledger

        return Ledger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
