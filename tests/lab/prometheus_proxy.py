"""A real HTTP server in front of a real Prometheus that can be told to fail in each of the ways in which an observer fails."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["MODES", "PrometheusProxy"]

MODES = ("down", "slow", "empty", "nan", "partial", "gap", "html")
SLOW = 30.0
"""Seconds that a slow answer takes; longer than anybody waits."""


class PrometheusProxy:
    """Passes questions on to Prometheus, and its answers back, until told otherwise."""

    def __init__(self, upstream: str) -> None:
        """Listen on a free port of loopback."""
        self._upstream = upstream
        self._mode = "pass"
        self._since = 0.0
        self._changed = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._listen()

    @property
    def url(self) -> str:
        """Where it listens, or listened when it is down."""
        return f"http://127.0.0.1:{self._port}"

    def fail(self, mode: str) -> None:
        """Fail from now on in one of `MODES`; `gap` loses whatever is sampled from now on."""
        self._since, self._mode = time.time(), mode
        if mode == "down":
            self.close()

    def heal(self) -> None:
        """Pass everything on again."""
        self._mode = "pass"
        self._changed.set()
        self._listen()

    def close(self) -> None:
        """Refuse connections."""
        self._changed.set()  # nobody is kept waiting by a server that is gone
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _listen(self) -> None:
        if self._server is not None:
            return
        self._changed.clear()
        self._server = _Server(("127.0.0.1", self._port), _handler(self.answer))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="prometheus-proxy", daemon=True).start()

    def answer(self, path: str) -> tuple[int, str, bytes] | None:
        """Return status, content type and body for a question; None hangs up."""
        mode, since = self._mode, self._since
        if mode == "slow":
            self._changed.wait(SLOW)
            return None
        if mode == "html":
            return 503, "text/html", b"<html><body><h1>503 Service Unavailable</h1></body></html>"
        status, body = self._ask(path)
        if status == 200 and mode != "pass":
            body = json.dumps(_spoilt(json.loads(body), mode, since, path)).encode()
        return status, "application/json", body

    def _ask(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"{self._upstream}{path}", timeout=20) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    @classmethod
    @contextmanager
    def open(cls, upstream: str) -> "Iterator[PrometheusProxy]":
        """Listen until the end of the block."""
        proxy = cls(upstream)
        try:
            yield proxy
        finally:
            proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked may have hung up before the answer came."""


def _handler(answer: Callable[[str], tuple[int, str, bytes] | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = answer(self.path)
            if given is None:
                return
            status, kind, body = given
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _spoilt(payload: dict[str, Any], mode: str, since: float, path: str) -> dict[str, Any]:
    """Return an answer of Prometheus as a failing one would give it."""
    if mode == "partial":
        return {**payload, "warnings": ["a store could not be reached; the answer is partial"]}
    if mode == "empty":
        return {**payload, "data": {"resultType": "vector", "result": []}}
    data = payload["data"]
    if data["resultType"] == "scalar":
        return payload if mode == "gap" else {**payload, "data": {**data, "result": [data["result"][0], "NaN"]}}
    change = _nan if mode == "nan" else _without
    return {**payload, "data": {**data, "result": [one for series in data["result"] if (one := change(series, since, "query=timestamp" in path))]}}


def _nan(series: dict[str, Any], since: float, of_times: bool) -> dict[str, Any]:
    if "values" in series:
        return {**series, "values": [[at, "NaN"] for at, _ in series["values"]]}
    return {**series, "value": [series["value"][0], "NaN"]}


def _without(series: dict[str, Any], since: float, of_times: bool) -> dict[str, Any] | None:
    """Lose every sample later than `since`, also where a query returns the samples' times."""
    if "values" in series:
        values = [pair for pair in series["values"] if pair[0] <= since]
        return {**series, "values": values} if values else None
    at, value = series["value"]
    return series if (float(value) if of_times else at) <= since else None
