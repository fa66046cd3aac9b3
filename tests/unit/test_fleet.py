"""Many runs at once, with real processes and real signals."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from frangible.cli.many import QuietBoard, TableBoard, board, chosen, labels, parse_selection
from frangible.cli.watching import Watched
from frangible.errors import ExperimentError, UsageError
from frangible.fleet import Ended, Fleet, StopRule, Wanted, prepare_all, worst
from frangible.home import Home
from frangible.inventory import Inventory, Selection, load_inventory

pytestmark = pytest.mark.once

TRIVIAL = """\
title: trivial
description: one probe, no fault
method:
  - type: probe
    name: this-machine
    provider: {type: python, module: platform, func: node}
"""
SLOW = TRIVIAL.replace("{type: python, module: platform, func: node}", "{type: process, path: sleep, arguments: '120', timeout: 120}")
ENVIRONMENT = """\
  - name: {name}
    region: {region}
    tier: staging
    owner: {{team: {team}, contact: nobody}}
    platform: {{kind: hosts, transport: local, root: targets, locks: locks}}
    shares: [{shares}]
    labels: {{cluster: {name}}}
"""
ENVIRONMENTS = [("ny-1", "newyork", "orders", "host-a"), ("ny-2", "newyork", "prices", "host-a"), ("ln-1", "london", "orders", "host-b")]


@pytest.fixture
def estate(tmp_path, monkeypatch):
    """An inventory of three environments, two of which share a host, a quick and a slow experiment, and a home of its own."""
    entries = [ENVIRONMENT.format(name=name, region=region, team=team, shares=shares) for name, region, team, shares in ENVIRONMENTS]
    (tmp_path / "frangible-inventory.yaml").write_text("environments:\n" + "".join(entries))
    (tmp_path / "trivial.yaml").write_text(TRIVIAL)
    (tmp_path / "slow.yaml").write_text(SLOW)
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inventory(estate: Path) -> Inventory:
    return load_inventory(estate / "frangible-inventory.yaml")


def frangible(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "frangible.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def phases(estate: Path) -> dict[str, list[tuple[float, str]]]:
    """Return what the runs of the estate told, by environment: when, and which event or phase."""
    found: dict[str, list[tuple[float, str]]] = {}
    for folder in (estate / "home" / "runs").iterdir():
        name = json.loads(json.loads((folder / "plan.json").read_text())["environment_json"])["name"]
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        found[name] = [(event["at"], event.get("phase", event["event"])) for event in events]
    return found


def test_runs_go_side_by_side_where_their_keys_allow_it_and_are_told_in_one_list(estate):
    run = frangible("run", "trivial.yaml", "--select", "*", "--at-most", "2", "--json")
    out, err = run.communicate(timeout=200)
    assert run.returncode == 3, err
    records = json.loads(out)
    assert [record["environment"] for record in records] == ["ln-1", "ny-1", "ny-2"]
    assert {record["outcome"] for record in records} == {"inconclusive"}
    told = phases(estate)
    assert told["ny-1"][-1][0] <= told["ny-2"][0][0], "both hold the host that they share"
    assert told["ln-1"][0][0] < told["ny-1"][-1][0], "nothing in common, so side by side"
    assert "ln-1: judging" in err
    assert "3 of 3 runs ended" in err


def test_ctrl_c_ends_all_of_them(estate):
    run = frangible("run", "slow.yaml", "-e", "ny-1", "-e", "ln-1", "-e", "ny-2")
    assert run.stderr is not None
    started: set[str] = set()
    heard: list[str] = []
    for line in run.stderr:
        heard.append(line)
        started |= {name for name in ("ny-1", "ln-1") if f"{name}: run " in line and "admitted" in line}
        if started == {"ny-1", "ln-1"}:
            break
    assert started == {"ny-1", "ln-1"}, "".join(heard)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 3, err
    assert "stopping all runs" in err
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "INCONCLUSIVE" in rows["ny-1"]
    assert "INCONCLUSIVE" in rows["ln-1"]
    assert "NOT STARTED" in rows["ny-2"]
    assert "stopped by SIGINT" in rows["ny-2"]
    assert len(list((estate / "home" / "runs").iterdir())) == 2, "what was never started leaves nothing"
    status = frangible("status", "--json")
    assert json.loads(status.communicate(timeout=60)[0])["locks"] == []


def test_a_supervisor_that_is_killed_spoils_one_run_and_not_the_others(estate):
    loaded, home = inventory(estate), Home(estate / "home")
    plans = prepare_all([Wanted(estate / "slow.yaml", loaded.get("ny-1")), Wanted(estate / "trivial.yaml", loaded.get("ny-2"))], loaded, home)
    admitted = threading.Event()

    def told(plan, event):
        if plan is plans[0] and event["event"] == "started":
            admitted.set()

    fleet = Fleet(plans, loaded, home, at_most=2, on_event=told)

    def kill():
        assert admitted.wait(100)
        os.kill(next(fleet.in_progress()).supervisor.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    died, other = fleet.run()
    killer.join()
    assert (died.state, died.exit_code) == ("died", 3)
    assert "supervisor.log" in died.reasons[0]
    assert other.state == "verdict", "the same host: it starts after what the first one left has been looked at"


def test_when_nobody_can_be_told_any_more_all_runs_are_aborted_and_followed_to_their_end(estate):
    loaded, home = inventory(estate), Home(estate / "home")
    plans = prepare_all([Wanted(estate / "slow.yaml", loaded.get(name)) for name in ("ny-1", "ny-2")], loaded, home)

    def told(_plan, event):
        if event["event"] == "started":
            raise BrokenPipeError("the reader has gone")

    ended, left = Fleet(plans, loaded, home, at_most=2, on_event=told).run()
    assert (ended.state, ended.outcome, left.state) == ("verdict", "inconclusive", "not started")
    assert "the reader has gone" in left.reasons[0]


def test_after_the_stop_rule_nothing_is_started(estate):
    loaded, home = inventory(estate), Home(estate / "home")
    (estate / "home").mkdir()
    subprocess.run([sys.executable, "-m", "frangible.cli", "halt", "on", "--reason", "storm"], check=True)
    plans = prepare_all([Wanted(estate / "trivial.yaml", loaded.get(name)) for name in ("ny-1", "ny-2")], loaded, home)
    refused, left = Fleet(plans, loaded, home, at_most=2, rule=StopRule(refused=1)).run()
    assert (refused.state, refused.exit_code) == ("refused", 4)
    assert (left.state, left.reasons) == ("not started", ("the stop rule: 1 run refused",))
    assert not plans[1].folder.exists()


def test_runs_of_before_count_for_the_stop_rule(estate):
    loaded, home = inventory(estate), Home(estate / "home")
    (estate / "home").mkdir()
    subprocess.run([sys.executable, "-m", "frangible.cli", "halt", "on", "--reason", "storm"], check=True)
    plans = prepare_all([Wanted(estate / "trivial.yaml", loaded.get(name)) for name in ("ny-1", "ny-2")], loaded, home)
    before = (Ended(plans[0], "refused", "refused", (), 4),)
    _, left = Fleet(plans, loaded, home, at_most=2, rule=StopRule(refused=2), before=before).run()
    assert (left.state, left.reasons) == ("not started", ("the stop rule: 2 runs refused",))


def test_after_stop_what_is_in_progress_goes_on_to_its_end(estate):
    loaded, home = inventory(estate), Home(estate / "home")
    plans = prepare_all([Wanted(estate / "trivial.yaml", loaded.get(name)) for name in ("ny-1", "ny-2")], loaded, home)
    fleet = Fleet(plans, loaded, home, at_most=2, on_event=lambda _plan, _event: fleet.stop("the window has ended"))
    ended, left = fleet.run()
    assert (ended.state, left.state, left.reasons) == ("verdict", "not started", ("the window has ended",))
    assert "aborted" not in ended.reasons[0]


def test_all_problems_of_all_environments_before_anything_starts(estate):
    loaded, home = inventory(estate), Home(estate / "home")
    (estate / "bad.yaml").write_text(TRIVIAL.replace("module: platform, func: node", "module: nowhere.at.all, func: node"))
    wanted = [Wanted(estate / name, loaded.get("ny-1")) for name in ("trivial.yaml", "bad.yaml", "missing.yaml")]
    with pytest.raises(ExperimentError) as caught:
        prepare_all(wanted, loaded, home)
    assert {Path(problem.file).name for problem in caught.value.problems} == {"bad.yaml", "missing.yaml"}
    assert list(home.runs.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "selection"),
    [
        pytest.param(["ny-*"], Selection(names=("ny-*",)), id="glob"),
        pytest.param(["region=london,tier=staging"], Selection(region="london", tier="staging"), id="several in one"),
        pytest.param(["owner=orders", "label:cluster=ny-1"], Selection(owner="orders", labels={"cluster": "ny-1"}), id="label"),
    ],
)
def test_a_selection_is_globs_and_pairs(texts, selection):
    assert parse_selection(texts) == selection


@pytest.mark.parametrize(
    ("text", "says"),
    [("regoin=london", "region"), ("region=", "found nothing"), ("", "found nothing"), ("region=a,region=b", "given twice")],
)
def test_a_selection_that_means_nothing_is_said(text, says):
    with pytest.raises(UsageError, match=says):
        parse_selection([text])


def test_named_environments_come_first_and_each_once(estate):
    assert [one.name for one in chosen(inventory(estate), ["ny-2", "ny-2"], ["owner=orders"])] == ["ny-2", "ln-1", "ny-1"]
    with pytest.raises(UsageError, match=r"no environment of .* matches"):
        chosen(inventory(estate), [], ["region=mars"])


@pytest.mark.parametrize(("codes", "expected"), [([], 0), ([0, 3, 1], 1), ([1, 4], 4), ([4, 70], 70), ([3, 0], 3), ([0, 2], 2)])
def test_the_exit_code_of_many_is_the_worst(codes, expected):
    assert worst(codes) == expected


def planned(run_id: str, name: str = "ny-1", experiment: str = "surge") -> Any:
    return SimpleNamespace(run_id=run_id, experiment=experiment, experiment_path=experiment, environment=SimpleNamespace(name=name))


def test_runs_are_told_apart_by_as_little_as_possible():
    assert labels([planned("a"), planned("b", "ny-2")]) == {"a": "ny-1", "b": "ny-2"}
    assert labels([planned("a"), planned("b")]) == {"a": "ny-1 #1", "b": "ny-1 #2"}
    assert labels([planned("a"), planned("b", experiment="loss")]) == {"a": "ny-1 surge", "b": "ny-1 loss"}


def test_the_board_has_a_row_for_each_run_in_progress():
    from rich.console import Console

    plans = [planned("a"), planned("b", "ny-2"), planned("c", "ny-3")]
    shown: Any = QuietBoard(plans)
    shown.said = "stopping all runs"
    shown.show(plans[0], {"at": 1.0, "run": "a", "event": "phase", "phase": "effect", "until": 9.0})
    shown.show(plans[0], {"at": 1.0, "run": "a", "event": "fault", "lease": "l", "fault": "node-loss", "target": "app-1", "state": "proven"})
    readings = [{"indicator": name, "value": 0.5, "bound": "at least 0.9", "state": state} for name, state in (("fine", "kept"), ("orders", "broken"))]
    shown.show(plans[0], {"at": 1.0, "run": "a", "event": "indicators", "readings": readings})
    shown.end(Ended(plans[1], "verdict", "held", (), 0))
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(board(shown, 4.0))
    console.file.close()
    text = console.export_text()
    assert "1 of 3 runs ended  1 held" in text
    assert "ny-1" in text
    assert "effect" in text
    assert "5 s" in text
    assert "node-loss on app-1" in text
    assert "orders 0.5 (at least 0.9): broken" in text
    assert "ny-2" not in text
    assert "stopping all runs" in text


def test_quiet_says_nothing_until_a_key_is_pressed(capfd):
    QuietBoard([planned("a")]).say("stopping")
    assert capfd.readouterr().err == "stopping\n"
    assert issubclass(TableBoard, QuietBoard)
    assert Watched().last is None
