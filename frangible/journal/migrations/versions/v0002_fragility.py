"""Counts of each environment and kind of fault, so that the table of who is fragile to what needs no look at the runs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTED = """
INSERT INTO fragility (environment, fault, held, deviated, inconclusive, last_run, last_at, last_outcome, mean, low, high)
SELECT environment, fault, SUM(held), SUM(deviated), SUM(1 - held - deviated),
       MAX(CASE WHEN newest = 1 THEN id END), MAX(started_at), MAX(CASE WHEN newest = 1 THEN outcome END), 0, 0, 0
FROM (
  SELECT runs.environment, kinds.fault, runs.id, runs.started_at, runs.outcome,
         CASE WHEN runs.outcome = 'held' THEN 1 ELSE 0 END AS held,
         CASE WHEN runs.outcome = 'deviated' THEN 1 ELSE 0 END AS deviated,
         ROW_NUMBER() OVER (PARTITION BY runs.environment, kinds.fault ORDER BY runs.started_at DESC, runs.id DESC) AS newest
  FROM (SELECT DISTINCT run_id, fault FROM run_proofs WHERE injected = 1 AND fault <> 'placebo') AS kinds
  JOIN runs ON runs.id = kinds.run_id
  WHERE runs.state = 'finished'
) AS evidence
GROUP BY environment, fault
"""


def upgrade() -> None:
    """Make the table and count the runs that are there."""
    op.create_table(
        "fragility",
        *_text("environment", "fault"),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("held", "deviated", "inconclusive")),
        *_text("last_run"),
        sa.Column("last_at", sa.Double, nullable=False),
        *_text("last_outcome"),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("mean", "low", "high")),
        sa.PrimaryKeyConstraint("environment", "fault", name="pk_fragility"),
    )
    op.execute(COUNTED)
    _compute_intervals()


def downgrade() -> None:
    """Drop the table; it can be made again from the runs."""
    op.drop_table("fragility")


def _compute_intervals() -> None:
    """Jeffreys' interval of each row, as `frangible.fragility` computes it for new runs."""
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT environment, fault, held, deviated FROM fragility")).all()
    if not rows:
        return  # a new journal is made without numerics
    from scipy.special import betaincinv

    values: list[dict[str, Any]] = [
        {
            "environment": row.environment,
            "fault": row.fault,
            "mean": (row.held + 0.5) / (row.held + row.deviated + 1),
            "low": float(betaincinv(row.held + 0.5, row.deviated + 0.5, 0.025)),
            "high": float(betaincinv(row.held + 0.5, row.deviated + 0.5, 0.975)),
        }
        for row in rows
    ]
    statement = "UPDATE fragility SET mean = :mean, low = :low, high = :high WHERE environment = :environment AND fault = :fault"
    connection.execute(sa.text(statement), values)


def _words() -> sa.Text:
    """Bytewise order on PostgreSQL, as SQLite has it."""
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _words(), nullable=False) for name in names]
