"""Runs and their parts."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table and index of the first version."""
    _runs()
    _parts()
    _indexes()


def downgrade() -> None:
    """Drop everything that `upgrade` made."""
    for table in ("run_artifacts", "run_proofs", "run_indicators", "run_windows", "run_keys", "runs", "run_fingerprints"):
        op.drop_table(table)


def _words() -> sa.Text:
    """Bytewise order on PostgreSQL, as SQLite has it."""
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _words(), nullable=False) for name in names]


def _runs() -> None:
    op.create_table("run_fingerprints", *_text("digest", "facts"), sa.PrimaryKeyConstraint("digest", name="pk_run_fingerprints"))
    op.create_table(
        "runs",
        *_text("id", "experiment", "experiment_title", "experiment_digest", "environment", "region", "tier", "owner", "note", "ticket", "actor"),
        *_text("supervisor_host", "supervisor_boot"),
        sa.Column("supervisor_pid", sa.Integer, nullable=False),
        sa.Column("supervisor_start", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        *_text("state"),
        sa.Column("outcome", _words()),
        *_text("ending", "reasons", "facts", "timings"),
        sa.Column("recovered_after", sa.Double),
        *_text("fingerprint"),
        sa.Column("content", _words()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.ForeignKeyConstraint(["fingerprint"], ["run_fingerprints.digest"], name="fk_runs_fingerprint"),
    )


def _part(table: str, key: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        table,
        *_text("run_id"),
        *columns,
        sa.PrimaryKeyConstraint("run_id", key, name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=f"fk_{table}_run_id"),
    )


def _parts() -> None:
    _part("run_keys", "key", *_text("key"), sa.Column("position", sa.Integer, nullable=False))
    _part("run_windows", "position", _position(), *_text("name"), *_doubles("starts_at", "ends_at"))
    _part(
        "run_indicators",
        "position",
        _position(),
        *_text("indicator", "window", "outcome", "reason", "bound"),
        *_doubles("observed", "low", "high", "good", "total"),
        sa.Column("blocks", sa.Integer, nullable=False),
        *_doubles("design_effect"),
    )
    _part(
        "run_proofs",
        "position",
        _position(),
        *_text("lease", "fault", "target"),
        sa.Column("injected", sa.Integer, nullable=False),
        *_doubles("proven_share", "least_proven"),
        sa.Column("reverted", sa.Integer, nullable=False),
        *_text("detail"),
    )
    _part("run_artifacts", "kind", *_text("kind", "encoding"), sa.Column("content", sa.LargeBinary, nullable=False))


def _position() -> sa.Column[int]:
    return sa.Column("position", sa.Integer, nullable=False)


def _doubles(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double) for name in names]


def _indexes() -> None:
    for table, *columns in (
        ("runs", "environment", "experiment", "started_at"),
        ("runs", "environment", "started_at"),
        ("runs", "experiment", "started_at"),
        ("runs", "outcome", "started_at"),
        ("runs", "started_at"),
        ("run_keys", "key"),
        ("run_indicators", "indicator", "outcome"),
        ("run_proofs", "fault"),
    ):
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    unfinished = sa.text("state = 'started'")
    op.create_index("ix_runs_open", "runs", ["started_at"], sqlite_where=unfinished, postgresql_where=unfinished)
