"""The line between the two processes of a run: nothing lost, and the end noticed."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from frangible.admission import Link, RunAborted
from frangible.channel import Channel, ChannelClosed

ECHO = """
import sys
from frangible.channel import Channel
channel = Channel.inherited(int(sys.argv[1]))
for message in channel.messages():
    channel.send({"type": "echo", "of": message})
"""


@pytest.fixture
def echo():
    """A real process at the other end that sends everything back."""
    ours, theirs = Channel.pair()
    process = subprocess.Popen([sys.executable, "-c", ECHO, str(theirs.fileno())], pass_fds=(theirs.fileno(),))
    theirs.close_here()
    yield ours, process
    ours.close()
    process.kill()
    process.wait()


def test_messages_arrive_whole_and_in_order_whatever_their_size(echo):
    channel, _ = echo
    sent = [{"type": "x", "text": "é\n" * size} for size in (0, 1, 70_000, 3)]
    threading.Thread(target=lambda: [channel.send(message) for message in sent]).start()
    received = [message["of"] for _, message in zip(sent, channel.messages(), strict=False)]
    assert received == sent


def test_the_end_of_a_killed_process_ends_the_messages_and_refuses_to_send(echo):
    channel, process = echo
    os.kill(process.pid, signal.SIGKILL)
    assert list(channel.messages()) == []
    with pytest.raises(ChannelClosed, match="gone"):
        channel.send({"type": "x"})


@pytest.fixture
def line():
    """A link, and the supervisor's end of it."""
    ours, theirs = Channel.pair()
    link = Link(ours)
    yield link, theirs
    link.close()
    theirs.close()


def test_a_link_stops_its_run_when_the_supervisor_dies(line):
    link, theirs = line
    threading.Timer(0.05, theirs.close).start()
    with pytest.raises(RunAborted, match="supervisor of this run is gone"):
        link.ask("baseline")
    assert link.stop.is_set()
    assert link.supervisor_gone


def test_an_abort_interrupts_whoever_waits_for_an_answer(line):
    link, theirs = line
    threading.Timer(0.05, theirs.send, [{"type": "abort", "reason": "halt is on"}]).start()
    with pytest.raises(RunAborted, match="halt is on"):
        link.ask("recovery")


def test_answers_reach_the_question_that_they_belong_to(line):
    link, theirs = line

    def supervisor() -> None:
        asked = []
        for message in theirs.messages():
            if message["type"] == "ask":
                asked.append(message)
            if len(asked) == 2:
                for ask in reversed(asked):
                    theirs.send({"type": "answer", "number": ask["number"], "for": ask["what"]})
                return

    threading.Thread(target=supervisor, daemon=True).start()
    answers = {}
    asking = [threading.Thread(target=lambda what=what: answers.update({what: link.ask(what)["for"]})) for what in ("baseline", "inject")]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(10)
    assert answers == {"baseline": "baseline", "inject": "inject"}
