"""Was an environment steady at any time? Block by block against the plain bound, without statistics: also for the live readings."""

from typing import TYPE_CHECKING, Literal

from frangible.judge.blocks import block_length, dropped, gauge_blocks, grid, ratio_blocks
from frangible.judge.bounds import corridor, ratio_limits
from frangible.judge.evidence import Observed, Window, WindowName

if TYPE_CHECKING:
    from frangible.hypothesis import GaugeIndicator, RatioIndicator
    from frangible.judge.indicators import Baseline

    type AnyIndicator = RatioIndicator | GaugeIndicator

__all__ = ["BlockState", "block_states", "never_steady"]

type BlockState = Literal["kept", "broken", "absent", "no-data"]


def block_states(
    indicator: "AnyIndicator",
    observed: Observed,
    edges: tuple[float, ...],
    scrape_interval: float,
    share: float | None = None,
    level: tuple[float, float] | None = None,
) -> tuple[BlockState, ...]:
    """Return the state of each block against the plain bound; `share` and `level` are what the baseline had, for relative bounds."""
    window = WindowName.BASELINE if share is None and level is None else WindowName.RECOVERY
    if indicator.kind == "gauge":
        gauge = gauge_blocks(observed, edges)
        allowed = corridor(indicator, window, level)
        if gauge.garbled:
            return tuple("no-data" for _ in gauge.values)
        return tuple(
            "absent" if absent else "no-data" if value is None else "broken" if allowed.outside(value) else "kept"
            for value, absent in zip(gauge.values, gauge.absent, strict=True)
        )
    limits = ratio_limits(indicator, window)
    least = max(limits.at_least or 0.0, (share or 0.0) - limits.drop_at_most if limits.drop_at_most is not None else 0.0)
    blocks = ratio_blocks(observed, edges, scrape_interval)
    return tuple(
        "absent" if absent else "no-data" if events <= 0 else "broken" if 1 - bad / events < least else "kept"
        for events, bad, absent in zip(blocks.valid, blocks.bad, blocks.absent, strict=True)
    )


def never_steady(
    indicator: "AnyIndicator", observed: Observed, window: Window, baseline: "Baseline", scrape_interval: float, limit: float, steady_for: float
) -> str:
    """Say what was broken when an indicator left no steady stretch to begin within `limit` of the window's start; empty when it did."""
    edges = grid(window.start + dropped(indicator, scrape_interval), window.end, block_length(indicator, scrape_interval))
    share = baseline.share.observed if baseline.share is not None else None
    states = block_states(indicator, observed, edges, scrape_interval, share, baseline.level)
    bad = [state == "broken" or (state == "absent" and indicator.when_absent == "broken" and baseline.present) for state in states]
    free_since = window.start
    for start, end, broken in zip(edges, edges[1:], bad, strict=False):
        if broken:
            free_since = end
        elif end - free_since >= steady_for and free_since <= window.start + limit and start >= free_since:
            return ""
    return f"{sum(bad)} of {len(bad)} blocks broke its bound" if any(bad) else ""
