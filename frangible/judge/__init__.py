"""From windows of series and hypotheses to a verdict with reasons. Pure: no I/O, no clock. docs/judge.md has the statistics.

What a run, its record and its journal are made of comes at once; what judges comes when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from frangible.judge.evidence import Ending, FaultProof, IndicatorVerdict, Observed, Outcome, RunEvidence, Verdict, Window, WindowName

if TYPE_CHECKING:
    from frangible.judge.blocks import block_series
    from frangible.judge.reach import reachability
    from frangible.judge.verdict import judge

__all__ = [
    "Ending",
    "FaultProof",
    "IndicatorVerdict",
    "Observed",
    "Outcome",
    "RunEvidence",
    "Verdict",
    "Window",
    "WindowName",
    "block_series",
    "judge",
    "reachability",
]

_LATER = {"block_series": "blocks", "judge": "verdict", "reachability": "reach"}


def __getattr__(name: str) -> object:
    """Import what judges when somebody asks for it (PEP 562)."""
    if name in _LATER:
        found: object = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
