"""The look for a halt or an abort in the ledger, and the renewal of the run's locks."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from frangible.errors import FrangibleError, LockHeld
from frangible.supervisor.admitting import LOCK_TTL, Admitted

if TYPE_CHECKING:
    from frangible.clock import Clock

__all__ = ["stop_asked", "watch_stops"]

STOP_POLL = 0.2
"""Seconds between two looks for a halt or an abort."""
UNREADABLE_FOR = 3.0
"""Seconds after which a halt or a lock that cannot be read stops the run."""


def watch_stops(admitted: Admitted, clock: "Clock", done: threading.Event, abort: Callable[[str], None]) -> None:
    """Look until the run is done; a question without an answer aborts it too. Locks that hang must not keep a halt from being seen."""
    threading.Thread(target=_keep, args=(_Renewal(admitted, clock), clock, done, abort), name="locks", daemon=True).start()
    _keep(lambda: stop_asked(admitted), clock, done, abort)


def _keep(look: Callable[[], str], clock: "Clock", done: threading.Event, abort: Callable[[str], None]) -> None:
    """Look again and again, and abort once: for the reason that `look` returns, or when it has failed for too long."""
    failing_since: float | None = None
    while not clock.wait(done, STOP_POLL):
        try:
            reason = look()
            failing_since = None
        except (FrangibleError, OSError) as error:
            failing_since = clock.monotonic() if failing_since is None else failing_since
            lost = isinstance(error, LockHeld) or clock.monotonic() - failing_since > UNREADABLE_FOR
            reason = f"halt and locks cannot be read any more: {error}" if lost else ""
        if reason:
            abort(reason)
            return


def stop_asked(admitted: Admitted) -> str:
    """Return why a halt or an abort stops this run, and who asked for it; empty while none does."""
    stop = admitted.ledger.stop_for(admitted.plan.run_id)
    if stop is None:
        return ""
    return f"{'the halt is on: ' if stop.scope == '*' else ''}{stop.reason or 'no reason given'} ({stop.by})"


class _Renewal:
    """Renews the locks when a quarter of their time has gone."""

    def __init__(self, admitted: Admitted, clock: "Clock") -> None:
        self._admitted, self._clock = admitted, clock
        self._renewed = clock.monotonic()

    def __call__(self) -> str:
        if self._clock.monotonic() - self._renewed > LOCK_TTL / 4:
            self._admitted.locks.renew(LOCK_TTL)
            self._renewed = self._clock.monotonic()
        return ""
