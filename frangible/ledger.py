"""Leases: the durable record of every fault, written before it is injected, and their state machine.

CONTRACT
class LeaseState(StrEnum): INTENDED, INJECTING, INJECTED, REVERTING, REVERTED, REVERT_FAILED  (values "intended", "injecting", ... "revert-failed")
  open states: all but REVERTED.  (an INTENDED lease that was never injected is closed by claiming and reverting it, which finds nothing to do)
@dataclass(frozen=True) class Lease:
  id, run_id, environment, fault (kind), fault_module, fault_version, parameters: dict[str, JsonValue], target: Target, prior: Prior, keys: tuple[str, ...],
  state, epoch: int, injector: ProcessIdentity, claimed_by: ProcessIdentity | None, created_at, expires_at, updated_at: float (the store's clock, seconds since epoch), error: str
  to_json()/from_json(): text for the copy in the target, and back (LedgerError on anything else)
@dataclass(frozen=True) class Stop: scope ("*" is the halt, else a run id), by, reason, since
class Ledger:
  open(url: str) -> Ledger (classmethod; creates the schema at first use, alembic imported only when the schema is not at head; LedgerError names the file and what to do)
  store_time() -> float                          the store's clock
  intend(lease: Lease) -> Lease                  insert, durable (fsync) before it returns; refuses when a stop for '*' or the run is set
  begin_injecting(lease_id) -> Lease             CAS intended -> injecting, only while nobody has claimed it; LedgerError otherwise
  mark_injected(lease_id) -> Lease               CAS injecting -> injected
  renew(lease_id, expires_at)                    while nobody has claimed it
  claim(lease_id, claimer) -> Lease              CAS any open state -> reverting, epoch + 1; two claimers: the later one wins, the earlier one's epoch is stale
  mark_reverted(lease_id, epoch) / mark_revert_failed(lease_id, epoch, error)    CAS on epoch; LedgerError('superseded ...') when stale
  get(lease_id) -> Lease; open_leases(run_id=None, environment=None) -> tuple[Lease, ...]; leases(run_id) ; history(lease_id) -> tuple[Step, ...] (state, epoch, by, at)
  adopt(lease) -> Lease                          insert a lease that was only found as a copy in a target; no-op when known
  request_stop(scope, by, reason) / withdraw_stop(scope) / stops() -> tuple[Stop, ...] / stop_for(run_id) -> Stop | None
  close()
Every mutation is one transaction, durable when it returns (SQLite: synchronous=FULL, BEGIN IMMEDIATE, busy timeout 5 s). SQLAlchemy Core; PostgreSQL by URL with the same code.
Usable from several threads and processes. Any database error becomes LedgerError.
"""
