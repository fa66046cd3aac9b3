"""Trying one thing out: an attempt says what was found or raises an error of ours, and `tried` makes a check of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from frangible.errors import FrangibleError

__all__ = ["Check", "Trial", "in_turn", "tried"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    name: str
    ok: bool
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to try: `attempt` returns what was found, or raises an error of ours."""

    name: str
    attempt: Callable[[], str]
    advice: str
    after: str = ""
    """Name of the trial that it stands on: where that failed, or was not tried itself, `in_turn` does not try this one."""


def tried(trial: Trial) -> Check:
    """Try it."""
    try:
        return Check(trial.name, ok=True, found=trial.attempt())
    except (FrangibleError, OSError) as error:
        return Check(trial.name, ok=False, found=str(error), advice=trial.advice)


def in_turn(trials: Iterable[Trial]) -> Iterator[Check]:
    """Try one after the other, each before the next is asked for; what stands on a part that failed is not tried."""
    failed: set[str] = set()
    for trial in trials:
        if trial.after in failed:
            failed.add(trial.name)
            continue
        check = tried(trial)
        if not check.ok:
            failed.add(check.name)
        yield check
