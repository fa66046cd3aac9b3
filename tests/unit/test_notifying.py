"""Telling other systems: what they get, what happens when they are away, and that no secret is ever shown. Real servers, and real runs."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from frangible.environment import NotifySettings
from frangible.errors import InventoryError
from frangible.inventory import load_inventory
from frangible.notifying import Notifying

pytestmark = pytest.mark.once

TOKEN = "glsa_t0psecret"
KEY = "hunter2-hunter2"
PATH = "/services/T0/B0/s3cretpath"


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; answers what `answer` says, which may wait."""

    daemon_threads = True

    def __init__(self, answer: "Callable[[Receiver, str], tuple[int, bytes]]") -> None:
        self.got: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.answer, self.ended = answer, threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.got]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        status, answer = self.server.answer(self.server, str(self.headers))
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except OSError:  # the other side hung up, as it may
            return

    do_PATCH = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def well(receiver: Receiver, _: str) -> tuple[int, bytes]:
    return 200, json.dumps({"message": "Annotation added", "id": 40 + len(receiver.got)}).encode()


def in_order(*statuses: int) -> Callable[[Receiver, str], tuple[int, bytes]]:
    """These, and the last one for ever."""
    return lambda receiver, _: (statuses[min(len(receiver.got), len(statuses)) - 1], b'{"id": 7}')


def hangs(receiver: Receiver, _: str) -> tuple[int, bytes]:
    receiver.ended.wait(30)
    return 200, b"{}"


def echoes(_: Receiver, headers: str) -> tuple[int, bytes]:
    return 401, headers.encode()


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    receivers: list[Receiver] = []

    def start(answer: Callable[[Receiver, str], tuple[int, bytes]] = well) -> Receiver:
        receivers.append(Receiver(answer))
        return receivers[-1]

    yield start
    for receiver in receivers:
        receiver.ended.set()
        receiver.shutdown()
        receiver.server_close()


@pytest.fixture(autouse=True)
def secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    (tmp_path / "key").write_text(f"{KEY}\n")


def settings(tmp_path: Path, **how: dict[str, Any]) -> NotifySettings:
    return NotifySettings.model_validate(how, context={"file": True, "base": tmp_path})


def grafana(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "bearer": {"variable": "GRAFANA_TOKEN"}, **more}


def webhook(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "secret-headers": {"X-Key": {"file": "key"}}, **more}


OWNER = SimpleNamespace(team="orders")
PLAN: Any = SimpleNamespace(
    run_id="r1",
    experiment="node-loss",
    title="Orders flow on",
    environment=SimpleNamespace(name="ny-1", region="newyork", owner=OWNER),
    actor="ada@box",
    note="",
    ticket="CHG-1",
)


def told(state: str, at: float, lease: str = "r1-l1") -> dict[str, Any]:
    return {"event": "fault", "at": at, "run": "r1", "lease": lease, "fault": "node-loss", "target": "node app-1", "state": state, "detail": "no power"}


def tell(how: NotifySettings, *events: dict[str, Any], limit: float = 20.0, patience: float = 30.0) -> list[str]:
    """Tell events as a run does; return what was reported."""
    said: list[str] = []
    notifying = Notifying(PLAN, how, said.append, limit)
    for event in events:
        notifying.hear(event)
    notifying.close(patience)
    return said


def test_the_webhook_gets_a_json_object_when_a_fault_begins_and_when_it_is_over(tmp_path, receive):
    receiver = receive()
    ignored = [{"event": "phase", "phase": "effect", "at": 1.0}, told("intended", 1.0), told("proven", 3.0), told("injected", 4.0)]
    how = settings(tmp_path, webhook=webhook(f"{receiver.url}/hook", headers={"X-Team": "orders"}))
    assert tell(how, told("injected", 2.0), *ignored, told("reverted", 5.0)) == []
    (_, path, headers, first), (_, _, _, second) = receiver.got
    assert (path, headers["x-key"], headers["x-team"], headers["content-type"]) == ("/hook", KEY, "orders", "application/json")
    assert (first["event"], first["at"], first["id"]) == ("injected", 2.0, "r1-l1:injected")
    assert (second["event"], second["at"]) == ("reverted", 5.0)
    assert {"run", "experiment", "environment", "region", "team", "fault", "target", "actor", "ticket"} <= first.keys()


def test_the_annotation_in_grafana_becomes_a_region(tmp_path, receive):
    receiver = receive()
    how = settings(tmp_path, grafana=grafana(receiver.url, dashboard="d1", panel=3, tags=["chaos"]))
    assert tell(how, told("injected", 2.0), told("injected", 3.0, "r1-l2"), told("reverted", 5.0), told("revert-failed", 6.0, "r1-l2")) == []
    assert receiver.asked() == ["POST /api/annotations", "POST /api/annotations", "PATCH /api/annotations/41", "PATCH /api/annotations/42"]
    begun, _, ended, failed = (body for _, _, _, body in receiver.got)
    assert (begun["time"], begun["dashboardUID"], begun["panelId"]) == (2000, "d1", 3)
    assert {"frangible", "chaos", "environment:ny-1", "run:r1", "fault:node-loss"} <= set(begun["tags"])
    assert ended == {"timeEnd": 5000}
    assert "NOT reverted" in failed["text"]
    assert {headers["authorization"] for _, _, headers, _ in receiver.got} == {f"Bearer {TOKEN}"}


def test_an_annotation_that_could_not_be_begun_is_made_whole_at_its_end(tmp_path, receive):
    receiver = receive(in_order(400, 200))
    said = tell(settings(tmp_path, grafana=grafana(receiver.url)), told("injected", 2.0), told("reverted", 5.0))
    assert said == ["Grafana was not told that node-loss on node app-1 of ny-1 injected: it answered HTTP 400"]
    assert (receiver.got[-1][0], receiver.got[-1][3]["time"], receiver.got[-1][3]["timeEnd"]) == ("POST", 2000, 5000)


def test_what_may_be_over_in_a_moment_is_tried_again(tmp_path, receive):
    receiver = receive(in_order(503, 429, 200))
    assert tell(settings(tmp_path, webhook=webhook(receiver.url)), told("injected", 2.0)) == []
    assert len({body["id"] for _, _, _, body in receiver.got}) == 1
    assert len(receiver.got) == 3


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_what_will_not_be_over_is_not_tried_again(tmp_path, receive, status):
    receiver = receive(in_order(status))
    said = tell(settings(tmp_path, webhook=webhook(receiver.url)), told("injected", 2.0))
    assert len(receiver.got) == 1
    assert f"HTTP {status}" in said[0]


def test_one_that_is_away_keeps_nobody_else_from_being_told(tmp_path, receive):
    receiver = receive()
    how = settings(tmp_path, webhook=webhook("http://127.0.0.1:1"), grafana=grafana(receiver.url))
    said = tell(how, told("injected", 2.0), told("reverted", 3.0), limit=0.5)
    assert receiver.asked() == ["POST /api/annotations", "PATCH /api/annotations/41"]
    assert len(said) == 2
    assert all("the webhook was not told" in one and "refused" in one for one in said)


def test_one_that_never_answers_delays_nobody_for_long(tmp_path, receive):
    receiver = receive(hangs)
    said: list[str] = []
    notifying = Notifying(PLAN, settings(tmp_path, webhook=webhook(receiver.url), grafana=grafana(receiver.url)), said.append)
    began = time.monotonic()
    for number in range(300):
        notifying.hear(told("injected", 2.0, f"r1-l{number}"))
    assert time.monotonic() - began < 2.0, "hearing does not wait"
    notifying.close(0.5)
    assert time.monotonic() - began < 5.0
    assert len(said) == 600, "each that was not told is said, once"
    assert any("others are waiting" in one for one in said)
    assert any("the run is over" in one for one in said)


@pytest.mark.parametrize("answer", [echoes, in_order(302), in_order(500)])
def test_no_secret_is_shown_whatever_goes_wrong(tmp_path, receive, answer):
    receiver = receive(answer)
    (tmp_path / "address").write_text(f"{receiver.url}{PATH}?token={KEY}")
    hidden = {"secret-url": {"file": "address"}, "secret-headers": {"X-Key": {"file": "key"}}}
    said = tell(settings(tmp_path, webhook=hidden, grafana=grafana(receiver.url)), told("injected", 2.0), limit=0.3)
    assert len(said) == 2
    assert receiver.got[0][1].startswith(PATH) or receiver.got[1][1].startswith(PATH), "it was asked all the same"
    assert not any(secret in text for text in said for secret in (TOKEN, KEY, PATH, PATH[1:]))


@pytest.mark.parametrize("address", [f"http://127.0.0.1:1{PATH}", f"http://nowhere.invalid{PATH}", f"gopher://x{PATH}", PATH, f"http://[{PATH}"])
def test_a_secret_address_that_cannot_be_used_is_not_shown(tmp_path, address):
    (tmp_path / "address").write_text(address)
    said = tell(settings(tmp_path, webhook={"secret-url": {"file": "address"}}), told("injected", 2.0), limit=0.3)
    assert len(said) == 1
    assert PATH[1:] not in said[0]


def test_a_secret_that_is_missing_is_said_by_name(tmp_path, receive, monkeypatch):
    monkeypatch.delenv("GRAFANA_TOKEN")
    said = tell(settings(tmp_path, grafana=grafana(receive().url)), told("injected", 2.0))
    assert "environment variable GRAFANA_TOKEN" in said[0]


# --- the inventory -----------------------------------------------------------------------------------------------------

ENVIRONMENT: dict[str, Any] = {
    "name": "ny-1",
    "region": "newyork",
    "tier": "staging",
    "owner": {"team": "orders"},
    "labels": {"cluster": "ny-1"},
    "nodes": [{"name": "app-1", "roles": ["execution"]}],
    "platform": {
        "kind": "hosts",
        "root": "targets",
        "locks": "locks",
        "power": {"driver": "command", "on": ["true", "{node}"], "off": ["true", "{node}"], "state": ["sh", "-c", "echo on", "{node}"]},
    },
}


def inventory(folder: Path, *environments: dict[str, Any]) -> Path:
    path = folder / "frangible-inventory.yaml"
    path.write_text(yaml.safe_dump({"environments": list(environments)}))
    return path


def test_a_child_inherits_whom_to_tell_and_may_tell_nobody(tmp_path):
    parent = ENVIRONMENT | {"notify": {"grafana": grafana("http://grafana.example.com")}}
    path = inventory(tmp_path, parent, {"name": "a", "parent": "ny-1"}, {"name": "b", "parent": "ny-1", "notify": None})
    loaded = load_inventory(path)
    assert loaded.get("a").notify == loaded.get("ny-1").notify
    assert loaded.get("b").notify is None


@pytest.mark.parametrize(
    ("notify", "says"),
    [
        ({}, "expected `webhook`, `grafana` or both"),
        ({"webhook": {}}, "expected either `url` or `secret-url`"),
        ({"grafana": {"url": "http://g", "bearer": TOKEN}}, "found the value itself \\(not shown\\)"),
        ({"webhook": {"url": "http://h", "headers": {"X-Api-Key": TOKEN}}}, "secret-headers"),
        ({"webhook": {"url": f"http://h/?token={TOKEN}"}}, "secret-url"),
        ({"webhok": {}}, "did you mean `webhook`"),
    ],
)
def test_a_wrong_entry_is_a_problem_and_no_secret_is_shown(tmp_path, notify, says):
    with pytest.raises(InventoryError, match=says) as caught:
        load_inventory(inventory(tmp_path, ENVIRONMENT | {"notify": notify}))
    assert TOKEN not in str(caught.value)


# --- real runs ---------------------------------------------------------------------------------------------------------


class Scraped(BaseHTTPRequestHandler):
    """What Prometheus scrapes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"well 1\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def prometheus(start_prometheus: Callable[..., str]) -> Iterator[str]:
    """A Prometheus that scrapes one target of the environment, twice a second."""
    exporter = ThreadingHTTPServer(("127.0.0.1", 0), Scraped)
    threading.Thread(target=exporter.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    target = {"targets": [f"127.0.0.1:{exporter.server_port}"], "labels": {"cluster": "ny-1"}}
    scrape = {"job_name": "x", "scrape_interval": "500ms", "scrape_timeout": "500ms", "static_configs": [target]}
    yield start_prometheus("", yaml.safe_dump({"scrape_configs": [scrape]}))
    exporter.shutdown()
    exporter.server_close()


HYPOTHESIS = {
    "name": "well",
    "recovery": {"within": "20s", "steady-for": "1s"},
    "indicators": [
        {"name": "well", "kind": "gauge", "query": "well{${labels}}", "lookback": "1s", "block": "1s", "bound": {"at-least": 1}, "when-absent": "broken"},
    ],
}


def python(module: str, function: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "python", "module": f"frangible.{module}", "func": function, "arguments": arguments}


EXPERIMENT = {
    "title": "nothing is injected",
    "description": "as short as it can be",
    "controls": [{"name": "frangible", "provider": {"type": "python", "module": "frangible.control"}}],
    "extensions": [{"name": "frangible", "baseline": "4s", "baseline-limit": "60s", "settle": "300ms"}],
    "runtime": {"rollbacks": {"strategy": "always"}},
    "steady-state-hypothesis": {
        "title": "well",
        "probes": [{"type": "probe", "name": "well", "tolerance": True, "provider": python("probes.steady_state", "steady_state", hypothesis="well")}],
    },
    "method": [{"type": "action", "name": "hold", "provider": python("actions.placebo", "hold_without_fault", name="app-1", hold=8.0)}],
    "rollbacks": [],
}


@pytest.fixture
def estate(tmp_path: Path, monkeypatch, prometheus):
    """An environment that a placebo can really be injected in, an experiment, and a home of its own."""
    (tmp_path / "hypotheses").mkdir()
    (tmp_path / "hypotheses" / "well.yaml").write_text(yaml.safe_dump(HYPOTHESIS))
    (tmp_path / "placebo-run.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    monkeypatch.setenv("FRANGIBLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def declare(**notify: Any) -> Path:
        inventory(tmp_path, ENVIRONMENT | {"prometheus": {"url": prometheus, "scrape-interval": "500ms"}, "notify": notify})
        return tmp_path

    return declare


def run(folder: Path) -> tuple["subprocess.CompletedProcess[str]", list[dict[str, Any]]]:
    command = [sys.executable, "-m", "frangible.cli", "run", "placebo-run.yaml", "-e", "ny-1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    events = [json.loads(line) for path in (folder / "home" / "runs").glob("*/events.jsonl") for line in path.read_text().splitlines()]
    return done, events


def test_a_run_tells_both_and_leaves_no_secret_behind(estate, receive):
    receiver = receive()
    folder = estate(webhook=webhook(f"{receiver.url}/hook"), grafana=grafana(receiver.url))
    done, events = run(folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert len(receiver.got) == 4
    hooks = [body for _, path, _, body in receiver.got if path == "/hook"]
    faults = {event["state"]: event["at"] for event in events if event["event"] == "fault"}
    assert [(body["event"], body["at"]) for body in hooks] == [("injected", faults["injected"]), ("reverted", faults["reverted"])]
    (begun,) = [body for method, path, _, body in receiver.got if (method, path) == ("POST", "/api/annotations")]
    (ended,) = [body for method, _, _, body in receiver.got if method == "PATCH"]
    assert (begun["time"], ended["timeEnd"]) == (round(faults["injected"] * 1000), round(faults["reverted"] * 1000))
    assert not any(secret in done.stdout + done.stderr for secret in (TOKEN, KEY))
    kept = [path for path in (folder / "home").rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"plan.json", "events.jsonl", "journal.db", "supervisor.log"}
    assert [path for path in kept if TOKEN.encode() in path.read_bytes() or KEY.encode() in path.read_bytes()] == []


def test_a_run_is_the_same_when_nobody_can_be_told(estate, receive):
    receiver = receive(hangs)
    folder = estate(webhook=webhook("http://127.0.0.1:1", timeout="1s"), grafana=grafana(receiver.url, timeout="60s"))
    done, events = run(folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("HELD")
    said = [event["message"] for event in events if event["event"] == "log"]
    assert any(one.startswith("the webhook was not told that placebo on node app-1 of ny-1 injected") for one in said), said
    assert any(one.startswith("Grafana was not told") and "the run is over" in one for one in said), said
    verdict = next(event["at"] for event in events if event["event"] == "verdict")
    assert max(event["at"] for event in events) - verdict < 30.0
