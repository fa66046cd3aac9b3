"""Leases with their keys and steps, and stops."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATES = "state IN ('intended', 'injecting', 'injected', 'reverting', 'reverted', 'revert-failed')"


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "leases",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("fault_module", sa.Text, nullable=False),
        sa.Column("fault_version", sa.Integer, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("target_kind", sa.Text, nullable=False),
        sa.Column("target_name", sa.Text, nullable=False),
        sa.Column("prior", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("injector_host", sa.Text, nullable=False),
        sa.Column("injector_boot", sa.Text, nullable=False),
        sa.Column("injector_pid", sa.Integer, nullable=False),
        sa.Column("injector_start", sa.BigInteger, nullable=False),
        sa.Column("claimed_by_host", sa.Text),
        sa.Column("claimed_by_boot", sa.Text),
        sa.Column("claimed_by_pid", sa.Integer),
        sa.Column("claimed_by_start", sa.BigInteger),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.CheckConstraint(STATES, name="leases_state"),
    )
    op.create_index("leases_by_run", "leases", ["run_id"])
    op.create_index("leases_by_state", "leases", ["state", "environment"])
    op.create_table(
        "lease_keys",
        sa.Column("lease_id", sa.Text, sa.ForeignKey("leases.id"), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
    )
    op.create_index("lease_keys_by_key", "lease_keys", ["key"])
    op.create_table(
        "lease_steps",
        sa.Column("lease_id", sa.Text, sa.ForeignKey("leases.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("by_host", sa.Text, nullable=False),
        sa.Column("by_boot", sa.Text, nullable=False),
        sa.Column("by_pid", sa.Integer, nullable=False),
        sa.Column("by_start", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.CheckConstraint(STATES, name="lease_steps_state"),
    )
    op.create_table(
        "stops",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Refuse: the ledger says what is broken right now, and dropping it would forget that."""
    raise NotImplementedError("the ledger's first schema is never taken back")
