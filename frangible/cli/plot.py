"""Drawing in a terminal: with plotext where the extra `plot` is installed, else with a line of bars."""

import os
import shutil
import sys

from frangible.explain import Plot, sparkline

__all__ = ["draw"]

HEIGHT = 14
WIDEST = 100


def draw(plot: Plot) -> list[str]:
    """Return the lines of a picture of one indicator over time, with its windows and its bound."""
    head = ["", f"{plot.indicator} over time, in seconds" + (f"; bound: {plot.bound_text}" if plot.bound_text else "")]
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return head + (_plotext(plot, width) or _bars(plot, width))


def _bars(plot: Plot, width: int) -> list[str]:
    bars, marks = sparkline(plot, max(20, width - 24))
    legend = ", ".join(f"{window.name[0]} {window.name} {window.start:.0f}-{window.end:.0f} s" for window in plot.windows)
    return [bars, marks, *([legend] if legend else [])]


def _plotext(plot: Plot, width: int) -> list[str]:
    """Draw with plotext, or return nothing where it is not installed."""
    try:
        import plotext
    except ImportError:
        return []
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, HEIGHT)
    figure.draw(figure.signal(list(plot.times), list(plot.values)))
    if plot.bound is not None:
        figure.line(plot.bound, "horizontal", style="dotted")
    for window in plot.windows:
        figure.line(window.start, "vertical")
    text: str = figure.build().string()
    return (text if _coloured() else str(plotext.uncolorize(text))).splitlines()


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
