"""The command line: what each command prints and ends with, through real stores and, where it matters, real processes."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from frangible.cli import completion
from frangible.cli.group import COMMANDS, app
from frangible.cli.manual import commands, manual
from frangible.cli.output import columns, json_document, moment, span
from frangible.cli.reporting import reporting
from frangible.cli.validate import Kind, kind_of
from frangible.errors import InputError, LockHeld, ObserverFailed, Problem, Refused, UsageError
from frangible.fault import Target
from frangible.home import Home
from frangible.journal import Journal, RunRecord, record_to_json
from frangible.judge import IndicatorVerdict, Outcome, Window, WindowName
from frangible.ledger import Ledger
from frangible.ledger.lease import Lease
from frangible.process import ProcessIdentity

CHECKOUT = Path(__file__).parents[2]
HEAVY = {"pydantic", "yaml", "sqlalchemy", "alembic", "requests", "scipy", "numpy", "rich", "chaoslib", "prometheus_api_client", "psutil"}

INVENTORY = """
environments:
  - name: ny-1
    region: newyork
    tier: staging
    owner: {{team: env-ny, contact: env-ny@example.invalid}}
    labels: {{environment: ny-1}}
    platform:
      kind: hosts
      root: {root}/targets
      locks: {root}/locks
      power:
        driver: command
        on: ["true", "{{node}}"]
        off: ["true", "{{node}}"]
        state: [sh, -c, "echo on", "{{node}}"]
    prometheus: {{url: "http://127.0.0.1:1", timeout: 1s, runs-on: outside}}
    nodes:
      - {{name: app-1, roles: [execution]}}
      - {{name: app-2, roles: [execution]}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of this test's own, with an inventory of one environment."""
    path = tmp_path / "home"
    path.mkdir()
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(INVENTORY.format(root=tmp_path))
    monkeypatch.setenv("FRANGIBLE_HOME", str(path))
    monkeypatch.setenv("FRANGIBLE_INVENTORY", str(inventory))
    return Home(path)


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments), prog_name="frangible")


def record(**changes) -> RunRecord:
    base = RunRecord(
        id="20261123-2351-07-3fa9",
        experiment="node-loss",
        experiment_title="Orders flow on",
        experiment_digest="d1",
        environment="ny-1",
        region="newyork",
        tier="staging",
        owner="env-ny",
        note="",
        ticket="",
        actor="ada@box",
        supervisor=ProcessIdentity.current(),
        started_at=1_764_000_000.0,
        ended_at=1_764_000_060.0,
        state="finished",
        outcome="deviated",
        reasons=("orders were late",),
        ending="completed",
        keys=("environment:ny-1",),
    )
    return replace(base, **changes)


def running(**changes) -> RunRecord:
    return record(state="started", outcome=None, ended_at=None, reasons=(), ending="", **changes)


def keep(home: Home, *records: RunRecord) -> None:
    with Journal.open(home.journal_url) as journal:
        for one in records:
            (journal.finish if one.state == "finished" else journal.start)(one)


@contextlib.contextmanager
def ledger_at(home: Home) -> Iterator[Ledger]:
    with contextlib.closing(Ledger.open(home.ledger_url)) as ledger:
        yield ledger


# --- help ---------------------------------------------------------------------------------------------------------------


def test_the_root_help_names_every_command_and_imports_no_library_that_costs():
    code = "import sys; sys.argv = ['frangible', '--help']; from frangible.cli import main; main(); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(re.search(rf"^  {name} ", done.stdout, re.MULTILINE) for name in COMMANDS)
    assert HEAVY & set(done.stderr.split()) == set()


def test_commands_import_what_costs_only_when_they_run():
    code = "import sys; from frangible.cli.group import LazyCommands; [*LazyCommands().values()]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {f"frangible.cli.{name}" for name in COMMANDS} <= set(done.stdout.split())
    assert HEAVY & set(done.stdout.split()) <= {"pydantic"}, "typer itself reads parameters with pydantic"


@pytest.mark.parametrize(("name", "text"), [pytest.param(name, text, id=name) for name, text in commands()])
def test_every_command_explains_itself_and_shows_an_example(name, text):
    assert "Example:" in text or name == "frangible lab"
    assert len(text.split("Options:")[0].splitlines()) > 2


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_of_any_help_is_cut_or_too_long(width):
    """Neither a command's sentence in the table of its group, nor an example; what an option is for is said of each."""
    for name, text in commands(width):
        lines = [line for line in text.splitlines() if not line.startswith("Usage:")]
        assert [line for line in lines if line.endswith("...") or len(line) > width] == [], name
        options = re.findall(r"^  (-\S.*)$", text, re.MULTILINE)
        assert [option for option in options if option == option.partition("  ")[0]] == [], name


@pytest.mark.checkout
def test_the_page_of_the_command_line_is_what_the_help_says():
    assert (CHECKOUT / "docs" / "cli.md").read_text() == manual(), "run: python -m frangible.cli.manual > docs/cli.md"


def test_the_version_is_printed():
    assert call("--version").stdout.startswith("frangible ")


def test_an_unknown_command_is_a_usage_error_with_the_nearest_name():
    result = call("rum")
    assert result.exit_code == 2
    assert "'run'" in result.stderr


# --- errors -------------------------------------------------------------------------------------------------------------


def ending(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as end, reporting():
        raise error
    return end.value.exit_code


PROBLEMS = (Problem("a.yaml", 3, "tier", "expected staging", "write staging"), Problem("a.yaml", 9, "", "no name"))


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        pytest.param(UsageError("what?"), 2, ["frangible: what?"], id="usage"),
        pytest.param(InputError(PROBLEMS), 2, ["frangible: a.yaml:3: tier: expected staging (write staging)", "frangible: a.yaml:9: no name"], id="input"),
        pytest.param(Refused("halt is on", "open leases"), 4, ["frangible: not injecting: halt is on; open leases"], id="refused"),
        pytest.param(LockHeld("held by r1"), 4, ["frangible: not injecting: held by r1"], id="lock"),
        pytest.param(ObserverFailed("no answer"), 70, ["frangible: no answer"], id="observer"),
        pytest.param(UsageError(""), 2, ["frangible: UsageError"], id="without words"),
    ],
)
def test_an_error_of_ours_becomes_a_message_and_its_exit_code(error, code, lines, home, capsys):
    assert ending(error) == code
    assert capsys.readouterr().err.splitlines() == lines


def test_an_unexpected_error_ends_with_70_and_leaves_its_traceback_in_a_file(home, capsys):
    assert ending(ZeroDivisionError("oh")) == 70
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "ZeroDivisionError: oh" in told
    (log,) = (home.path / "logs").iterdir()
    assert str(log) in told
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_a_traceback_is_kept_elsewhere_when_the_home_cannot_be_written(home, capsys, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("FRANGIBLE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ending(ZeroDivisionError("oh")) == 70
    assert str(next(tmp_path.glob("error-*.log"))) in capsys.readouterr().err


def test_tracebacks_are_shown_when_asked_for(home, capsys, monkeypatch):
    monkeypatch.setenv("FRANGIBLE_DEBUG", "1")
    ending(UsageError("what?"))
    assert "Traceback" in capsys.readouterr().err


def test_the_reader_of_a_pipe_that_went_away_is_no_internal_error(home):
    with pytest.raises(BrokenPipeError), reporting():
        raise BrokenPipeError(errno.EPIPE, "gone")


def test_an_error_inside_a_command_ends_the_process_with_its_code(home):
    result = call("journal", "show", "nope")
    assert result.exit_code == 2
    assert result.stderr.startswith("frangible: ")


def test_an_interrupt_ends_with_130(home):
    process = subprocess.Popen([sys.executable, "-m", "frangible.cli", "recover", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "nothing is left in force\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in told


# --- halt, abort, status, recover ---------------------------------------------------------------------------------------


def test_the_halt_goes_on_and_off_and_says_who_and_why(home):
    assert json.loads(call("halt", "status", "--json").stdout) == {"halt": None}
    assert call("halt", "on", "--reason", "incident 4711").exit_code == 0
    halt = json.loads(call("halt", "status", "--json").stdout)["halt"]
    assert (halt["reason"], "@" in halt["by"]) == ("incident 4711", True)
    assert "incident 4711" in call("status").stdout
    assert call("halt", "off").exit_code == 0
    assert call("halt", "status").stdout == "halt is off\n"


def test_the_halt_needs_a_reason(home):
    assert call("halt", "on").exit_code == 2


@pytest.fixture
def sleeper():
    """A real process that stands for a supervisor."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_abort_signals_the_very_supervisor_and_writes_the_stop(home, sleeper):
    identity = ProcessIdentity.of(sleeper.pid)
    assert identity is not None
    keep(home, running(supervisor=identity))
    result = call("abort", "20261123", "--reason", "wrong one", "--json")
    assert json.loads(result.stdout)["signalled"] is True
    assert sleeper.wait(timeout=10) == -signal.SIGTERM
    with ledger_at(home) as ledger:
        stop = ledger.stop_for("20261123-2351-07-3fa9")
    assert stop is not None
    assert stop.reason == "wrong one"


def test_abort_never_signals_another_process_that_got_the_same_pid(home, sleeper):
    identity = ProcessIdentity.of(sleeper.pid)
    assert identity is not None
    keep(home, running(supervisor=replace(identity, start=identity.start + 1)))
    result = call("abort", "20261123")
    assert "frangible recover" in result.stdout
    assert sleeper.poll() is None


def test_abort_of_a_run_that_has_ended_does_nothing(home):
    keep(home, record())
    assert "ended already: deviated" in call("abort", "20261123").stdout
    with ledger_at(home) as ledger:
        assert ledger.stops() == ()


def a_lease() -> Lease:
    me = ProcessIdentity.current()
    now = time.time()
    return Lease(
        id="r1-ab",
        run_id="20261123-2351-07-3fa9",
        environment="ny-1",
        fault="placebo",
        fault_module="frangible.actions.placebo",
        fault_version=1,
        parameters={},
        target=Target("node", "app-1"),
        prior={},
        keys=(),
        injector=me,
        expires_at=now + 60,
    )


def test_status_shows_runs_leases_and_whether_the_supervisor_lives(home):
    keep(home, running(supervisor=ProcessIdentity("elsewhere", "b", 7, 1)), running(id="dead", supervisor=replace(ProcessIdentity.current(), start=1)))
    with ledger_at(home) as ledger:
        ledger.intend(a_lease())
    found = json.loads(call("status", "--json").stdout)
    assert {run["id"]: run["supervisor_alive"] for run in found["runs"]} == {"20261123-2351-07-3fa9": True, "dead": False}
    assert [(lease["id"], lease["state"], lease["target"]) for lease in found["leases"]] == [("r1-ab", "intended", "node app-1")]
    text = call("status").stdout
    assert "frangible recover" in text
    assert "r1-ab" in text


def test_status_ends_with_1_when_a_part_is_unknown(home, monkeypatch):
    monkeypatch.setenv("FRANGIBLE_INVENTORY", "/nowhere")
    result = call("status")
    assert result.exit_code == 1
    assert "locks are unknown" in result.stderr
    assert "halt: off" in result.stdout


def test_status_shows_who_holds_a_lock(home, tmp_path):
    from frangible.locks import FileLockStore

    FileLockStore(tmp_path / "locks").acquire("environment:ny-1", "r9", ProcessIdentity.current(), 60.0)
    assert [(lock["key"], lock["run"]) for lock in json.loads(call("status", "--json").stdout)["locks"]] == [("environment:ny-1", "r9")]


def test_recover_says_that_nothing_is_left(home):
    result = call("recover", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["nothing_left"] is True


def test_recover_closes_the_run_of_a_dead_supervisor(home):
    keep(home, running(supervisor=replace(ProcessIdentity.current(), start=1)))
    assert json.loads(call("recover", "--json").stdout)["closed_runs"]
    with Journal.open(home.journal_url) as journal:
        assert journal.orphans() == ()


# --- journal and explain ------------------------------------------------------------------------------------------------


def test_the_journal_lists_newest_first_and_filters(home):
    keep(home, record(), record(id="20261124-0000-00-aaaa", outcome="held", started_at=1_764_100_000.0, ended_at=1_764_100_001.0))
    assert [run["outcome"] for run in json.loads(call("journal", "list", "--json").stdout)] == ["held", "deviated"]
    assert [run["id"] for run in json.loads(call("journal", "list", "--outcome", "deviated", "--json").stdout)] == ["20261123-2351-07-3fa9"]
    assert "orders were late" in call("journal", "list", "--experiment", "node-loss").stdout
    assert "no such run" in call("journal", "list", "--environment", "elsewhere").stdout


def test_an_outcome_that_does_not_exist_is_a_usage_error(home):
    result = call("journal", "list", "--outcome", "passed")
    assert result.exit_code == 2
    assert "held, deviated, inconclusive" in result.stderr


def test_an_export_is_imported_into_another_journal_as_it_was(home, tmp_path, monkeypatch):
    keep(home, record(chaos_journal={"status": "completed"}))
    exported = call("journal", "export", "20261123").stdout
    spool = tmp_path / "record.json"
    spool.write_text(exported)
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "other"))
    assert call("journal", "import", str(spool)).exit_code == 0
    assert json.loads(call("journal", "show", "20261123", "--json").stdout) == json.loads(exported)
    shown = yaml.safe_load(call("journal", "show", "20261123").stdout)
    assert (shown["outcome"], shown["chaos_journal"]) == ("deviated", "see `frangible journal export`")


def test_the_toolkits_own_journal_is_exported_as_a_file(home, tmp_path):
    keep(home, record(chaos_journal={"status": "completed"}))
    path = tmp_path / "journal.json"
    assert call("journal", "export", "20261123", "--chaos-journal", str(path)).exit_code == 0
    assert json.loads(path.read_text()) == {"status": "completed"}
    assert call("journal", "export", "20261123", "--chaos-journal", str(tmp_path / "no" / "j.json")).exit_code == 2


@pytest.mark.parametrize("content", [b"no json", b"\xff\xfe", b'{"format": 99}'])
def test_what_is_no_record_is_not_imported(home, tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    result = call("journal", "import", str(path))
    assert result.exit_code == 2
    assert str(path) in result.stderr


def explained() -> RunRecord:
    verdict = IndicatorVerdict("orders", WindowName.EFFECT, Outcome.DEVIATED, "", "at least 0.99", 0.5, 0.4, 0.6, 50.0, 100.0, 4)
    windows = (Window(WindowName.BASELINE, 0, 10), Window(WindowName.EFFECT, 10, 30))
    return record(indicators=(verdict,), windows=windows, series={"orders": [[2.0, 1.0], [7.0, 1.0], [12.0, 0.5], [17.0, 0.5]]})


def test_the_last_run_is_explained_with_a_picture_and_the_run_before(home):
    keep(home, record(id="20261122-0000-00-aaaa", outcome="held", started_at=1.0, ended_at=2.0), explained())
    text = call("explain", "--last").stdout
    assert "ny-1 deviated" in text
    assert "orders broke its bound in the effect window" in text
    assert "since run 20261122-0000-00-aaaa (held)" in text
    assert "orders over time" in text
    assert "\x1b" not in text, "no colours where nobody looks"


def test_an_explanation_as_json_has_every_part(home):
    keep(home, explained())
    found = json.loads(call("explain", "20261123", "--json").stdout)
    assert (found["run"], found["outcome"], found["plot"]["bound"]) == ("20261123-2351-07-3fa9", "deviated", 0.99)


@pytest.mark.parametrize("arguments", [(), ("20261123", "--last")])
def test_explain_needs_a_run_or_last(home, arguments):
    assert call("explain", *arguments).exit_code == 2


def test_the_last_of_no_runs_says_how_to_make_one(home):
    assert "frangible run" in call("explain", "--last").stderr


def test_without_plotext_the_picture_is_a_line_of_bars(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotext", None)
    keep(home, explained())
    assert "██▁▁" in call("explain", "--last").stdout


# --- files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inventory", "hypothesis", "experiment"])
def test_each_schema_is_one_json_document(kind):
    assert json.loads(call("schema", kind).stdout)["$schema"]


def test_a_schema_that_does_not_exist_is_a_usage_error():
    assert call("schema", "poem").exit_code == 2


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.yaml", "environments: []", Kind.INVENTORY),
        ("a.yaml", "name: x\nindicators: []", Kind.HYPOTHESIS),
        ("a.yaml", "title: x\nmethod: []", Kind.EXPERIMENT),
        ("a.yaml", "- a list", Kind.EXPERIMENT),
        ("a.json", "{}", Kind.EXPERIMENT),
    ],
)
def test_what_a_file_is_shows_in_its_content(tmp_path, name, text, kind):
    (tmp_path / name).write_text(text)
    assert kind_of(tmp_path / name) is kind


def test_all_problems_of_all_files_are_reported_at_once(home, tmp_path):
    (tmp_path / "inv.yaml").write_text("environments:\n  - name: a\n    tear: staging\n")
    (tmp_path / "hyp.yaml").write_text("name: h\nindicators: []\n")
    (tmp_path / "exp.yaml").write_text("title: t\n")
    result = call("validate", *(str(tmp_path / name) for name in ("inv.yaml", "hyp.yaml", "exp.yaml")), "nope", "--json")
    assert result.exit_code == 2
    assert {Path(problem["file"]).name for problem in json.loads(result.stdout)["problems"]} == {"inv.yaml", "hyp.yaml", "exp.yaml", "nope"}


def test_what_is_shipped_is_valid_and_can_hold_in_an_environment(home, tmp_path):
    result = call("validate", str(tmp_path / "inventory.yaml"), "node-loss", "placebo", "--environment", "ny-1")
    assert result.stderr == ""
    assert result.stdout == "3 files: no problem\n"


# --- run ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("node-los", "-e", "ny-1"), "did you mean 'node-loss'?", id="experiment"),
        pytest.param(("node-loss", "-e", "ny-2"), "ny-1", id="environment"),
        pytest.param(("node-loss",), "--environment", id="no environment"),
        pytest.param(("node-loss", "-e", "ny-1", "--inventory", "/nowhere"), "/nowhere", id="inventory"),
    ],
)
def test_a_run_that_cannot_be_is_a_usage_error_and_leaves_nothing(home, arguments, said):
    result = call("run", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not home.runs.exists()


def test_a_dry_run_prints_the_plan_and_leaves_nothing(home):
    result = call("run", "node-loss", "-e", "ny-1", "--dry-run", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    plan = json.loads(result.stdout)
    assert plan["allowed"] is True
    assert plan["injections"][0]["targets"][0] in {"app-1", "app-2"}
    assert plan["indicators"][0]["queries"][0] == 'order_outcomes_total{environment="ny-1",outcome="in_time"}'
    assert plan["keys"] == ["environment:ny-1"]
    assert list(home.runs.iterdir()) == []
    assert "nothing was injected" in call("run", "node-loss", "-e", "ny-1", "--dry-run").stdout


def test_targets_are_drawn_again_by_the_seed_that_is_told(home):
    plan = json.loads(call("run", "node-loss", "-e", "ny-1", "--dry-run", "--json").stdout)
    (first,) = plan["injections"]
    seen = set()
    for seed in (str(first["seed"]), *map(str, range(1, 20))):
        (again,) = json.loads(call("run", "node-loss", "-e", "ny-1", "--dry-run", "--json", "--seed", seed).stdout)["injections"]
        assert again["seed"] == int(seed)
        assert again["targets"] == first["targets"] or seed != str(first["seed"])
        seen.update(again["targets"])
    assert seen == {"app-1", "app-2"}


def test_a_dry_run_ends_as_the_run_would_be_refused(home):
    call("halt", "on", "--reason", "incident 4711")
    result = call("run", "node-loss", "-e", "ny-1", "--dry-run", "--json")
    assert result.exit_code == 4
    assert "incident 4711" in result.stderr
    assert json.loads(result.stdout)["allowed"] is False


def test_a_dry_run_is_refused_where_somebody_holds_a_key(home, tmp_path):
    from frangible.locks import FileLockStore

    FileLockStore(tmp_path / "locks").acquire("environment:ny-1", "r9", ProcessIdentity.current(), 60.0)
    result = call("run", "node-loss", "-e", "ny-1", "--dry-run")
    assert result.exit_code == 4
    assert "r9" in result.stderr


def test_a_refused_run_ends_with_4_and_says_why_on_stderr_and_in_json(home):
    call("halt", "on", "--reason", "incident 4711")
    done = subprocess.run(
        [sys.executable, "-m", "frangible.cli", "run", "placebo", "-e", "ny-1", "--json"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 4
    assert "frangible: not injecting:" in done.stderr
    assert "incident 4711" in done.stderr
    assert json.loads(done.stdout)["outcome"] == "refused"
    assert "\x1b" not in done.stderr


# --- doctor -------------------------------------------------------------------------------------------------------------


def test_the_doctor_names_what_failed_and_what_to_do_and_goes_on(home):
    result = call("doctor", "-e", "ny-1", "--json")
    found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 1
    assert not found["Prometheus answers"]["ok"]
    assert found["Prometheus answers"]["advice"]
    assert all(found[name]["ok"] for name in ("inventory", "node app-1", "locks", "lease copies", "ledger", "journal", "nothing in force"))
    assert "FAILED  Prometheus answers" in call("doctor", "-e", "ny-1").stdout


def test_the_doctor_leaves_nothing_behind(home, tmp_path):
    call("doctor", "-e", "ny-1")
    assert list((tmp_path / "targets").rglob("*.json")) == []
    with ledger_at(home) as ledger:
        assert ledger.stops() == ()


def test_the_doctor_sees_a_halt(home):
    call("halt", "on", "--reason", "incident 4711")
    assert "FAILED  nothing in force: the halt is on" in call("doctor", "-e", "ny-1").stdout


# --- completion ---------------------------------------------------------------------------------------------------------


def test_environments_experiments_and_runs_are_completed(home, tmp_path, monkeypatch):
    (home.runs / "20261123-2351-07-3fa9").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert completion.environments("ny") == ["ny-1"]
    assert "node-loss" in completion.experiments("node")
    assert completion.experiments("inv") == ["inventory.yaml"]
    assert completion.runs("2026") == ["20261123-2351-07-3fa9"]


def test_completion_is_silent_when_nothing_can_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("FRANGIBLE_INVENTORY", str(tmp_path / "nowhere"))
    assert completion.environments("") == []
    assert completion.runs("") == []
    assert completion.experiments(str(tmp_path / "nowhere" / "x")) == []


def test_the_shell_is_offered_what_the_callbacks_know(home):
    asked = {**os.environ, "_FRANGIBLE_COMPLETE": "complete_bash", "COMP_WORDS": "frangible run -e n", "COMP_CWORD": "3"}
    code = "import sys; from frangible.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["ny-1"]


# --- what is shared -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.85, "850 ms"), (0, "0 ms"), (12, "12 s"), (12.5, "12.5 s"), (60, "1 min"), (185, "3 min 5 s"), (7440, "2 h 4 min"), (7200, "2 h"), (-5, "-5 s")],
)
def test_lengths_of_time_are_for_people(seconds, text):
    assert span(seconds) == text


def test_times_are_utc_and_a_missing_one_is_a_dash():
    assert (moment(0.0), moment(None)) == ("1970-01-01 00:00:00Z", "-")


def test_columns_are_aligned_and_nothing_is_cut():
    assert columns(("A", "B"), [("1", "x" * 200), ("22", "")]) == f"A   B\n1   {'x' * 200}\n22"


def test_json_is_strict_also_for_numbers_that_it_does_not_have():
    assert json.loads(json_document({"a": float("nan"), "b": (1, float("inf"))})) == {"a": None, "b": [1, None]}


def test_a_record_survives_the_way_through_the_command(home):
    keep(home, record())
    assert json.loads(call("journal", "export", "20261123").stdout) == json.loads(record_to_json(record()))
