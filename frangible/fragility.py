"""How fragile an environment is to a kind of fault: counts of runs, and what they say about the next one. Pure.

A run is evidence about each kind of fault that it injected, once a kind however many targets it had. With two kinds the verdict
counts for both: which of them an environment did not stand is not known from one run. A placebo is no fault. Inconclusive runs are
counted and are no evidence.

The probability that the next run holds has Jeffreys' prior Beta(1/2, 1/2), so that after h held and d deviated runs it is
Beta(h + 1/2, d + 1/2); the interval is equal-tailed (Brown, Cai, DasGupta 2001, "Interval Estimation for a Binomial Proportion",
Statistical Science 16(2), section 3.2).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frangible.judge import FaultProof

__all__ = ["CONFIDENCE", "NO_FAULTS", "Posterior", "Score", "counted", "faults_of", "posterior", "scores"]

TAIL = 0.025
"""Share of the posterior below its interval, and above it."""
CONFIDENCE = 1 - 2 * TAIL
"""Share of the posterior that lies in its interval."""
NO_FAULTS = frozenset({"placebo"})
"""Kinds that inject nothing: they measure false alarms."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is believed of the probability, 0 to 1, that the next run holds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """All finished runs of one environment that injected one kind of fault."""

    environment: str
    fault: str
    held: int = 0
    deviated: int = 0
    inconclusive: int = 0
    last_run: str = ""
    """Id of the newest of them; empty when there is none."""
    last_at: float | None = None
    """When it started, in seconds since the epoch."""
    last_outcome: str = ""
    holds: Posterior | None = None
    """As it was stored with the newest counts; None when it was never tested."""

    @property
    def runs(self) -> int:
        """How many there are."""
        return self.held + self.deviated + self.inconclusive

    @property
    def known(self) -> bool:
        """Whether there is any evidence: never tested, and tested without a conclusion, are unknown and never good."""
        return self.held + self.deviated > 0


def faults_of(proofs: "Iterable[FaultProof]") -> tuple[str, ...]:
    """Return the kinds of faults that a run injected, each once, sorted: what it is evidence about."""
    return tuple(sorted({proof.fault for proof in proofs if proof.injected} - NO_FAULTS))


def counted(score: Score, outcome: str, run: str, at: float) -> Score:
    """Return the score with one more run in it, which started at `at`; runs may come in any order. Its posterior is computed anew."""
    newer = score.last_at is None or (at, run) > (score.last_at, score.last_run)
    held, deviated = score.held + (outcome == "held"), score.deviated + (outcome == "deviated")
    return Score(
        environment=score.environment,
        fault=score.fault,
        held=held,
        deviated=deviated,
        inconclusive=score.inconclusive + (outcome not in ("held", "deviated")),
        last_run=run if newer else score.last_run,
        last_at=at if newer else score.last_at,
        last_outcome=outcome if newer else score.last_outcome,
        holds=posterior(held, deviated),
    )


def posterior(held: int, deviated: int) -> Posterior:
    """Return what so many held and deviated runs say about the next one; without any it is the prior. Imports scipy."""
    from scipy.special import betaincinv

    a, b = held + 0.5, deviated + 0.5
    return Posterior(a / (a + b), float(betaincinv(a, b, TAIL)), float(betaincinv(a, b, 1 - TAIL)))


def scores(stored: Iterable[Score], environments: Iterable[str], faults: Iterable[str]) -> tuple[Score, ...]:
    """Return what is stored, and an empty score for each of these environments and faults that has none; sorted by both names."""
    there = {(score.environment, score.fault): score for score in stored}
    kinds = sorted(set(faults) - NO_FAULTS)
    empty = {(environment, fault): Score(environment=environment, fault=fault) for environment in environments for fault in kinds}
    return tuple(score for _, score in sorted({**empty, **there}.items()))
