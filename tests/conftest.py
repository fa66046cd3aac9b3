"""What every test gets: a home of its own, no settings of the developer's, and an honest count of skips."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# Other work on the machine must not turn a law into a failure; in CI the examples are the same in every run.
settings.register_profile("frangible", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is slow
settings.register_profile("ci", parent=settings.get_profile("frangible"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "frangible")

OURS = ("FRANGIBLE_HOME", "FRANGIBLE_JOURNAL", "FRANGIBLE_LEDGER", "FRANGIBLE_ENVIRONMENT", "FRANGIBLE_INVENTORY", "FRANGIBLE_CONFIG")
TESTS = Path(__file__).parent
NOT_POSSIBLE = "not possible here"
"""Begins the reason of the only skips that CI accepts: of what no set-up can give, such as the rights of root."""


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the developer's own journal, ledger and lab, in child processes too."""
    patch = pytest.MonkeyPatch()
    for name in OURS:
        patch.delenv(name, raising=False)
    patch.setenv("FRANGIBLE_HOME", str(tmp_path_factory.mktemp("home")))
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    yield
    patch.undo()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies under tests/lab needs the lab, under tests/api a kube-apiserver, under tests/cluster a cluster; a law is the same in a wheel."""
    for item in items:
        for place, marker in (("lab", "lab"), ("api", "api"), ("cluster", "cluster"), ("property", "once")):
            if TESTS / place in item.path.parents:
                item.add_marker(marker)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling | None":
    """With `--dist loadscope`, keep the tests of a module on one worker, and all that want the machine for themselves: theirs is one turn."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):  # type: ignore[misc] # xdist is not typed
        def _split_scope(self, nodeid: str) -> str:
            module, _, _ = nodeid.partition("::")
            return "alone" if "/alone/" in module else module

    return Modules(config, log)


skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each skipped test; an expected failure is not a skip."""
    if report.skipped and not hasattr(report, "wasxfail") and NOT_POSSIBLE not in str(report.longrepr):
        skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note each module that skipped itself."""
    if report.skipped:
        skipped.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a failure: everything that a test needs is made by the set-up."""
    if skipped and exitstatus == pytest.ExitCode.OK and os.environ.get("CI"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the skips that make the run fail."""
    if skipped and os.environ.get("CI"):
        terminalreporter.write_sep("=", "skipped where nothing may be skipped", red=True)
        for node in skipped:
            terminalreporter.write_line(node)
