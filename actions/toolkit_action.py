"""An action of any Chaos Toolkit extension as a fault: leased before it is played, proven by a probe that the experiment names, and reverted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from frangible.activities import Activity, Played, complaints, play
from frangible.errors import FaultError, Refused
from frangible.fault import PROOF_EVERY, Observation, Prior, Target
from frangible.injection import Choice, perform
from frangible.platforms import Platform

__all__ = ["take_action"]

NOTHING = "none"
SHOWN = 120
"""Characters of what a probe returned that a proof tells."""


@dataclass(frozen=True)
class ToolkitAction:
    """Play an action; while the proof's tolerance is met the fault is real, and before and after it is not."""

    action: dict[str, Any]
    """What makes the fault."""
    proof: dict[str, Any]
    """The probe, with its `tolerance`."""
    revert_by: dict[str, Any] = field(default_factory=dict)
    """The action that undoes it; empty where the target comes back by itself."""
    timeout: float = 30.0
    """Seconds that each of them may take."""

    kind: ClassVar[str] = "toolkit-action"
    version: ClassVar[int] = 1
    target_kind: ClassVar[str] = "service"
    needs: ClassVar[frozenset[str]] = frozenset()
    least_proven: ClassVar[float] = 0.9

    def __post_init__(self) -> None:
        """Refuse what the toolkit could not play."""
        found = wrong(self.action, self.proof, self.revert_by)
        if found:
            raise FaultError("; ".join(found))

    def capture(self, platform: Platform, target: Target) -> Prior:
        """Refuse a target that is in that state already."""
        found = self._play(self.proof, platform, target)
        if found.met:
            raise Refused(f"{target} is already as the proof expects it ({_shown(found)}), so the action would show nothing; mend it first")
        return {"before": _shown(found)}

    def inject(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Play the action, and give it as long again to show; whether it did is for the proof to say."""
        self._play(self.action, platform, target)
        end = time.monotonic() + self.timeout
        while not self._play(self.proof, platform, target).met and time.monotonic() < end:
            time.sleep(PROOF_EVERY)

    def observe(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Real while the probe is within its tolerance."""
        found = self._play(self.proof, platform, target)
        return Observation(real=found.met, detail=f"the proof says {_shown(found)}, before it was {prior['before']}", measured=_number(found.value))

    def revert(self, platform: Platform, target: Target, prior: Prior) -> None:
        """Play the action that undoes it."""
        if self.revert_by:
            self._play(self.revert_by, platform, target)

    def observe_reverted(self, platform: Platform, target: Target, prior: Prior) -> Observation:
        """Gone when the probe is not within its tolerance any more."""
        found = self._play(self.proof, platform, target)
        return Observation(real=not found.met, detail=f"the proof says {_shown(found)}", measured=_number(found.value))

    def _play(self, activity: Activity, platform: Platform, target: Target) -> Played:
        return play(filled(activity, target), platform.variables(), self.timeout)


def argument_problems(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is wrong with an activity's arguments beyond their types, for `frangible validate`."""
    return (*wrong(arguments.get("action"), arguments.get("proof"), arguments.get("revert")), *_undecided(arguments.get("revert"), arguments.get("reverts")))


def _undecided(revert: object, reverts: object) -> tuple[str, ...]:
    said = "expected either `revert`, an action that undoes the other, or `reverts: none` where the target comes back by itself"
    return (said,) if bool(revert) == (reverts == NOTHING) else ()


def wrong(action: object, proof: object, revert_by: object) -> tuple[str, ...]:
    """Return what the toolkit could not play of these."""
    undone = complaints(revert_by, "action", "revert") if revert_by else ()
    return (*complaints(action, "action", "action"), *complaints(proof, "probe", "proof"), *undone)


def filled(value: Any, target: Target) -> Any:  # noqa: ANN401 - any part of a document
    """Return an activity with `{node}` and `{service}` in its texts replaced by the target's. Pure."""
    match value:
        case str():
            return value.replace("{node}", target.node).replace("{service}", target.service)
        case Mapping():
            return {key: filled(each, target) for key, each in value.items()}
        case list():
            return [filled(each, target) for each in value]
        case _:
            return value


def _shown(found: Played) -> str:
    text = str(found.value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def take_action(
    action: dict[str, Any],
    proof: dict[str, Any],
    service: str,
    revert: dict[str, Any] = {},  # noqa: B006 - only read; the toolkit shows it as it is
    reverts: str = "",
    role: str = "",
    name: str = "",
    count: int = 1,
    share: float = 0.0,
    hold: float = 20.0,
    timeout: float = 30.0,
    seed: int = 0,
) -> dict[str, object]:
    """Play `action` for `service` on `count` nodes (or a `share`), see by `proof` that it is real for `hold` seconds, then play `revert`.

    `reverts: none` states instead that the target comes back by itself. `{node}` and `{service}` in the texts of the three are the target's.
    """
    for problem in _undecided(revert, reverts):
        raise FaultError(problem)
    fault = ToolkitAction(action, proof, revert, timeout)
    return perform(fault, Choice(service=service, role=role, name=name, count=count, share=share, seed=seed), hold)
