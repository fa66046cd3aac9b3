"""Asking a real Prometheus, and what is made of servers that are not one, or not well."""

import json
import math
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from frangible.environment import Basic, PrometheusSettings, Secret
from frangible.errors import ObserverFailed
from frangible.metrics import Metrics, PrometheusMetrics, Sample

pytestmark = pytest.mark.once

T = 1_700_000_000.0
SAMPLES = "\n".join(
    [
        *(f'events{{environment="eu-1",instance="a"}} {10 * at} {T + at:.3f}' for at in range(60)),
        *(f'events{{environment="eu-1",instance="b"}} {at} {T + at + 0.5:.3f}' for at in range(0, 60, 2)),
        f"odd NaN {T:.3f}",
        f"odd +Inf {T + 1:.3f}",
        f"odd 3 {T + 2:.3f}",
    ]
)


def settings(url: str, **changes: Any) -> PrometheusSettings:
    return PrometheusSettings.model_validate({"url": url, "timeout": 5.0, **changes})


@pytest.fixture(scope="module")
def metrics(start_prometheus: Callable[[str], str]) -> Iterator[Metrics]:
    asked = PrometheusMetrics(settings(start_prometheus(SAMPLES)))
    yield asked
    asked.close()


def test_raw_gives_stored_samples_of_every_series_after_the_start_and_up_to_the_end(metrics: Metrics) -> None:
    one, two = metrics.raw('events{environment="eu-1"}', T + 10, T + 13)
    assert dict(one.labels) == {"__name__": "events", "environment": "eu-1", "instance": "a"}
    assert one.samples == (Sample(T + 11, 110.0), Sample(T + 12, 120.0), Sample(T + 13, 130.0))
    assert [sample.at for sample in two.samples] == [T + 10.5, T + 12.5]


@pytest.mark.parametrize(("start", "end"), [(10.0004, 13.0004), (9.9996, 12.9996), (10.25, 13.75)])
def test_raw_takes_times_between_milliseconds(metrics: Metrics, start: float, end: float) -> None:
    found = metrics.raw('events{instance="a"}', T + start, T + end)[0].samples
    assert [sample.at - T for sample in found] == [at for at in range(60) if start < at <= end]


@pytest.mark.parametrize(("selector", "start", "end"), [("nothing", 0, 60), ("events", 600, 660), ("events", 10, 10), ("events", 10, 5)])
def test_an_empty_result_is_no_failure(metrics: Metrics, selector: str, start: float, end: float) -> None:
    assert metrics.raw(selector, T + start, T + end) == ()
    assert metrics.range("nothing", T + start, T + end, 1.0) == ()
    assert metrics.instant("nothing", T) == ()


def test_range_evaluates_at_exact_times(metrics: Metrics) -> None:
    (series,) = metrics.range('sum(events{instance="a"})', T + 0.4, T + 10.4, 2.5)
    assert [(sample.at, sample.value) for sample in series.samples] == [(T + 0.4 + step * 2.5, 10.0 * math.floor(0.4 + step * 2.5)) for step in range(5)]


def test_instant_evaluates_at_one_time_and_takes_scalars(metrics: Metrics) -> None:
    assert metrics.instant('events{instance="a"}', T + 20.25)[0].samples == (Sample(T + 20.25, 200.0),)
    assert metrics.instant("1 + 1", T)[0].samples == (Sample(T, 2.0),)


def test_what_is_not_a_number_stays_not_a_number(metrics: Metrics) -> None:
    values = [sample.value for sample in metrics.raw("odd", T - 1, T + 5)[0].samples]
    assert [math.isnan(value) for value in values] == [True, True, False]


def test_time_is_prometheus_own(metrics: Metrics) -> None:
    assert metrics.time() == pytest.approx(time.time(), abs=5)


def test_scrape_interval_is_unknown_without_fresh_data(metrics: Metrics) -> None:
    assert metrics.scrape_interval("events") is None


def test_a_query_that_prometheus_refuses_fails_with_its_words(metrics: Metrics) -> None:
    with pytest.raises(ObserverFailed, match=r"HTTP 400.*parse error.*asked: sum\(\("):
        metrics.instant("sum((")


def answer(result: object, **more: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more}).encode()


GOOD = answer([{"metric": {"a": "b"}, "value": [T, "1"]}])


class Service(ThreadingHTTPServer):
    """Answers what a test writes down, one answer after another, the last one for ever, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, bytes], headers: dict[str, str] | None = None, pause: float = 0.0, trickle: bool = False) -> None:
        self.answers, self.headers, self.pause, self.trickle = list(answers), headers or {}, pause, trickle
        self.ended = threading.Event()
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        service = self.server
        service.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        service.ended.wait(service.pause)
        status, body = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **service.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in [body] if not service.trickle else [bytes([one]) for one in body]:
                self.wfile.write(piece)
                self.wfile.flush()
                if service.trickle and service.ended.wait(0.05):
                    return
        except OSError:  # the asker hung up, as it should
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(*answers: tuple[int, bytes] | bytes, **how: Any) -> Service:
        services.append(Service(*((200, one) if isinstance(one, bytes) else one for one in answers), **how))
        return services[-1]

    yield start
    for service in services:
        service.ended.set()
        service.shutdown()
        service.server_close()


BAD = {
    "HTTP 500": ((500, b'{"status":"error","error":"out of memory"}'), "HTTP 500: out of memory"),
    "HTTP 401": ((401, b"no"), "HTTP 401; check its credentials"),
    "HTTP 404": ((404, b"no"), "check the path"),
    "HTTP 302": ((302, b""), "a redirect"),
    "no JSON": (b"<html>", "really a Prometheus"),
    "JSON of something else": (b'{"hello": 1}', "really a Prometheus"),
    "deep JSON": (b"[" * 100_000, "really a Prometheus"),
    "error with 200": (b'{"status":"error","error":"x"}', "really a Prometheus"),
    "no result": (b'{"status":"success","data":{}}', "without a list of results"),
    "warnings": (answer([], warnings=["one store did not answer"]), "partial.*one store did not answer"),
    "partial": (answer([], isPartial=True), "partial"),
    "value no text": (answer([{"metric": {}, "value": [T, 1]}]), "expected a number as text"),
    "value no number": (answer([{"metric": {}, "value": [T, "1_000"]}]), "expected a number as text"),
    "time no number": (answer([{"metric": {}, "value": ["now", "1"]}]), "expected a time"),
    "time infinite": (answer([{"metric": {}, "value": [math.inf, "1"]}]), "expected a time"),
    "pair of three": (answer([{"metric": {}, "value": [T, "1", "2"]}]), "expected .time, value."),
    "no metric": (answer([{"value": [T, "1"]}]), "expected series"),
    "label no text": (answer([{"metric": {"a": 1}, "value": [T, "1"]}]), "label values that are text"),
    "native histogram": (answer([{"metric": {}, "histogram": [T, {}]}]), "native histograms are not supported"),
}


@pytest.mark.parametrize(("response", "reason"), BAD.values(), ids=BAD.keys())
def test_anything_but_a_whole_answer_is_an_observer_that_failed(serve: Callable[..., Service], response: object, reason: str) -> None:
    service = serve(response)
    with pytest.raises(ObserverFailed, match=reason) as caught:
        PrometheusMetrics(settings(service.url)).instant("up")
    assert service.url in str(caught.value)
    assert "asked: up" in str(caught.value)


def test_samples_out_of_order_are_not_believed(serve: Callable[..., Service]) -> None:
    service = serve(answer([{"metric": {}, "values": [[T, "1"], [T - 1, "2"]]}]))
    with pytest.raises(ObserverFailed, match="in order of time"):
        PrometheusMetrics(settings(service.url)).range("up", T - 5, T, 1.0)


def test_a_port_that_nobody_listens_on_is_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ObserverFailed, match=r"cannot be reached: .*refused"):
            PrometheusMetrics(settings(url)).time()


@pytest.mark.parametrize(
    "result", [[], [T, "NaN"], [{"metric": {}, "value": [T, "1"]}, {"metric": {"a": "b"}, "value": [T, "1"]}]], ids=["nothing", "NaN", "two"]
)
def test_a_server_that_does_not_tell_the_time_cannot_be_believed(serve: Callable[..., Service], result: list[object]) -> None:
    with pytest.raises(ObserverFailed, match="did not tell the time"):
        PrometheusMetrics(settings(serve(answer(result)).url)).time()


@pytest.mark.parametrize("how", [{"pause": 30.0}, {"trickle": True}], ids=["silent", "trickling"])
def test_a_server_that_is_too_slow_is_given_up_at_the_deadline(serve: Callable[..., Service], how: dict[str, Any]) -> None:
    service = serve(answer([{"metric": {"padding": "x" * 2000}, "value": [T, "1"]}]), **how)
    with pytest.raises(ObserverFailed, match=r"did not answer within 0\.3 s"):
        PrometheusMetrics(settings(service.url, timeout=0.3)).instant("up")
    assert len(service.asked) == 1


def test_an_answer_that_breaks_off_is_no_answer(serve: Callable[..., Service]) -> None:
    service = serve(GOOD, headers={"Content-Length": "99999", "Connection": "close"})
    with pytest.raises(ObserverFailed):
        PrometheusMetrics(settings(service.url, timeout=1.0)).instant("up")


def test_a_failure_that_is_over_in_a_moment_is_asked_again_once(serve: Callable[..., Service]) -> None:
    service = serve((503, b""), GOOD)
    assert PrometheusMetrics(settings(service.url)).instant("up")[0].samples == (Sample(T, 1.0),)
    again = serve((503, b""))
    with pytest.raises(ObserverFailed, match="HTTP 503"):
        PrometheusMetrics(settings(again.url)).instant("up")
    assert len(again.asked) == 2


def test_tenant_secret_headers_bearer_and_a_deadline_go_with_every_question(serve: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("tok-\u20ac\n")
    service = serve(GOOD)
    token = Secret(file=tmp_path / "token")
    asked = PrometheusMetrics(settings(service.url, bearer=token, headers={"X-Scope-OrgID": "desk"}, secret_headers={"X-Api-Key": token}))
    asked.instant("up", T)
    (tmp_path / "token").write_text("renewed")
    asked.instant("up", T)
    path, headers = service.asked[0]
    assert headers["authorization"].encode("latin-1").decode() == "Bearer tok-\u20ac"
    assert headers["x-scope-orgid"] == "desk"
    assert headers["x-api-key"].encode("latin-1").decode() == "tok-\u20ac"
    assert "timeout=" in path
    assert service.asked[1][1]["authorization"] == "Bearer renewed"


def test_basic_authentication_and_no_netrc_or_proxy_from_the_surroundings(
    serve: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PASSWORD", "open:sesame")
    service = serve(GOOD)
    PrometheusMetrics(settings(service.url, basic=Basic(user="ann", password=Secret(variable="PASSWORD")))).instant("up")
    assert service.asked[0][1]["authorization"] == "Basic YW5uOm9wZW46c2VzYW1l"


def test_a_declared_proxy_is_used(serve: Callable[..., Service]) -> None:
    proxy = serve(GOOD)
    PrometheusMetrics(settings("http://prometheus.invalid:9090", proxy=proxy.url)).instant("up")
    assert proxy.asked[0][0].startswith("http://prometheus.invalid:9090/api/v1/query?")


@pytest.mark.parametrize("status", [400, 200])
def test_no_secret_is_in_any_message_or_cause_even_when_the_server_says_it(serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    body = b'{"status":"error","error":"bad token s3cr3t"}' if status == 400 else answer([], warnings=["token s3cr3t is old"])
    with pytest.raises(ObserverFailed) as caught:
        PrometheusMetrics(settings(serve((status, body)).url, bearer=Secret(variable="TOKEN"))).instant("up")
    error: BaseException | None = caught.value
    assert "***" in str(error)
    while error is not None:
        assert "s3cr3t" not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_secret_that_is_missing_is_an_observer_that_failed(serve: Callable[..., Service], tmp_path: Path) -> None:
    service = serve(GOOD)
    with pytest.raises(ObserverFailed, match=r"cannot be asked: .*nowhere"):
        PrometheusMetrics(settings(service.url, bearer=Secret(file=tmp_path / "nowhere"))).instant("up")
    assert not service.asked


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([openssl, *made, *extra], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_a_private_authority_is_trusted_only_when_it_is_declared(serve: Callable[..., Service], certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    service = serve(GOOD)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    url = service.url.replace("http:", "https:")
    with pytest.raises(ObserverFailed, match=r"cannot be reached: .*certificate"):
        PrometheusMetrics(settings(url)).instant("up")
    assert PrometheusMetrics(settings(url, ca_file=certificate[0])).instant("up")
    with pytest.raises(ObserverFailed, match=r"nowhere\.pem"):
        PrometheusMetrics(settings(url, ca_file=certificate[0].with_name("nowhere.pem"))).instant("up")


def test_importing_the_module_costs_no_heavy_library() -> None:
    code = "import frangible.metrics, frangible.observing, sys; print({'requests', 'scipy', 'numpy', 'pydantic', 'tenacity'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
