"""Did our own alerts notice? Asked of a real Prometheus, with a real alert rule."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from frangible.detections import detections
from frangible.errors import HypothesisError, LabError, ObserverFailed
from frangible.hypothesis import Hypothesis, load_hypotheses
from frangible.inventory import PrometheusSettings
from frangible.lab.files import alert_rules
from frangible.lab.parts import find_tools
from frangible.metrics import PrometheusMetrics

pytestmark = pytest.mark.once

LABELS = {"environment": "lab-x"}
HYPOTHESIS = """\
name: noticed
indicators:
  - {name: depth, kind: gauge, query: "depth{${labels}}", lookback: 1s, bound: {at-most: 1}, when-absent: ignore}
detections:
"""


def hypothesis(folder: Path, *lines: str) -> Hypothesis:
    file = folder / "noticed.yaml"
    file.write_text(HYPOTHESIS + "".join(f"  - {line}\n" for line in lines))
    return load_hypotheses((file,))["noticed"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """A Prometheus whose alert `Rises` begins to fire some seconds after its start; its address and when it was started."""
    try:
        program = find_tools().prometheus
    except LabError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("prometheus")
    began = time.time()
    rise = {"alert": "Rises", "expr": f"vector(time()) > {began + 5:.0f}", "labels": LABELS}
    ever = {"alert": "Ever", "expr": "vector(1)", "labels": LABELS}
    rules = {"groups": [{"name": "test", "interval": "1s", "rules": [rise, ever]}]}
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"]}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", began
    finally:
        process.kill()
        process.wait()


def firing(metrics: PrometheusMetrics) -> bool:
    try:
        return bool(metrics.instant('ALERTS{alertname="Rises",alertstate="firing"}'))
    except ObserverFailed:
        return False


def test_when_each_alert_fired_is_told(prometheus: tuple[str, float], tmp_path: Path) -> None:
    """In time, too late, not at all, before the fault, and of another environment: five different answers."""
    address, _ = prometheus
    metrics = PrometheusMetrics(PrometheusSettings(url=address))
    deadline = time.monotonic() + 60
    while not firing(metrics):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [series] = metrics.range('ALERTS{alertname="Rises",alertstate="firing"}', time.time() - 60, time.time(), 0.5)
    first = series.samples[0].at
    noticed = hypothesis(tmp_path, "{alert: Rises, within: 2m}", "{alert: Ever, within: 2m}", "{alert: Never, within: 2m}")
    told = detections(metrics, (noticed,), LABELS, first - 2, first + 1, 0.5)
    assert told["detection.Rises"].startswith("fired ")
    assert told["detection.Rises"].endswith(" s after the fault was first seen (asked: within 120 s)")
    assert told["detection.Never"] == "did not fire in the 3 s that were watched (asked: within 120 s)"
    late = hypothesis(tmp_path, "{alert: Rises, within: 1s}")
    assert detections(metrics, (late,), LABELS, first - 2, first + 1, 0.5)["detection.Rises"].startswith("fired too late, ")
    assert detections(metrics, (noticed,), LABELS, first + 1, first + 1, 0.5)["detection.Rises"].startswith("was firing already")
    assert detections(metrics, (noticed,), {"environment": "other"}, first - 2, first + 1, 0.5)["detection.Rises"].startswith("did not fire")


def test_an_observer_that_cannot_answer_is_no_data(tmp_path: Path) -> None:
    """Not the same as an alert that did not fire."""
    metrics = PrometheusMetrics(PrometheusSettings(url="http://127.0.0.1:9", timeout=1.0))
    told = detections(metrics, (hypothesis(tmp_path, "{alert: Rises, within: 2m}"),), LABELS, 10.0, 20.0, 1.0)
    assert told["detection.Rises"].startswith("no data: ")


@pytest.mark.parametrize(
    "line",
    ["{alert: Rises}", "{alert: 'Ri ses', within: 2m}", "{alert: Rises, within: 0s}", "{alert: Rises, within: 2m, after: 1s}"],
    ids=["when", "name", "0", "key"],
)
def test_a_detection_of_another_shape_is_refused(tmp_path: Path, line: str) -> None:
    """With the file and the line."""
    with pytest.raises(HypothesisError, match=r"detections\[0\]"):
        hypothesis(tmp_path, line)


def test_the_labs_alert_rules_are_ones(tmp_path: Path) -> None:
    """Prometheus's own tool checks them."""
    promtool = find_tools().prometheus.with_name("promtool")
    if not promtool.exists():
        pytest.skip("promtool is not beside prometheus")
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump(alert_rules()))
    subprocess.run([str(promtool), "check", "rules", str(file)], check=True, capture_output=True)
