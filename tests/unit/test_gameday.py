"""Game days: the plan and its problems, go and no-go, waves with real runs, and every way in which a day is stopped."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from frangible.agenda import Agenda, load_agenda, steps
from frangible.cli.gameday import _wait
from frangible.cli.group import app
from frangible.cli.validate import Kind, kind_of
from frangible.errors import GameDayError, UsageError
from frangible.fleet import Fleet
from frangible.gameday import Conduct, GameDay
from frangible.home import Home
from frangible.inventory import load_inventory
from frangible.launch import Known
from frangible.locks import FileLockStore
from frangible.process import ProcessIdentity
from frangible.schemas import schemas

pytestmark = pytest.mark.once

EXAMPLE = Path(__file__).parents[2] / "ci" / "gameday.yaml"
TRIVIAL = """\
title: trivial
description: one probe, no fault
method:
  - type: probe
    name: this-machine
    provider: {type: python, module: platform, func: node}
"""
SLOW = TRIVIAL.replace("{type: python, module: platform, func: node}", "{type: process, path: sleep, arguments: '600', timeout: 600}")
INVENTORY = """\
environments:
  - name: ny-1
    region: newyork
    tier: staging
    owner: {team: orders, contact: orders@example.com}
    platform: {kind: hosts, transport: local, root: targets, locks: locks}
    labels: {cluster: ny-1}
  - {name: ny-2, parent: ny-1, labels: {cluster: ny-2}, owner: {team: prices}}
  - {name: ln-1, parent: ny-1, region: london, labels: {cluster: ln-1}}
"""
DAY = """\
title: A day
ticket: CHG-4711
people: [{name: Ada, role: lead}]
waves:
  - experiments: [trivial.yaml]
    environments: [ny-2, "l*"]
  - {name: again, experiments: [trivial.yaml], environments: {region: london}}
limits: {at-once: 2}
"""


@pytest.fixture
def estate(tmp_path, monkeypatch):
    """A folder with an inventory, two experiments and a plan, and a home of its own."""
    for name, text in (("frangible-inventory.yaml", INVENTORY), ("trivial.yaml", TRIVIAL), ("slow.yaml", SLOW), ("day.yaml", DAY)):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str):
    return CliRunner().invoke(app, ["gameday", *arguments], prog_name="frangible")


def started(*arguments: str, **how) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "frangible.cli", "gameday", *arguments]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how})


def runs_of(estate: Path) -> list[Path]:
    folder = estate / "home" / "runs"
    return sorted(folder.iterdir()) if folder.exists() else []


def wait_for(process: "subprocess.Popen[str]", *wanted: str) -> str:
    """Read what it tells on stderr until every pattern was seen."""
    assert process.stderr is not None
    heard, left = "", set(wanted)
    for line in process.stderr:
        heard += line
        left -= {pattern for pattern in left if re.search(pattern, line)}
        if not left:
            return heard
    raise AssertionError(f"never told: {left}\n{heard}")


# --- the plan -----------------------------------------------------------------------------------------------------------


def found(name: str) -> Path:
    raise UsageError(f"experiment {name!r}: there is none")


def planned(estate: Path, text: str) -> list[tuple[int, str, str]]:
    (estate / "day.yaml").write_text(text)
    agenda, document = load_agenda(estate / "day.yaml")
    wanted = steps(agenda, document, load_inventory(estate / "frangible-inventory.yaml"), found)
    return [(step.wave, step.experiment.stem, step.environment.name) for step in wanted]


def test_a_plan_is_waves_of_experiments_on_environments_in_the_order_of_their_names(estate):
    assert planned(estate, DAY) == [(0, "trivial", "ny-2"), (0, "trivial", "ln-1"), (1, "trivial", "ln-1")]
    both = DAY.replace("[trivial.yaml]\n", "[slow.yaml, trivial.yaml]\n").replace('[ny-2, "l*"]', '{names: ["*-1", ny-2]}')
    assert planned(estate, both)[:3] == [(0, "slow", "ln-1"), (0, "slow", "ny-1"), (0, "slow", "ny-2")]


def test_all_problems_of_a_plan_come_at_once_each_with_its_line(estate):
    (estate / "day.yaml").write_text("title: ''\nwhen: {from: tomorrow}\nwaves:\n  - experiments: []\n    enviroments: [ny-1]\nlimits: {pause: 5}\n")
    with pytest.raises(GameDayError) as caught:
        load_agenda(estate / "day.yaml")
    said = [str(problem) for problem in caught.value.problems]
    assert {problem.line for problem in caught.value.problems} == {1, 2, 4, 5, 6}
    assert any("expected a time such as" in one for one in said)
    assert any("did you mean `environments`?" in one for one in said)


def test_what_a_plan_names_and_nobody_knows_is_a_problem(estate):
    text = DAY.replace("[trivial.yaml]\n", "[nowhere, trivial.yaml]\n").replace("ny-2", "ny-3").replace("region: london", "region: mars")
    with pytest.raises(GameDayError) as caught:
        planned(estate, text)
    assert [problem.line for problem in caught.value.problems] == [5, 6, 7]
    assert "did you mean `ny-2`?" in str(caught.value)
    assert "no environment of the inventory matches" in str(caught.value)


def test_a_window_that_ends_before_it_begins_is_a_problem(estate):
    with pytest.raises(GameDayError, match="expected `from` before `until`"):
        planned(estate, DAY + "when: {from: '2026-12-01T20:00Z', until: '2026-12-01T18:00 Europe/London'}\n")


@pytest.mark.checkout
def test_the_example_is_a_plan_of_the_lab(estate):
    agenda, document = load_agenda(EXAMPLE)
    lab = INVENTORY.replace("ny-1", "lab-newyork").replace("ny-2", "lab-spare").replace("ln-1", "lab-london")
    (estate / "frangible-inventory.yaml").write_text(lab)
    shipped = {"placebo": Path("placebo.yaml"), "node-loss": Path("node-loss.yaml")}
    wanted = steps(agenda, document, load_inventory(estate / "frangible-inventory.yaml"), lambda name: shipped[name])
    assert [(step.wave, step.experiment.stem, step.environment.name) for step in wanted] == [
        (0, "placebo", "lab-london"),
        (0, "placebo", "lab-newyork"),
        (1, "node-loss", "lab-london"),
        (2, "node-loss", "lab-newyork"),
    ]
    assert kind_of(EXAMPLE) is Kind.GAMEDAY
    jsonschema.Draft202012Validator(schemas()["gameday"]).validate(yaml.safe_load(EXAMPLE.read_text()))
    assert CliRunner().invoke(app, ["validate", str(EXAMPLE)]).exit_code == 0


def test_validate_knows_plans_and_the_experiments_that_they_name(estate):
    (estate / "day.yaml").write_text(DAY.replace("[trivial.yaml]\n", "[node-los]\n"))
    result = CliRunner().invoke(app, ["validate", "day.yaml"])
    assert result.exit_code == 2
    assert "day.yaml:5: waves[0].experiments[0]: experiment 'node-los'" in result.stderr


# --- go or no-go --------------------------------------------------------------------------------------------------------


def test_the_checklist_says_go_and_leaves_nothing(estate):
    result = call("check", "day.yaml")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "GO: A day"
    assert "[x] ny-2: experiment trivial: can run here" in result.stdout
    assert runs_of(estate) == []


def refuse_by_halt(estate: Path) -> None:
    CliRunner().invoke(app, ["halt", "on", "--reason", "incident 7"])


def refuse_by_lock(estate: Path) -> None:
    FileLockStore(estate / "locks").acquire("environment:ny-2", "other-run", ProcessIdentity.current(), 300.0)


def refuse_by_window(estate: Path) -> None:
    (estate / "day.yaml").write_text(DAY + "when: {until: '2020-01-01T00:00Z'}\n")


def refuse_by_experiment(estate: Path) -> None:
    (estate / "trivial.yaml").write_text(TRIVIAL.replace("module: platform", "module: nowhere.at.all"))


def refuse_by_tier(estate: Path) -> None:
    path = estate / "frangible-inventory.yaml"
    path.write_text(path.read_text().replace("name: ny-2,", "name: ny-2, tier: production,"))


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        (refuse_by_halt, "halt: the halt is on, by .*: incident 7"),
        (refuse_by_lock, "ny-2: locks free: held: environment:ny-2 by run other-run"),
        (refuse_by_window, "time window: .*to end before 2020-01-01"),
        (refuse_by_experiment, "ln-1: experiment trivial: .*nowhere.at.all"),
        (refuse_by_tier, "ny-2: tier: .*production"),
    ],
)
def test_one_check_that_fails_is_a_no_go_and_nothing_is_run(estate, refuse, says):
    refuse(estate)
    checked = call("check", "day.yaml", "--json")
    assert checked.exit_code == 4
    assert not json.loads(checked.stdout)["go"]
    result = call("run", "day.yaml", "--report", "report.md", "--quiet")
    assert result.exit_code == 4
    assert re.search(rf"^\[ \] {says}", result.stderr, re.MULTILINE), result.stderr
    assert "[x]" not in result.stderr, "quiet tells what failed only"
    assert runs_of(estate) == []
    assert "no-go: " in (estate / "report.md").read_text()


def test_a_query_without_data_and_a_prometheus_that_is_away_are_a_no_go(estate):
    path = estate / "frangible-inventory.yaml"
    more = "    prometheus: {url: 'http://127.0.0.1:1', timeout: 1s}\n    nodes: [{name: app-1, roles: [execution]}]\n"
    power = "power: {driver: command, on: ['true', '{node}'], off: ['true', '{node}'], state: [sh, -c, 'echo on', '{node}']}"
    path.write_text(path.read_text().replace("locks: locks}\n", f"locks: locks, {power}}}\n{more}"))
    (estate / "day.yaml").write_text(DAY.replace("trivial.yaml", "placebo"))
    document = json.loads(call("check", "day.yaml", "--json").stdout)
    failed = {(check["environment"], check["name"]) for check in document["checks"] if not check["ok"]}
    assert {("ny-2", "Prometheus answers"), ("ln-1", "scrape interval")} <= failed
    assert any(name.startswith("order-flow ") for _, name in failed)
    assert not any(name.startswith("middleware ") for _, name in failed), "only hypotheses of the day's experiments are asked for"


def test_a_report_that_cannot_be_written_keeps_the_day_from_beginning(estate):
    (estate / "file").touch()
    result = call("run", "day.yaml", "--report", "file/report.md")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert runs_of(estate) == []


# --- the waves ----------------------------------------------------------------------------------------------------------


def test_waves_are_run_one_after_the_other_and_reported(estate):
    day = started("run", "day.yaml", "--json")
    out, err = day.communicate(timeout=200)
    assert day.returncode == 3, err
    document = json.loads(out)
    assert [(one["wave"], one["environment"], one["outcome"]) for one in document["runs"]] == [
        ("wave 1", "ny-2", "inconclusive"),
        ("wave 1", "ln-1", "inconclusive"),
        ("again", "ln-1", "inconclusive"),
    ]
    first, second, third = document["runs"]
    assert max(first["ended"], second["ended"]) <= third["began"]
    assert document["stopped"] is None
    report = Path(document["report"])
    assert report.parent == estate / "home" / "gamedays"
    text = report.read_text()
    assert all(f"`{one['run']}`" in text for one in document["runs"])
    assert "| ticket | CHG-4711 |" in text
    shown = CliRunner().invoke(app, ["journal", "show", third["run"], "--json"])
    assert json.loads(shown.stdout)["note"] == "game day: A day, again"


def run_it(fleet: Fleet) -> None:
    fleet.run()


def test_after_a_refusal_nothing_more_is_started_and_the_report_says_so(estate):
    """The halt comes between the checks and the first run: on the way through, guards say no all the same."""
    loaded = load_inventory(estate / "frangible-inventory.yaml")
    agenda, document = load_agenda(estate / "day.yaml")
    agenda = agenda.model_copy(update={"limits": agenda.limits.model_copy(update={"at_once": 1})})
    wanted = steps(agenda, document, loaded, found)
    day = GameDay(agenda, estate / "day.yaml", "d", wanted, loaded, Home(estate / "home"), {step.experiment: Known(step.experiment) for step in wanted})
    refuse_by_halt(estate)
    conduct = Conduct(day, "ada@box", "1", run_it, lambda _at, _what: None)
    conduct.run()
    assert [one.outcome for one in conduct.outcomes()] == ["refused", "not started", "not started"]
    assert conduct.stopped == "the stop rule: 1 run refused"
    assert conduct.exit_code() == 4
    assert conduct.report(over=True).stopped == conduct.stopped
    assert len(runs_of(estate)) == 1


def test_a_rule_that_is_reached_by_the_last_run_has_stopped_nothing(estate):
    (estate / "day.yaml").write_text(DAY.partition("  - {name: again")[0])
    loaded = load_inventory(estate / "frangible-inventory.yaml")
    agenda, document = load_agenda(estate / "day.yaml")
    wanted = steps(agenda, document, loaded, found)[:1]
    day = GameDay(agenda, estate / "day.yaml", "d", wanted, loaded, Home(estate / "home"), {step.experiment: Known(step.experiment) for step in wanted})
    refuse_by_halt(estate)
    conduct = Conduct(day, "ada@box", "1", run_it, lambda _at, _what: None)
    conduct.run()
    assert [one.outcome for one in conduct.outcomes()] == ["refused"]
    assert conduct.stopped == ""


def test_when_the_window_has_ended_nothing_is_started(estate):
    (estate / "day.yaml").write_text(DAY + "when: {until: '2020-01-01T00:00Z'}\n")
    loaded = load_inventory(estate / "frangible-inventory.yaml")
    agenda, document = load_agenda(estate / "day.yaml")
    day = GameDay(agenda, estate / "day.yaml", "d", steps(agenda, document, loaded, found), loaded, Home(estate / "home"), {})
    conduct = Conduct(day, "ada@box", "1", lambda _fleet: pytest.fail("a wave began"), lambda _at, _what: None)
    conduct.run()
    assert conduct.stopped == "the time window ended at 2020-01-01T00:00Z"
    assert {one.outcome for one in conduct.outcomes()} == {"not started"}
    assert conduct.exit_code() == 3


def test_ctrl_c_in_a_wave_ends_its_runs_and_the_day(estate):
    (estate / "day.yaml").write_text(DAY.replace("trivial.yaml", "slow.yaml", 1))
    day = started("run", "day.yaml", "--report", "report.md")
    wait_for(day, "ny-2: run .* is admitted", "ln-1: run .* is admitted")
    day.send_signal(signal.SIGINT)
    out, err = day.communicate(timeout=120)
    assert day.returncode == 3, err
    assert "NOT STARTED" in out
    text = (estate / "report.md").read_text()
    assert "| stopped | stopped by SIGINT |" in text
    assert "| outcome | 3 runs: 2 inconclusive, 1 not started |" in text
    assert json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["locks"] == []


# --- scheduled ----------------------------------------------------------------------------------------------------------


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_the_checks_are_made_again_when_the_time_has_come(estate, monkeypatch):
    """What was well when the day was planned for the evening says nothing about the evening."""
    seen: list[str] = []

    def evening(_until: float, what: str, *_: object, **__: object) -> None:
        seen.append((estate / "report.md").read_text())
        refuse_by_halt(estate)

    monkeypatch.setattr("frangible.cli.gameday._wait", evening)
    result = call("run", "day.yaml", "--at", soon(3600), "--report", "report.md")
    assert result.exit_code == 4, result.output
    assert "go: 14 checks passed" in seen[0], "the report tells of a day that waits"
    assert "GO: A day" in result.stderr
    assert "NO-GO: A day: 1 of 14 checks did not pass" in result.stderr
    text = (estate / "report.md").read_text()
    assert "waiting until" in text
    assert "no-go" in text
    assert runs_of(estate) == []


def test_waiting_ends_when_the_time_has_come():
    said: list[str] = []
    began = time.time()
    _wait(began + 1.2, "the day begins", said.append, quiet=True)
    assert time.time() >= began + 1.2
    assert said[0].startswith("the day begins in ")
    assert len(said) == 1, "a countdown is for terminals"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_countdown_ends_when_somebody_asks_for_it(estate, number):
    """On a terminal it counts down in place; a signal ends the day before anything was started."""
    screen, terminal = pty.openpty()
    day = started("run", "day.yaml", "--at", soon(3600), "--report", "report.md", stderr=terminal)
    os.close(terminal)
    heard = b""
    while b"Ctrl-C ends it" not in heard:
        heard += os.read(screen, 4096)
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: _read(screen), b"")], daemon=True)
    reader.start()
    day.send_signal(number)
    out, _ = day.communicate(timeout=60)
    assert day.returncode == 3
    assert "report: report.md" in out
    assert f"| stopped | stopped by {number.name} |" in (estate / "report.md").read_text()
    assert runs_of(estate) == []
    reader.join()
    os.close(screen)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the last process at the other end has gone
        return b""


@pytest.mark.parametrize(("at", "says"), [("2020-01-01T00:00Z", "in the past"), ("soon", "expected a time such as")])
def test_a_time_that_cannot_be_waited_for_is_a_usage_error(estate, at, says):
    result = call("run", "day.yaml", "--at", at)
    assert result.exit_code == 2
    assert says in result.stderr


def test_the_help_shows_how_to_schedule_a_day():
    text = call("run", "--help").stdout
    assert "0 18 * * 5  cd /srv/estate && frangible gameday run" in text
    assert "--on-calendar=" in text


def test_a_plan_has_sensible_defaults():
    agenda = Agenda.model_validate({"title": "x", "waves": [{"experiments": ["a"], "environments": {}}]})
    assert (agenda.limits.at_once, agenda.limits.pause, agenda.stop.after_deviated, agenda.stop.on_refused) == (1, 0.0, 0, True)
