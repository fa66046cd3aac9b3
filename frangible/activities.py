"""Activities of Chaos Toolkit extensions, played in a process of their own: with a deadline, and with the environment that they are meant for.

The toolkit itself gives an activity no deadline, and an extension takes what it reaches from the environment variables of its process.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from frangible import toolkit
from frangible.channel import Channel, ChannelClosed
from frangible.errors import PlatformError

__all__ = ["Activity", "Played", "complaints", "play"]

type Activity = Mapping[str, Any]
"""One activity as an experiment has it: `provider`, and for a probe `tolerance`."""

ENDING = 2.0
"""Seconds that a process which was told to end has."""


@dataclass(frozen=True, slots=True)
class Played:
    """What an activity returned."""

    value: Any
    """As JSON; what JSON cannot hold is text."""
    met: bool
    """Whether it is within the activity's tolerance; True where there is none."""


def complaints(activity: object, kind: str, name: str) -> tuple[str, ...]:
    """Return what is wrong with an `action` or `probe`: the toolkit's own words, which stop at the first problem. Its module is imported."""
    from chaoslib.activity import ensure_activity_is_valid
    from chaoslib.hypothesis import ensure_hypothesis_tolerance_is_valid

    if not isinstance(activity, Mapping) or not isinstance(activity.get("provider"), Mapping):
        return (f"expected `{name}` to be a mapping with a `provider`, as an activity of the toolkit has it, found {activity!r}",)
    if activity["provider"].get("secrets"):
        return (f"`{name}` asks for `secrets`, and a lease holds none; let the extension take them from its environment variables or files",)

    def check() -> None:
        ensure_activity_is_valid({"type": kind, "name": name, **activity})
        if kind == "probe":
            ensure_hypothesis_tolerance_is_valid(activity.get("tolerance"))

    return toolkit.said(check, f"`{name}`")


def play(activity: Activity, variables: Mapping[str, str], seconds: float) -> Played:
    """Play one activity in the process that has these variables beside ours; raise `PlatformError` when it fails, or has not ended after `seconds`.

    One that is late, or is interrupted here, is ended with its process.
    """
    return _host(variables).play(activity, seconds)


class _Host:
    """One process that plays activities, one at a time; it ends with us."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._playing = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def play(self, activity: Activity, seconds: float) -> Played:
        with self._playing, self._ended_on_failure():
            channel = self._started()
            with contextlib.suppress(ChannelClosed):
                channel.send({"type": "play", "activity": dict(activity)})
            if not select.select([channel], [], [], seconds)[0]:
                raise PlatformError(f"{_named(activity)} has not ended after {seconds:g} s, and was ended")
            answer = channel.receive()
            if answer is None:
                raise PlatformError(f"{_named(activity)}: the process that played it has ended")
        if answer["error"]:
            raise PlatformError(f"{_named(activity)} failed: {answer['error']}")
        return Played(answer["value"], answer["met"])

    def _started(self) -> Channel:
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        ours, theirs = Channel.pair()
        command = [sys.executable, "-m", "frangible.activityhost", str(theirs.fileno())]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env={**os.environ, **self._variables}, pass_fds=[theirs.fileno()], start_new_session=True, **quiet)  # type: ignore[call-overload]
        theirs.close_here()
        self._channel = ours
        return ours

    @contextlib.contextmanager
    def _ended_on_failure(self) -> Iterator[None]:
        """A process whose answer nobody waited for is not asked again."""
        try:
            yield
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if channel is not None:
            channel.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDING)


_hosts: dict[tuple[int, frozenset[tuple[str, str]]], _Host] = {}
_making = threading.Lock()


def _host(variables: Mapping[str, str]) -> _Host:
    """Return the process for these variables; a forked child does not share its parent's."""
    with _making:
        return _hosts.setdefault((os.getpid(), frozenset(variables.items())), _Host(variables))


def _named(activity: Activity) -> str:
    provider = activity["provider"]
    match provider.get("type"):
        case "python":
            return f"{provider['module']}.{provider['func']}"
        case "process":
            return f"the program {provider['path']}"
        case _:
            return f"the request to {provider.get('url')}"
