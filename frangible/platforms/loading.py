"""Who sets the load that an environment is offered: the lab's rack, or any command line."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from frangible.errors import PlatformError
from frangible.platforms.asking import DEADLINE, THIS_HOST, Host, run_command, short

__all__ = ["CommandLoad", "LoadDriver", "RackLoad", "as_rate"]


class LoadDriver(Protocol):
    """The load of one environment. Each call has a deadline, is idempotent and raises `PlatformError`."""

    def rate(self) -> float:
        """Return how many a second are offered."""

    def set(self, rate: float) -> None:
        """Offer so many a second."""


@dataclass(frozen=True, slots=True)
class RackLoad:
    """The generator of one environment of the lab, through the rack's `rate`."""

    environment: str
    socket: Path
    host: Host = THIS_HOST

    def rate(self) -> float:
        """Ask for the rate."""
        return self._ask()

    def set(self, rate: float) -> None:
        """Have it set."""
        self._ask(rate=rate)

    def _ask(self, **more: float) -> float:
        who = f"environment {self.environment}: rack {self.socket}: rate"
        reply = self.host.ask_rack(self.socket, {"do": "rate", "environment": self.environment, **more}, who, DEADLINE)
        return as_rate(who, str(reply.get("rate")))


@dataclass(frozen=True, slots=True)
class CommandLoad:
    """Runs one command to read and one to set, without a shell; `{rate}` in an argument becomes the number."""

    environment: str
    read_command: tuple[str, ...]
    set_command: tuple[str, ...]

    def rate(self) -> float:
        """Run the `read` command; it prints one number."""
        return as_rate(self._who("read"), run_command(list(self.read_command), self._who("read"), DEADLINE, "platform.load"))

    def set(self, rate: float) -> None:
        """Run the `set` command."""
        argv = [argument.replace("{rate}", f"{rate:.15g}") for argument in self.set_command]
        run_command(argv, self._who("set"), DEADLINE, "platform.load")

    def _who(self, verb: str) -> str:
        return f"environment {self.environment}: load command `{verb}`"


def as_rate(who: str, text: str) -> float:
    """Return a rate that somebody printed; raise `PlatformError`, beginning with `who`, for anything else."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        raise PlatformError(f"{who}: expected a number of 0 or more a second, got {short(text)}")
    return rate
