"""The ledger in its database: every step of a lease is one durable compare-and-swap."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, text, update

from frangible.database import Database
from frangible.errors import LedgerError, Refused
from frangible.ledger.lease import MAY_BECOME_FROM, OPEN, Lease, LeaseState, Step, Stop
from frangible.ledger.rows import lease_row, process_columns, select_leases, select_steps, select_stops, stop_for
from frangible.ledger.schema import LEDGER, lease_keys, lease_steps, leases, stops
from frangible.process import ProcessIdentity

__all__ = ["Ledger"]

ADOPTED = "adopted from the copy in the target"
"""Detail of the first step of a lease that another ledger had."""


class Ledger:
    """The leases and stops of one database. Safe to use from several threads and processes; every failure is a `LedgerError`."""

    def __init__(self, database: Database) -> None:
        """Use `open` instead."""
        self._database = database

    @classmethod
    def open(cls, url: str) -> "Ledger":
        """Open the ledger at a SQLAlchemy URL and create its tables at first use; `LedgerError` names the file and what to do."""
        return cls(Database.open(url, LEDGER))

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    @property
    def location(self) -> str:
        """The file, or the URL without its password."""
        return self._database.location

    def store_time(self) -> float:
        """Return seconds since the epoch by the clock of the host where the ledger lives."""
        if not self._database.is_postgresql:
            return time.time()
        with self._database.reading() as connection:
            return self._now(connection)

    # Steps of a lease

    def intend(self, lease: Lease) -> Lease:
        """Write a new lease before anything is done; raise `Refused` when a stop for everything or for its run is set."""
        if lease.state is not LeaseState.INTENDED or lease.epoch or lease.claimed_by:
            raise LedgerError(f"{lease} is {lease.state} (epoch {lease.epoch}); a new one must be {LeaseState.INTENDED} and unclaimed")
        _need_finite(lease, lease.expires_at)
        with self._database.writing() as connection:
            self._refuse_stopped(connection, lease.run_id)
            now = self._now(connection)
            return self._insert(connection, replace(lease, created_at=now, updated_at=now), "")

    def adopt(self, lease: Lease) -> Lease:
        """Insert a lease of which only the copy in the target was found, and return it; return the known one when there is one.

        The copy is older than the injection, so `intended` means that it may have been injected: it enters as `injecting`.
        """
        _need_finite(lease, lease.expires_at)
        state = LeaseState.INJECTING if lease.state is LeaseState.INTENDED else lease.state
        with self._database.writing() as connection:
            known = select_leases(connection, leases.c.id == lease.id)
            if known:
                return known[0]
            return self._insert(connection, replace(lease, state=state, updated_at=self._now(connection)), "adopted from the copy in the target")

    def begin_injecting(self, lease_id: str) -> Lease:
        """Step to `injecting`, immediately before the call; only while nobody has claimed the lease and no stop is set."""
        with self._database.writing() as connection:
            self._refuse_stopped(connection, self._get(connection, lease_id).run_id)
            return self._step(connection, lease_id, LeaseState.INJECTING)

    def mark_injected(self, lease_id: str) -> Lease:
        """Step to `injected`: the platform accepted the fault."""
        with self._database.writing() as connection:
            return self._step(connection, lease_id, LeaseState.INJECTED)

    def claim(self, lease_id: str, claimer: ProcessIdentity) -> Lease:
        """Step from any open state to `reverting` with a new epoch; whoever had claimed it before is superseded."""
        with self._database.writing() as connection:
            return self._step(
                connection, lease_id, LeaseState.REVERTING, by=claimer, changes={"epoch": leases.c.epoch + 1, **process_columns("claimed_by", claimer)}
            )

    def mark_reverted(self, lease_id: str, epoch: int) -> Lease:
        """Step to `reverted`: it was seen that nothing of the fault is left. `LedgerError` ("superseded") unless `epoch` is the newest claim."""
        with self._database.writing() as connection:
            return self._step(connection, lease_id, LeaseState.REVERTED, epoch=epoch, changes={"error": ""})

    def mark_revert_failed(self, lease_id: str, epoch: int, error: str) -> Lease:
        """Step to `revert-failed` and keep why; the lease stays open. `LedgerError` ("superseded") unless `epoch` is the newest claim."""
        with self._database.writing() as connection:
            return self._step(connection, lease_id, LeaseState.REVERT_FAILED, epoch=epoch, detail=error, changes={"error": error})

    def renew(self, lease_id: str, expires_at: float) -> Lease:
        """Move the expiry of an open lease, while nobody has claimed it."""
        with self._database.writing() as connection:
            unclaimed = (leases.c.claimed_by_pid.is_(None), leases.c.state.in_(sorted(OPEN)))
            statement = update(leases).where(leases.c.id == lease_id, *unclaimed)
            changed = connection.execute(statement.values(expires_at=expires_at, updated_at=self._now(connection))).rowcount
            lease = self._get(connection, lease_id)
            _need_finite(lease, expires_at)
            if changed != 1:
                raise LedgerError(f"{lease} is {_found(lease)}; to be renewed it must be open and unclaimed: stop injecting")
            return lease

    # Reading

    def get(self, lease_id: str) -> Lease:
        """Return one lease."""
        with self._database.reading() as connection:
            return self._get(connection, lease_id)

    def open_leases(self, run_id: str | None = None, environment: str | None = None) -> tuple[Lease, ...]:
        """Return the leases that are not reverted, oldest first, of one run or one environment where asked."""
        wanted: list[ColumnElement[bool]] = [leases.c.state.in_(sorted(OPEN))]
        if run_id is not None:
            wanted.append(leases.c.run_id == run_id)
        if environment is not None:
            wanted.append(leases.c.environment == environment)
        with self._database.reading() as connection:
            return select_leases(connection, *wanted)

    def leases(self, run_id: str) -> tuple[Lease, ...]:
        """Return every lease of a run, oldest first."""
        with self._database.reading() as connection:
            return select_leases(connection, leases.c.run_id == run_id)

    def history(self, lease_id: str) -> tuple[Step, ...]:
        """Return the steps of a lease, oldest first."""
        with self._database.reading() as connection:
            self._get(connection, lease_id)
            return select_steps(connection, lease_id)

    def is_adopted(self, lease_id: str) -> bool:
        """Whether this ledger knows a lease from its copy in the target only: whoever injected it had another."""
        return self.history(lease_id)[0].detail == ADOPTED

    # Stops

    def request_stop(self, scope: str, by: str, reason: str) -> Stop:
        """Set a stop for one run, or for everything (`*`); the first one stays when there already is one."""
        with self._database.writing() as connection:
            statement = text("INSERT INTO stops (scope, requested_by, reason, since) VALUES (:scope, :by, :reason, :since) ON CONFLICT (scope) DO NOTHING")
            connection.execute(statement, {"scope": scope, "by": by, "reason": reason, "since": self._now(connection)})
            return select_stops(connection, scope)[0]

    def withdraw_stop(self, scope: str) -> Stop | None:
        """Take a stop back and return it; None when there was none."""
        with self._database.writing() as connection:
            found = select_stops(connection, scope)
            connection.execute(delete(stops).where(stops.c.scope == scope))
            return found[0] if found else None

    def stops(self) -> tuple[Stop, ...]:
        """Return every stop, oldest first."""
        with self._database.reading() as connection:
            return select_stops(connection)

    def stop_for(self, run_id: str) -> Stop | None:
        """Return the halt of everything, else the stop of this run, else None."""
        with self._database.reading() as connection:
            return stop_for(connection, run_id)

    # Inside a transaction

    def _now(self, connection: Connection) -> float:
        if not self._database.is_postgresql:
            return time.time()
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def _refuse_stopped(self, connection: Connection, run_id: str) -> None:
        if self._database.is_postgresql:
            # SQLite has one writer at a time; here a stop that is being written must be waited for, not missed.
            connection.execute(text("LOCK TABLE stops IN SHARE MODE"))
        stop = stop_for(connection, run_id)
        if stop is not None:
            raise Refused(str(stop))

    def _step(
        self,
        connection: Connection,
        lease_id: str,
        to: LeaseState,
        *,
        by: ProcessIdentity | None = None,
        detail: str = "",
        changes: Mapping[str, object] | None = None,
        epoch: int | None = None,
    ) -> Lease:
        """Swap the state if it is one that may become `to`, and, where the epoch is given, if that is still the newest claim."""
        allowed = sorted(MAY_BECOME_FROM[to])
        statement = update(leases).where(leases.c.id == lease_id, leases.c.state.in_(allowed))
        if epoch is not None:
            statement = statement.where(leases.c.epoch == epoch)
        changed = connection.execute(statement.values(state=to, updated_at=self._now(connection), **(changes or {}))).rowcount
        lease = self._get(connection, lease_id)
        if epoch not in {None, lease.epoch}:
            raise LedgerError(f"superseded: {lease} is {_found(lease)}, ours was epoch {epoch}; leave it to the later claimer")
        if changed != 1:
            raise LedgerError(f"{lease} is {_found(lease)}; to become {to} it must be {' or '.join(allowed)}")
        self._record(connection, lease, by or ProcessIdentity.current(), detail)
        return lease

    def _insert(self, connection: Connection, lease: Lease, detail: str) -> Lease:
        if select_leases(connection, leases.c.id == lease.id):
            raise LedgerError(f"{lease} is already in {self.location}; every lease needs an id of its own")
        lease.to_json()  # refuses what is not JSON: its copy in the target must say the same
        connection.execute(insert(leases).values(lease_row(lease)))
        if lease.keys:
            connection.execute(insert(lease_keys), [{"lease_id": lease.id, "key": key} for key in sorted(set(lease.keys))])
        self._record(connection, lease, lease.injector, detail)
        return self._get(connection, lease.id)

    def _record(self, connection: Connection, lease: Lease, by: ProcessIdentity, detail: str) -> None:
        # Safe against a second writer: whoever steps holds the lease's row (PostgreSQL) or the whole file (SQLite).
        last = connection.execute(select(func.max(lease_steps.c.number)).where(lease_steps.c.lease_id == lease.id)).scalar()
        values = {"number": (last or 0) + 1, "state": lease.state, "epoch": lease.epoch, "at": lease.updated_at, "detail": detail}
        connection.execute(insert(lease_steps).values(lease_id=lease.id, **values, **process_columns("by", by)))

    def _get(self, connection: Connection, lease_id: str) -> Lease:
        found = select_leases(connection, leases.c.id == lease_id)
        if not found:
            raise LedgerError(f"there is no lease {lease_id!r} in {self.location}; `frangible status` lists those in force")
        return found[0]


def _need_finite(lease: Lease, expires_at: float) -> None:
    if not math.isfinite(expires_at):
        raise LedgerError(f"{lease}: its expiry must be a time in seconds since the epoch, found {expires_at!r}")


def _found(lease: Lease) -> str:
    if lease.claimed_by is None:
        return lease.state
    return f"{lease.state} (claimed by process {lease.claimed_by.pid} on {lease.claimed_by.host}, epoch {lease.epoch})"
