"""The journal: which environments proved fragile, to what, and since which change.

CONTRACT (store.py; models.py has the tables; migrations/ the alembic scripts, shipped in the wheel)
@dataclass(frozen=True) class RunRecord: id, experiment (name), experiment_title, experiment_digest (sha256 of the file), environment, region, tier, owner, note, ticket, actor (user@host),
   supervisor: ProcessIdentity, started_at, ended_at | None (epoch seconds), state ("started" | "finished"), outcome (str | None), reasons (tuple[str, ...]), ending, keys (tuple[str, ...]),
   windows: tuple[Window, ...], indicators: tuple[IndicatorVerdict, ...], proofs: tuple[FaultProof, ...], fingerprint: Mapping[str, str], facts: Mapping[str, str] (guards not configured, skew, ...),
   recovered_after: float | None, timings: Mapping[str, float], chaos_journal: JSON | None, series: JSON | None (a compact per-block series per indicator for the plot in `explain`)
class Journal: open(url) (schema at first use; alembic imported only when not at head), start(record), finish(record), get(run_id or unique prefix), runs(environment=None, experiment=None, outcome=None, limit=50),
   orphans() -> runs still `started`; close(). Any database error becomes JournalError naming the file and what to do. finish is idempotent.
record_to_json / record_from_json: the export format, also what a run spools to its folder (`record.json`) when the journal cannot be written.
"""
