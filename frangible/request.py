"""What whoever starts a run says of it, beside the experiment and the environment."""

from dataclasses import dataclass

__all__ = ["Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """Kept in the run's plan; the note and the ticket in the journal too."""

    note: str = ""
    ticket: str = ""
    seed: int = 0
    """The first draw uses this one and each further one the next number, unless its action has a seed of its own; 0: a new one."""
