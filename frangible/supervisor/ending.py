"""Why a run ends."""

from dataclasses import dataclass

from frangible.judge import Ending

__all__ = ["Cause"]


@dataclass
class Cause:
    """Why a run ends, and since when it is being stopped."""

    ending: Ending | None = None
    """None while nothing speaks against a completed run."""
    detail: str = ""
    aborted_at: float | None = None
    """When it was stopped, on the supervisor's monotonic clock."""

    def note(self, ending: Ending, detail: str) -> None:
        """Keep the first cause: what follows from it explains nothing."""
        if self.ending is None:
            self.ending, self.detail = ending, detail
