"""The process that plays activities of Chaos Toolkit extensions: `python -m frangible.activityhost DESCRIPTOR`, see `frangible.activities`."""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from frangible.channel import Channel, Message

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Play what comes, one after the other, until whoever asks is gone: then end at once, in the middle of whatever it is."""
    channel = Channel.inherited(descriptor)
    asked: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def listen() -> None:
        for message in channel.messages():
            asked.put(message)
        os.killpg(0, signal.SIGKILL)  # programs that an activity has started too: the group is ours alone

    threading.Thread(target=listen, name="listen", daemon=True).start()
    while True:
        channel.send(_answer(asked.get()["activity"]))


def _answer(activity: dict[str, Any]) -> Message:
    from chaoslib.activity import run_activity
    from chaoslib.hypothesis import within_tolerance

    try:
        value = run_activity({"type": "action", "name": "activity", **activity}, {}, {})
        met = bool(within_tolerance(activity["tolerance"], value, {}, {})) if activity.get("tolerance") is not None else True
    except Exception as error:  # noqa: BLE001 - whatever an extension raises is told
        return {"type": "played", "error": f"{type(error).__name__}: {error}", "value": None, "met": False}
    return {"type": "played", "error": "", "value": json.loads(json.dumps(value, default=str)), "met": met}


if __name__ == "__main__":
    main(int(sys.argv[1]))
