"""Tables of the journal.

Everything that questions are asked of has a column; what is only read back whole (Chaos Toolkit's journal, series) is compressed
JSON in `run_artifacts`. Lists keep their order in `position`, which is also their key: nothing that a run recorded can clash.
Measured numbers may be null where the record has NaN, since SQLite keeps NaN as null.
"""

from sqlalchemy import BigInteger, Column, Dialect, Double, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, TypeDecorator, text
from sqlalchemy.types import TypeEngine

__all__ = ["artifacts", "fingerprints", "fragility", "indicators", "keys", "metadata", "proofs", "runs", "windows"]

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Words(TypeDecorator[str]):
    """Text of any origin. What databases refuse (NUL, lone surrogates from file names) is replaced: a run must not be lost over it.

    Bytewise order on PostgreSQL as on SQLite, so that ids sort, and a prefix is a range of the index, on both.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return the column's type on this database."""
        return dialect.type_descriptor(Text(collation="C") if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Replace what cannot be stored."""
        return None if value is None else value.replace("\0", "\ufffd").encode(errors="replace").decode()


def _run_id() -> Column[str]:
    return Column("run_id", Words, ForeignKey("runs.id"), primary_key=True)


def _position() -> Column[int]:
    return Column("position", Integer, primary_key=True, autoincrement=False)


def _text(name: str) -> Column[str]:
    return Column(name, Words, nullable=False)


fingerprints = Table(
    "run_fingerprints",
    metadata,
    Column("digest", Words, primary_key=True),
    _text("facts"),
)
"""What environments were made of, each once: digest to JSON object."""

runs = Table(
    "runs",
    metadata,
    Column("id", Words, primary_key=True),
    _text("experiment"),
    _text("experiment_title"),
    _text("experiment_digest"),
    _text("environment"),
    _text("region"),
    _text("tier"),
    _text("owner"),
    _text("note"),
    _text("ticket"),
    _text("actor"),
    _text("supervisor_host"),
    _text("supervisor_boot"),
    Column("supervisor_pid", Integer, nullable=False),
    Column("supervisor_start", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    _text("state"),
    Column("outcome", Words),
    _text("ending"),
    _text("reasons"),
    _text("facts"),
    _text("timings"),
    Column("recovered_after", Double),
    Column("fingerprint", Text, ForeignKey("run_fingerprints.digest"), nullable=False),
    Column("content", Words),
    Index("ix_runs_environment_experiment_started_at", "environment", "experiment", "started_at"),
    Index("ix_runs_environment_started_at", "environment", "started_at"),
    Index("ix_runs_experiment_started_at", "experiment", "started_at"),
    Index("ix_runs_outcome_started_at", "outcome", "started_at"),
    Index("ix_runs_started_at", "started_at"),
    Index("ix_runs_open", "started_at", sqlite_where=text("state = 'started'")),  # on PostgreSQL too: see the migration; here it would import that dialect
)
"""One row a run. `reasons`, `facts`, `timings`: JSON. `content`: SHA-256 of the final record, null until there is one."""

keys = Table(
    "run_keys", metadata, _run_id(), Column("key", Words, primary_key=True), Column("position", Integer, nullable=False), Index("ix_run_keys_key", "key")
)
"""Resource keys that a run held."""

windows = Table(
    "run_windows",
    metadata,
    _run_id(),
    _position(),
    _text("name"),
    Column("starts_at", Double),
    Column("ends_at", Double),
)

indicators = Table(
    "run_indicators",
    metadata,
    _run_id(),
    _position(),
    _text("indicator"),
    _text("window"),
    _text("outcome"),
    _text("reason"),
    _text("bound"),
    Column("observed", Double),
    Column("low", Double),
    Column("high", Double),
    Column("good", Double),
    Column("total", Double),
    Column("blocks", Integer, nullable=False),
    Column("design_effect", Double),
    Index("ix_run_indicators_indicator_outcome", "indicator", "outcome"),
)
"""One row an indicator and window; see `IndicatorVerdict`."""

proofs = Table(
    "run_proofs",
    metadata,
    _run_id(),
    _position(),
    _text("lease"),
    _text("fault"),
    _text("target"),
    Column("injected", Integer, nullable=False),
    Column("proven_share", Double),
    Column("least_proven", Double),
    Column("reverted", Integer, nullable=False),
    _text("detail"),
    Index("ix_run_proofs_fault", "fault"),
)
"""One row a fault; see `FaultProof`. `injected` and `reverted` are 0 or 1."""

artifacts = Table(
    "run_artifacts", metadata, _run_id(), Column("kind", Words, primary_key=True), _text("encoding"), Column("content", LargeBinary, nullable=False)
)
"""`kind` is `chaos_journal` or `series`; `encoding` is `json+zlib`."""

fragility = Table(
    "fragility",
    metadata,
    Column("environment", Words, primary_key=True),
    Column("fault", Words, primary_key=True),
    Column("held", Integer, nullable=False),
    Column("deviated", Integer, nullable=False),
    Column("inconclusive", Integer, nullable=False),
    _text("last_run"),
    Column("last_at", Double, nullable=False),
    _text("last_outcome"),
    Column("mean", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("high", Double, nullable=False),
)
"""One row an environment and kind of fault, kept in the transaction that finishes a run; see `frangible.fragility`."""
