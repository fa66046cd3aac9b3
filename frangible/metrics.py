"""Prometheus: instant and range queries with authentication, deadlines and strict floats.

prometheus-api-client speaks the protocol. Around it stands a session of ours, because the client passes no timeout, drops the warnings
of partial answers, follows redirects with credentials, and shows whole answers in its errors.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from frangible.errors import ObserverFailed, UsageError

if TYPE_CHECKING:
    import requests

    from frangible.environment import PrometheusSettings

__all__ = ["Metrics", "PrometheusMetrics", "Sample", "Series"]

TRIES = 2
RETRY_AFTER = 0.1
"""Seconds between the two tries of one question; both lie within the one deadline."""
TRANSIENT = frozenset({502, 503, 504})
SCRAPE_LOOKBACKS = (60.0, 300.0, 3600.0)
"""Seconds of raw samples that are looked at for the scrape interval, until there are enough of them."""
NEWEST = 30
"""Distances of the newest samples of one series that count for its scrape interval."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|NaN|[+-]?Inf", re.ASCII)
"""What Prometheus writes for a value (HTTP API, expression query result formats)."""
SHOWN = 200
"""Characters of a query or of an error text that a message shows."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value at one time."""

    at: float
    """Seconds since the Unix epoch on Prometheus's own clock."""
    value: float
    """Finite, or NaN where Prometheus says NaN or an infinity: neither is a value to judge by."""


@dataclass(frozen=True, slots=True)
class Series:
    """One labelled series, samples in order of time."""

    labels: tuple[tuple[str, str], ...]
    samples: tuple[Sample, ...]


class Metrics(Protocol):
    """What runs ask of Prometheus. Every call raises `ObserverFailed` when the answer cannot be had or trusted.

    An empty result is not an error here: what absence means is the judge's business.
    """

    def time(self) -> float:
        """Prometheus's own clock, seconds since the Unix epoch."""

    def raw(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Raw stored samples of a selector in (start, end]; nothing extrapolated, staleness markers dropped."""

    def range(self, query: str, start: float, end: float, step: float) -> tuple[Series, ...]:
        """Evaluate any PromQL at start, start+step, … end."""

    def instant(self, query: str, at: float | None = None) -> tuple[Series, ...]:
        """Evaluate any PromQL at one time, now by default."""

    def scrape_interval(self, selector: str) -> float | None:
        """Median distance of the newest raw samples of a selector in seconds, or None without data."""


class _Unavailable(ObserverFailed):
    """A failure that may be over in a moment; only these are tried again."""


class _WrongShape(ValueError):
    """An answer that is not what the HTTP API promises."""


class PrometheusMetrics:
    """`Metrics` of one Prometheus, or of anything that speaks its HTTP API."""

    def __init__(self, settings: "PrometheusSettings") -> None:
        """Prepare; nothing is asked and no secret is read before the first question."""
        from prometheus_api_client import PrometheusConnect
        from urllib3.util import Retry

        self._timeout = settings.timeout
        self._who = f"Prometheus at {settings.url}"
        # The client mounts its own retries on the session: none, since they would outlive the deadline.
        self._client = PrometheusConnect(url=settings.url, session=_CheckedSession(settings), retry=Retry(0, read=False))

    def time(self) -> float:
        """Prometheus's own clock, seconds since the Unix epoch."""
        answer = self._parsed(self._query("time()", None), "time()", "value")
        if len(answer) != 1 or not math.isfinite(answer[0].samples[0].value):
            raise ObserverFailed(f"{self._who} did not tell the time: expected one number, found {'no value' if not answer else 'something else'}")
        return answer[0].samples[0].value

    def raw(self, selector: str, start: float, end: float) -> tuple[Series, ...]:
        """Raw stored samples of a selector in (start, end]; nothing extrapolated, staleness markers dropped."""
        if not end > start:
            return ()
        # Prometheus 2 includes the sample at the left end and 3 does not, and times are sent in whole milliseconds: ask for more and cut.
        query = f"{selector}[{math.ceil((end - start) * 1000) + 1}ms]"
        series = self._parsed(self._query(query, math.ceil(end * 1000) / 1000), query, "values")
        cut = (Series(one.labels, tuple(sample for sample in one.samples if start < sample.at <= end)) for one in series)
        return tuple(one for one in cut if one.samples)

    def range(self, query: str, start: float, end: float, step: float) -> tuple[Series, ...]:
        """Evaluate any PromQL at start, start+step, … end."""
        if end < start:
            return ()
        # The client rounds both ends to whole seconds; parameters of ours win over its own.
        exact = {"start": f"{start:.3f}", "end": f"{end:.3f}"}
        ends = (datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC))
        return self._parsed(self._ask(lambda left: self._client.custom_query_range(query, *ends, f"{step:.3f}", exact, left), query), query, "values")

    def instant(self, query: str, at: float | None = None) -> tuple[Series, ...]:
        """Evaluate any PromQL at one time, now by default."""
        return self._parsed(self._query(query, at), query, "value")

    def scrape_interval(self, selector: str) -> float | None:
        """Median distance of the newest raw samples of a selector in seconds, or None without data."""
        from statistics import median

        distances: list[float] = []
        for lookback in SCRAPE_LOOKBACKS:
            query = f"{selector}[{lookback:.0f}s]"
            for series in self._parsed(self._query(query, None), query, "values"):
                newest = [sample.at for sample in series.samples[-NEWEST:]]
                distances += [later - earlier for earlier, later in pairwise(newest)]
            if len(distances) >= TRIES:
                break
        return median(distances) if distances else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _query(self, query: str, at: float | None) -> object:
        params = {} if at is None else {"time": f"{at:.3f}"}
        return self._ask(lambda left: self._client.custom_query(query, params, left), query)

    def _ask(self, question: Callable[[float], object], query: str) -> object:
        """Ask at most twice within one deadline; say what was asked when it fails."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_fixed

        deadline = time.monotonic() + self._timeout
        stop = stop_after_attempt(TRIES) | stop_before_delay(self._timeout)
        retrying = Retrying(stop=stop, wait=wait_fixed(RETRY_AFTER), retry=retry_if_exception_type(_Unavailable), reraise=True)
        try:
            return retrying(lambda: question(max(0.001, deadline - time.monotonic())))
        except ObserverFailed as error:
            raise ObserverFailed(f"{self._who} {error} (asked: {_short(query)})") from error

    def _parsed(self, result: object, query: str, key: str) -> tuple[Series, ...]:
        try:
            return _series_of(result, key)
        except _WrongShape as error:
            raise ObserverFailed(f"{self._who} gave an answer of another shape than its HTTP API promises: {error} (asked: {_short(query)})") from error


class _CheckedSession:
    """What the client uses as its session: adds credentials, bounds the time, and lets only whole answers through."""

    def __init__(self, settings: "PrometheusSettings") -> None:
        import requests

        self._settings = settings
        self._session = requests.Session()
        # Neither proxies nor .netrc nor certificates from the surroundings: what is not in the inventory does not count.
        self._session.trust_env = False
        if settings.proxy is not None:
            self._session.proxies = {"http": settings.proxy, "https": settings.proxy}
        self.verify: bool | str = str(settings.ca_file) if settings.ca_file is not None else True
        self.cert = None
        self.mount = self._session.mount
        self.close = self._session.close

    def request(self, method: str, url: str, *, params: dict[str, str], timeout: float, **_: object) -> "_Answer":
        """Ask once, within `timeout` seconds in all."""
        deadline = time.monotonic() + timeout
        headers, secrets = self._credentials()
        # Prometheus itself gives up then too, instead of working for nobody (HTTP API: `timeout`).
        params = {**params, "timeout": f"{math.ceil(timeout * 1000)}ms"}
        try:
            body, response = self._exchange(method, url, params, headers, deadline)
            return _Answer(_checked(body, response))
        except ObserverFailed as error:
            text = str(error)
            for secret in secrets:
                text = text.replace(secret, "***")
            # The text may have been the server's echo of a credential: the original must not travel along.
            raise type(error)(text) from (error if text == str(error) else None)

    def _credentials(self) -> tuple[dict[str, str | bytes], tuple[str, ...]]:
        """Read the secrets now, so that a renewed token counts at once."""
        from base64 import b64encode

        settings = self._settings
        headers: dict[str, str | bytes] = dict(settings.headers)
        secrets = []
        try:
            for name, secret in settings.secret_headers.items():
                headers[name] = secret.reveal().encode()
                secrets.append(secret.reveal())
            if settings.bearer is not None:
                secrets.append(settings.bearer.reveal())
                headers["Authorization"] = f"Bearer {secrets[-1]}".encode()
            if settings.basic is not None:
                password = settings.basic.password.reveal()
                pair = b64encode(f"{settings.basic.user}:{password}".encode())
                secrets += [password, pair.decode()]
                headers["Authorization"] = b"Basic " + pair
        except UsageError as error:
            raise ObserverFailed(f"cannot be asked: {error}") from error
        return headers, tuple(secrets)

    def _exchange(self, method: str, url: str, params: dict[str, str], headers: dict[str, str | bytes], deadline: float) -> "tuple[bytes, requests.Response]":
        import requests
        from urllib3.exceptions import HTTPError

        overtime = threading.Event()
        left = max(0.001, deadline - time.monotonic())
        try:
            response = self._session.request(method, url, params=params, headers=headers, timeout=left, verify=self.verify, stream=True, allow_redirects=False)
            return self._body(response, deadline, overtime), response
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            if overtime.is_set() or isinstance(error, requests.Timeout):
                raise ObserverFailed(f"did not answer within {self._settings.timeout:g} s; is it overloaded, or `timeout` too short?") from error
            kind = _Unavailable if isinstance(error, requests.ConnectionError) and not isinstance(error, requests.exceptions.SSLError) else ObserverFailed
            raise kind(f"cannot be reached: {_cause(error)}; check its address and that it runs") from error

    @staticmethod
    def _body(response: "requests.Response", deadline: float, overtime: threading.Event) -> bytes:
        """Read the whole body. requests bounds the wait for each piece only, so a watchdog ends a trickle."""

        def end() -> None:
            overtime.set()
            response.raw.shutdown()

        watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), end)
        watchdog.daemon = True
        watchdog.start()
        try:
            body = response.content
        finally:
            watchdog.cancel()
        if overtime.is_set():
            raise OSError("cut off at the deadline")
        return body


@dataclass(frozen=True, slots=True)
class _Answer:
    """A successful, complete answer, as the client wants to see it."""

    payload: object
    status_code: int = 200

    def json(self) -> object:
        """Return the parsed body."""
        return self.payload


def _checked(body: bytes, response: "requests.Response") -> object:
    """Return the payload of a whole, successful answer; raise `ObserverFailed` for anything else."""
    payload = _json(body)
    if response.status_code != 200:
        kind = _Unavailable if response.status_code in TRANSIENT else ObserverFailed
        detail = payload.get("error") if isinstance(payload, dict) else None
        said = f": {_short(str(detail))}" if detail else ""
        raise kind(f"answered HTTP {response.status_code}{said}{_advice(response.status_code)}")
    if not isinstance(payload, dict) or payload.get("status") != "success":
        raise ObserverFailed("did not answer with the JSON of Prometheus's HTTP API; is this address really a Prometheus?")
    if payload.get("warnings"):
        raise ObserverFailed(f"gave a partial or doubtful answer, with the warning: {_short(str(payload['warnings']))}")
    if payload.get("isPartial"):  # VictoriaMetrics, cluster version: "Partial responses"
        raise ObserverFailed("gave a partial answer")
    data = payload.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise ObserverFailed("answered without a list of results; is this address really a Prometheus?")
    return payload


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _advice(status: int) -> str:
    if 300 <= status < 400:
        return ", a redirect: give the address that it leads to"
    return {401: "; check its credentials", 403: "; check its credentials", 404: "; check the path of its address"}.get(status, "")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _cause(error: BaseException) -> str:
    """The innermost cause: what the operating system or TLS said."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return _short(str(error)) or type(error).__name__


def _series_of(result: object, key: str) -> tuple[Series, ...]:
    """Parse a vector (`value`), a matrix (`values`) or a scalar; raise `_WrongShape` for others."""
    if not isinstance(result, list):
        raise _WrongShape(f"expected a list, found {_short(repr(result))}")
    if key == "value" and len(result) == 2 and not isinstance(result[0], dict):
        return (Series((), (_sample(result),)),)
    return tuple(sorted((_one_series(one, key) for one in result), key=lambda series: series.labels))


def _one_series(one: object, key: str) -> Series:
    if not isinstance(one, dict) or not isinstance(one.get("metric"), dict) or not isinstance(one.get(key), list):
        raise _WrongShape(f"expected series with `metric` and `{key}` (native histograms are not supported), found {_short(repr(one))}")
    labels = one["metric"]
    if not all(isinstance(value, str) for value in labels.values()):
        raise _WrongShape(f"expected label values that are text, found {_short(repr(labels))}")
    samples = tuple(_sample(pair) for pair in (one[key] if key == "values" else [one[key]]))
    if not _in_order(sample.at for sample in samples):
        raise _WrongShape(f"expected samples in order of time, found others in {_short(repr(labels))}")
    return Series(tuple(sorted(labels.items())), samples)


def _sample(pair: object) -> Sample:
    if not isinstance(pair, list) or len(pair) != 2:
        raise _WrongShape(f"expected [time, value], found {_short(repr(pair))}")
    at, text = pair
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise _WrongShape(f"expected a time in seconds, found {_short(repr(at))}")
    if not isinstance(text, str) or not NUMBER.fullmatch(text):
        raise _WrongShape(f"expected a number as text, found {_short(repr(text))}")
    value = float(text)
    return Sample(float(at), value if math.isfinite(value) else math.nan)


def _in_order(times: Iterable[float]) -> bool:
    newest = -math.inf
    for at in times:
        if at <= newest:
            return False
        newest = at
    return True
