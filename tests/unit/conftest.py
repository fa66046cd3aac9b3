"""A real Prometheus that holds exactly the samples that a test writes down, and a home with an inventory."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from frangible.home import Home
from frangible.inventory import Inventory, load_inventory

LOCAL = Path(__file__).parents[2] / ".cache" / "prometheus" / "prometheus"

type StartPrometheus = Callable[[str], str]


def prometheus_binary() -> Path:
    """FRANGIBLE_PROMETHEUS, then PATH, then the one that the set-up fetched."""
    found = os.environ.get("FRANGIBLE_PROMETHEUS") or shutil.which("prometheus") or (str(LOCAL) if LOCAL.exists() else None)
    if found is None:
        pytest.skip("no Prometheus: not in FRANGIBLE_PROMETHEUS, on PATH or in .cache/prometheus/")
    return Path(found).resolve()


def promtool_binary() -> Path:
    """The tool of the same distribution, beside it or on PATH."""
    beside = prometheus_binary().with_name("promtool")
    found = str(beside) if beside.exists() else shutil.which("promtool")
    if found is None:
        pytest.skip(f"no promtool beside {prometheus_binary()} or on PATH, so no samples can be written")
    return Path(found)


@contextmanager
def running(folder: Path, openmetrics: str, configuration: str = "") -> Iterator[str]:
    """Run a Prometheus over these samples (OpenMetrics text with times in seconds) and yield its address."""
    data, log = folder / "data", folder / "log"
    data.mkdir(parents=True)
    (folder / "samples").write_text(f"{openmetrics.strip()}\n# EOF\n" if openmetrics else "# EOF\n")
    (folder / "prometheus.yml").write_text(configuration)
    if openmetrics:
        writing = [str(promtool_binary()), "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples"), str(data)]
        subprocess.run(writing, check=True, capture_output=True)
    command = [str(prometheus_binary()), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y"]
    with log.open("w") as output, subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=output, stdout=output) as process:
        try:
            yield f"http://127.0.0.1:{_port(process, log)}"
        finally:
            process.terminate()


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Wait until Prometheus is ready; its log says where it listens."""
    while process.poll() is None:
        text = log.read_text()
        where = re.search(r'msg="Listening on".*address=127\.0\.0\.1:(\d+)', text)
        if where and "Server is ready" in text:
            return int(where[1])
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"Prometheus ended: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def start_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Start as many as a module needs; all of them end with the session."""
    with ExitStack() as stack:
        yield lambda openmetrics, configuration="": stack.enter_context(running(tmp_path_factory.mktemp("prometheus"), openmetrics, configuration))


ENVIRONMENT = """\
  - name: NAME
    region: london
    tier: staging
    owner: {team: environments, contact: nobody}
    platform: {kind: hosts, transport: local, root: targets, locks: locks}
"""


def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> Home:
    """Make a folder the working directory, with a home of its own and an inventory of these environments, and return the home."""
    monkeypatch.setenv("FRANGIBLE_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    (folder / "frangible-inventory.yaml").write_text("environments:\n" + "".join(ENVIRONMENT.replace("NAME", name) for name in names))
    return Home.find()


@pytest.fixture
def inventory(home: Home) -> Inventory:
    """The inventory of the working directory, which a module's `home` has made."""
    del home
    return load_inventory(Path("frangible-inventory.yaml"))
