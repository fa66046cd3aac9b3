"""Resource keys, held where the target lives.

CONTRACT
@dataclass(frozen=True) class Holder: key, run_id, owner: ProcessIdentity, epoch: int, expires_at: float, note (who: user@host)
class LockStore(Protocol): acquire(key, run_id, owner, ttl) -> Holder (LockHeld names the holder, since when, until when, and what would free it);
   renew(holder, ttl) -> Holder (LockHeld when somebody took it over); release(holder) (only our own epoch); holders() -> tuple[Holder, ...]
class FileLockStore(folder: Path): one JSON file a key, changed under flock of a sibling file; a holder that expired, or whose local process is dead, is taken over with epoch + 1
class HeldLocks: acquire_all(store, keys, run_id, owner, ttl) -> HeldLocks (sorted order; all or none); renew(); release()
"""
