"""Several faults in force at the same time. No fault itself: each keeps its own lease, proof and revert."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from frangible.errors import FaultError
from frangible.injection import perform_together

__all__ = ["hold_together"]


def hold_together(faults: list[dict[str, Any]], hold: float = 20.0) -> dict[str, object]:
    """Inject `faults` in their order, hold all of them for the same `hold` seconds, revert them, the last first.

    Each is what an action of its own would state, `module`, `func` and perhaps `arguments`, without a `hold`.
    """
    return perform_together([partial(_function(fault), **(fault.get("arguments") or {}), hold=hold) for fault in faults], hold)


def _function(fault: dict[str, Any]) -> Callable[..., object]:
    """Return the function that injects one of the faults; validation has looked at all of them before."""
    try:
        function: Callable[..., object] = getattr(importlib.import_module(fault["module"]), fault["func"])
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        raise FaultError(f"expected `module` and `func` of an action that injects a fault, found {fault!r}: {error}") from error
    return function
