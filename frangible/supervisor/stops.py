"""The look for a halt or an abort in the ledger, and the renewal of the run's locks."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from frangible.errors import FrangibleError, LockHeld
from frangible.supervisor.admitting import LOCK_TTL, Admitted

if TYPE_CHECKING:
    from frangible.clock import Clock

__all__ = ["watch_stops"]

STOP_POLL = 0.2
"""Seconds between two looks for a halt or an abort."""
UNREADABLE_FOR = 3.0
"""Seconds after which a halt or a lock that cannot be read stops the run."""


def watch_stops(admitted: Admitted, clock: "Clock", done: threading.Event, abort: Callable[[str], None]) -> None:
    """Look until the run is done, and `abort` it at most once; a question without an answer aborts it too."""
    failing_since: float | None = None
    renewed = clock.monotonic()
    while not clock.wait(done, STOP_POLL):
        try:
            stop = admitted.ledger.stop_for(admitted.plan.run_id)
            if stop is not None:
                what = "the halt is on" if stop.scope == "*" else "aborted"
                abort(f"{what}: {stop.reason or 'no reason given'} ({stop.by})")
                return
            if clock.monotonic() - renewed > LOCK_TTL / 4:
                admitted.locks.renew(LOCK_TTL)
                renewed = clock.monotonic()
            failing_since = None
        except (FrangibleError, OSError) as error:
            failing_since = failing_since or clock.monotonic()
            if isinstance(error, LockHeld) or clock.monotonic() - failing_since > UNREADABLE_FOR:
                abort(f"halt and locks cannot be read any more: {error}")
                return
