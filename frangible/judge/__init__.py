"""From windows of series and hypotheses to a verdict with reasons. Pure: no I/O, no clock. docs/judge.md has the statistics."""

from frangible.judge.blocks import block_series
from frangible.judge.evidence import Ending, FaultProof, IndicatorVerdict, Observed, Outcome, RunEvidence, Verdict, Window, WindowName
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
