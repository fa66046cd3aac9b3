"""One tree of errors: each message says who, what was expected, what was found and what to do next."""

from dataclasses import dataclass

__all__ = [
    "ExperimentError",
    "FaultError",
    "FrangibleError",
    "GameDayError",
    "HypothesisError",
    "InputError",
    "InventoryError",
    "JournalError",
    "LabError",
    "LedgerError",
    "LockHeld",
    "ObserverFailed",
    "PlatformError",
    "PolicyError",
    "Problem",
    "Refused",
    "RevertFailed",
    "UsageError",
]


class FrangibleError(Exception):
    """Anything that frangible itself reports; `exit_code` is what the command line ends with."""

    exit_code = 70


class UsageError(FrangibleError):
    """The command was called in a way that cannot work."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in one place of one file."""

    file: str
    """The file as the user named it."""
    line: int | None
    """1-based line, or None where the whole file is meant."""
    where: str
    """Dotted path inside the file, such as `environments[2].tier`; empty for the whole file."""
    message: str
    """What was expected and what was found."""
    hint: str = ""
    """What to do about it, such as the nearest valid key."""
    kind: str = "invalid"
    """`invalid`, or `hides-shipped`: usable, but its name means something else here than elsewhere."""

    def __str__(self) -> str:
        """Render `file:line: where: message (hint)` on one line."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [place, *([self.where] if self.where else []), self.message]
        return ": ".join(parts) + (f" ({self.hint})" if self.hint else "")


class InputError(UsageError):
    """A file of the user's cannot be used; carries all of its problems at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Keep the problems; the message lists them one a line."""
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class InventoryError(InputError):
    """The inventory cannot be used."""


class HypothesisError(InputError):
    """A hypothesis file cannot be used."""


class ExperimentError(InputError):
    """An experiment file cannot be used."""


class PolicyError(InputError):
    """A gate's policy cannot be used."""


class GameDayError(InputError):
    """The plan of a game day cannot be used."""


class Refused(FrangibleError):
    """A guard said no. The message begins with `not injecting:` and says what would allow it."""

    exit_code = 4

    def __init__(self, *reasons: str) -> None:
        """Keep every reason; the message joins them behind `not injecting:`."""
        self.reasons = reasons
        super().__init__("not injecting: " + "; ".join(reasons))


class LockHeld(Refused):
    """Somebody else holds a resource key that this run needs."""


class ObserverFailed(FrangibleError):
    """Prometheus could not be asked, or its answer cannot be trusted: no data, never a pass."""


class PlatformError(FrangibleError):
    """A primitive of a platform or of a transport failed."""


class FaultError(FrangibleError):
    """A fault could not be loaded, prepared or injected."""


class RevertFailed(FaultError):
    """A revert ran and the fault is still there."""


class LedgerError(FrangibleError):
    """The ledger could not be read or written, or a lease was not in the state that a step needs."""


class JournalError(FrangibleError):
    """The journal could not be read or written."""


class LabError(FrangibleError):
    """The embedded lab could not be started, reached or stopped."""
