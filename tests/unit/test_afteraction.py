"""The after-action report: what people who were not there read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frangible.afteraction import DayReport, Looked, RunOutcome, markdown
from frangible.agenda import Agenda
from frangible.trials import Check

AGENDA = Agenda.model_validate(
    {"title": "Nodes", "people": [{"name": "Ada", "role": "lead"}], "teams": ["desk"], "waves": [{"experiments": ["x"], "environments": ["ny-1"]}]}
)
HELD = RunOutcome(
    "w", "node-loss", "ln-1", "orders", "o@example.com", "held", (), "r1", 10.0, 70.0, (), (("OrdersLate", "did not fire in the 27 s that were watched"),)
)
DEVIATED = RunOutcome(
    "w",
    "node-loss",
    "ny-1",
    "prices",
    "",
    "deviated",
    ("acknowledged 0.5 (at least 0.99)", "too late"),
    "r2",
    20.0,
    80.0,
    ((30.0, "node-loss on node app-1 proven"), (50.0, "node-loss on node app-1 reverted")),
    (("OrdersLate", "did not fire in the 30 s that were watched (asked: within 10 s)"), ("NodeDown", "fired 3.0 s after the fault was first seen")),
)
LEFT = RunOutcome("w", "surge", "ny-2", "orders", "o@example.com", "not started", ("the stop rule: 1 run deviated",))


def report(*runs: RunOutcome, agenda: Agenda = AGENDA, stopped: str = "", **more) -> str:
    given = {"plan": "day.yaml", "digest": "ab" * 32, "actor": "ada@box", "version": "1", "began": 0.0, "ended": 100.0, "looked": (), "happened": ()}
    return markdown(DayReport(agenda=agenda, runs=runs, stopped=stopped, **{**given, **more}))


def section(text: str, heading: str) -> str:
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_facts_come_first():
    text = report(HELD, DEVIATED, LEFT, stopped="the stop rule: 1 run deviated")
    assert text.startswith("# After-action report: Nodes\n")
    assert "| outcome | 3 runs: 1 held, 1 deviated, 1 not started |" in text
    assert "| started by | ada@box |" in text
    assert "| Ada | lead |  |" in text
    assert "| desk | takes part |  |" in text


def test_the_timeline_is_in_order_of_time():
    told = re.findall(r"^\| (\d\d:\d\d:\d\d) \| (.*) \|$", section(report(HELD, DEVIATED, happened=((0.0, "go: 3 checks passed"),)), "Timeline"), re.MULTILINE)
    assert [at for at, _ in told] == sorted(at for at, _ in told)
    assert [what for _, what in told] == [
        "go: 3 checks passed",
        "node-loss on ln-1: started",
        "node-loss on ny-1: started",
        "node-loss on ny-1: node-loss on node app-1 proven",
        "node-loss on ny-1: node-loss on node app-1 reverted",
        "node-loss on ln-1: held",
        "node-loss on ny-1: deviated",
    ]


def test_each_team_gets_what_it_has_to_look_at():
    followed = section(report(HELD, DEVIATED, LEFT), "Follow-ups")
    orders, prices = followed.split("### prices")
    assert "### orders (o@example.com)" in orders
    assert "- [ ] ny-2, surge: not started" in orders
    assert "ln-1" not in orders, "what held asks for nothing"
    assert "- [ ] ny-1, node-loss: deviated (acknowledged 0.5 (at least 0.99)); find out why" in prices
    assert "`frangible explain r2`" in prices
    assert "the alert OrdersLate did not fire" in prices
    assert "NodeDown" not in prices


def test_what_was_stopped_is_said_with_what_was_left():
    text = section(report(DEVIATED, LEFT, stopped="the stop rule: 1 run deviated"), "What was stopped, and why")
    assert "The stop rule: 1 run deviated." in text
    assert "- surge on ny-2" in text
    assert "What was stopped" not in report(HELD)


def test_a_no_go_names_the_checks_that_failed():
    looked = (Looked("", Check("halt", ok=False, found="the halt is on", advice="lift it")), Looked("ny-1", Check("tier", ok=True, found="staging")))
    text = report(looked=looked, stopped="no-go: 1 of 2 checks did not pass")
    assert "1 of 2 checks passed; these did not:" in text
    assert "| all | halt | the halt is on | lift it |" in text
    assert "| outcome | nothing was run |" in text


@pytest.mark.parametrize("outcome", ["deviated", "inconclusive", "refused", "failed", "died", "not started", "left"])
def test_everything_but_held_asks_for_something(outcome):
    assert outcome in section(report(RunOutcome("w", "x", "ny-1", "orders", "", outcome, ("why",), "r1")), "Follow-ups")


@given(st.lists(st.text(min_size=1), min_size=6, max_size=6))
def test_no_text_breaks_a_table(texts):
    """Whatever people call things: each row has as many cells as its header."""
    wave, environment, team, reason, alert, title = texts
    one = RunOutcome(wave, "node-loss", environment, team, team, "deviated", (reason,), "r1", 1.0, 2.0, ((1.5, reason),), ((alert, reason),))
    agenda = AGENDA.model_copy(update={"title": title, "purpose": reason})
    columns = 0
    for line in report(one, agenda=agenda, stopped=reason, happened=((1.0, reason),)).split("\n"):
        cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
        if line.startswith("| "):
            columns = columns or cells
            assert cells == columns, line
        else:
            columns = 0
            assert cells == 0, line
