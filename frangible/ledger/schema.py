"""The ledger's tables; the migrations create the same ones, which a test compares."""

from pathlib import Path

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Double, ForeignKey, Index, Integer, MetaData, Table, Text

from frangible.database import Schema
from frangible.errors import LedgerError
from frangible.ledger.lease import LeaseState

__all__ = ["LEDGER", "lease_keys", "lease_steps", "leases", "metadata", "stops"]

LEDGER = Schema(
    what="ledger",
    variable="FRANGIBLE_LEDGER",
    error=LedgerError,
    migrations=Path(__file__).parent / "migrations",
    head="0001",
    if_damaged="move it aside and run `frangible recover`, which finds the copies of open leases in the targets",
)

metadata = MetaData()


def _process(prefix: str, *, nullable: bool = False) -> tuple[Column[str], Column[str], Column[int], Column[int]]:
    """Columns of one `ProcessIdentity`."""
    return (
        Column(f"{prefix}_host", Text, nullable=nullable),
        Column(f"{prefix}_boot", Text, nullable=nullable),
        Column(f"{prefix}_pid", Integer, nullable=nullable),
        Column(f"{prefix}_start", BigInteger, nullable=nullable),
    )


_STATES = ", ".join(f"'{state}'" for state in LeaseState)

leases = Table(
    "leases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("fault", Text, nullable=False),
    Column("fault_module", Text, nullable=False),
    Column("fault_version", Integer, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_name", Text, nullable=False),
    Column("prior", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    *_process("injector"),
    *_process("claimed_by", nullable=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("error", Text, nullable=False),
    CheckConstraint(f"state IN ({_STATES})", name="leases_state"),
    Index("leases_by_run", "run_id"),
    Index("leases_by_state", "state", "environment"),
)

lease_keys = Table(
    "lease_keys",
    metadata,
    Column("lease_id", ForeignKey("leases.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Index("lease_keys_by_key", "key"),
)

lease_steps = Table(
    "lease_steps",
    metadata,
    Column("lease_id", ForeignKey("leases.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    *_process("by"),
    Column("at", Double, nullable=False),
    Column("detail", Text, nullable=False),
    CheckConstraint(f"state IN ({_STATES})", name="lease_steps_state"),
)

stops = Table(
    "stops",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Double, nullable=False),
)
