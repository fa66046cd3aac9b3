"""What a run shows while it goes on, and what its command ends with."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frangible.cli.live import Lines, Picture, Quiet, open_view, picture
from frangible.cli.run import _end, verdict_lines
from frangible.cli.watching import Watched, line_of
from frangible.home import Home

NAMED: Any = SimpleNamespace(
    run_id="r1", experiment="node-loss", environment=SimpleNamespace(name="ny-1"), folder=Path("/f"), record_path=Path("/f/record.json")
)
KEPT = {"indicator": "orders", "value": 0.99871, "bound": "at least 0.99", "state": "kept"}
FAULT = {"event": "fault", "lease": "l1", "fault": "node-loss", "target": "node app-1", "state": "proven", "detail": "no power"}


def event(**content):
    return {"at": 100.0, "run": "r1", **content}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        pytest.param({"event": "started"}, "run r1 is admitted", id="started"),
        pytest.param({"event": "phase", "phase": "baseline", "until": 110.0}, "baseline, at most 10 s", id="phase"),
        pytest.param({"event": "phase", "phase": "judging", "until": None}, "judging", id="phase without end"),
        pytest.param({"event": "indicators", "readings": [KEPT]}, "orders 0.99871 (at least 0.99): kept", id="indicator"),
        pytest.param({"event": "indicators", "readings": [KEPT | {"value": None, "state": "no-data"}]}, "orders - (at least 0.99): no-data", id="no data"),
        pytest.param(FAULT, "node-loss on node app-1: proven (no power)", id="fault"),
        pytest.param({"event": "log", "level": "warning", "message": "stopping"}, "warning: stopping", id="log"),
        pytest.param({"event": "verdict", "outcome": "held"}, None, id="the verdict has a block of its own"),
    ],
)
def test_an_event_of_interest_is_one_line(told, line):
    assert line_of(event(**told), Watched()) == line


@pytest.mark.parametrize("told", [FAULT, {"event": "indicators", "readings": [KEPT]}, {"event": "phase", "phase": "effect", "until": 120.0}])
def test_what_has_not_changed_is_not_said_again(told):
    watched = Watched()
    assert watched.apply(event(**told)) is not None
    assert watched.apply(event(**told)) is None


def test_an_indicator_that_breaks_is_said_alone():
    watched = Watched()
    other = KEPT | {"indicator": "intact"}
    watched.apply(event(event="indicators", readings=[KEPT, other]))
    assert watched.apply(event(event="indicators", readings=[KEPT | {"state": "broken", "value": 0.5}, other])) == "orders 0.5 (at least 0.99): broken"


def test_the_last_event_is_kept():
    watched = Watched()
    watched.apply(event(event="refused", reasons=["halt"], exit_code=4))
    assert watched.last is not None
    assert watched.last["exit_code"] == 4


def drawn(watched: Watched, **settings) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=100, **settings).print(picture(watched, 103.0))
    return out.getvalue()


def shown() -> Watched:
    watched = Watched(run="r1", environment="ny-1", experiment="node-loss")
    for told in (
        {"event": "phase", "phase": "effect", "until": 120.0},
        {"event": "indicators", "readings": [KEPT | {"indicator": "orders[x]"}], "load": 40.0},
        FAULT,
        {"event": "log", "level": "warning", "message": "careful"},
    ):
        watched.apply(event(**told))
    return watched


def test_the_picture_has_phase_countdown_load_indicators_faults_and_messages():
    text = drawn(shown())
    for part in (
        "node-loss on ny-1",
        "effect",
        "17 s left",
        "40/s",
        "orders[x]",
        "0.99871",
        "at least 0.99",
        "kept",
        "node app-1",
        "proven",
        "no power",
        "careful",
    ):
        assert part in text


def test_the_picture_has_no_colours_where_they_are_not_wanted(monkeypatch):
    assert "\x1b[32m" in drawn(shown(), force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in drawn(shown(), force_terminal=True, color_system="standard")


def test_lines_where_stderr_is_no_terminal_and_nothing_when_quiet():
    assert isinstance(open_view(Watched(), quiet=False), Lines)
    assert isinstance(open_view(Watched(), quiet=True), Quiet)


def test_a_picture_where_stderr_is_a_terminal():
    ours, theirs = os.openpty()
    code = (
        "from frangible.cli.live import open_view; from frangible.cli.watching import Watched; "
        "view = open_view(Watched(experiment='e'), quiet=False); view.close(); print(type(view).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    os.close(ours)
    assert done.stdout.strip() == Picture.__name__


def test_lines_have_their_time(capsys):
    Lines(Watched()).show(event(event="started"))
    assert capsys.readouterr().err == "00:01:40Z run r1 is admitted\n"


@pytest.mark.parametrize(("outcome", "code"), [("held", 0), ("deviated", 1), ("inconclusive", 3)])
def test_a_verdict_is_a_block_on_stdout_and_its_exit_code(outcome, code, capsys):
    told = event(event="verdict", outcome=outcome, reasons=["because"], exit_code=code, journalled=True)
    assert _end(NAMED, told, Home(Path("/h")), as_json=False, quiet=False) == code
    assert capsys.readouterr().out == f"{outcome.upper()}: node-loss on ny-1\n  - because\nrun r1; read more: frangible explain r1\n"


def test_a_quiet_verdict_is_one_line():
    assert verdict_lines(event(event="verdict", outcome="held", reasons=["because"]), NAMED, quiet=True) == ["HELD: node-loss on ny-1"]


def test_a_failed_run_says_where_its_log_is(capsys):
    assert _end(NAMED, event(event="failed", message="oh", exit_code=70), Home(Path("/h")), as_json=False, quiet=False) == 70
    assert capsys.readouterr().err == "frangible: oh; its log is /f/supervisor.log\n"


def test_a_record_that_the_journal_did_not_take_is_printed_from_its_spool(tmp_path, capsys):
    spool = tmp_path / "record.json"
    spool.write_text('{"id": "r1"}')
    plan: Any = SimpleNamespace(**{**vars(NAMED), "record_path": spool})
    told = event(event="verdict", outcome="held", reasons=[], exit_code=0, journalled=False)
    assert _end(plan, told, Home(tmp_path), as_json=True, quiet=False) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"id": "r1"}
    assert f"frangible journal import {spool}" in printed.err
