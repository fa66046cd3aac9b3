"""Prometheus: instant and range queries with authentication, deadlines and strict floats."""

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Metrics", "Sample", "Series"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value at one time."""

    at: float
    """Seconds since the Unix epoch on Prometheus's own clock."""
    value: float
    """Finite, or NaN where Prometheus says NaN."""


@dataclass(frozen=True, slots=True)
class Series:
    """One labelled series, samples in order of time."""

    labels: tuple[tuple[str, str], ...]
    samples: tuple[Sample, ...]


class Metrics(Protocol):
    """What runs ask of Prometheus. Every call raises `ObserverFailed` when the answer cannot be had or trusted.

    An empty result is not an error here: what absence means is the judge's business.
    """

    def time(self) -> float:
        """Prometheus's own clock, seconds since the Unix epoch."""

    def raw(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Raw stored samples of a selector in (start, end]; nothing extrapolated, staleness markers dropped."""

    def range(self, query: str, start: float, end: float, step: float) -> tuple[Series, ...]:
        """Evaluate any PromQL at start, start+step, … end."""

    def instant(self, query: str, at: float | None = None) -> tuple[Series, ...]:
        """Evaluate any PromQL at one time, now by default."""

    def scrape_interval(self, selector: str) -> float | None:
        """Median distance of the newest raw samples of a selector in seconds, or None without data."""
