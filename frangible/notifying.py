"""Telling other systems when a fault begins and when it is over: a webhook, and an annotation in Grafana that becomes a region.

Each has a thread of its own beside the run: a run never waits for them while it goes on, and never fails with them. What could not be told is said in
the run's log. A notice may arrive twice where an answer was lost; its `id` tells.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from frangible.errors import FrangibleError, UsageError

if TYPE_CHECKING:
    import requests

    from frangible.channel import Message
    from frangible.environment import GrafanaSettings, HttpSettings, NotifySettings, Secret, WebhookSettings
    from frangible.plan import Plan

__all__ = ["LIMIT", "PATIENCE", "Notice", "Notifying", "secrets_of"]

LIMIT = 20.0
"""Seconds that one notice has for all its attempts."""
PATIENCE = 5.0
"""Seconds that what is still pending has at the run's end."""
MOST = 100
"""Notices that wait for one system; more are dropped, and that is said."""
LONGEST_ANSWER = 65536
"""Bytes of an answer that are read."""
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes after which it is tried again."""
STATES = ("injected", "reverted", "revert-failed")

type Report = Callable[[str], None]


class NoticeFailed(FrangibleError):
    """A notice could not be told."""


class Unavailable(NoticeFailed):
    """A failure that may be over in a moment; only these are tried again."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One fault that began, or that is over."""

    id: str
    """The same for every attempt to tell it."""
    event: Literal["injected", "reverted", "revert-failed"]
    at: float
    """Seconds since the epoch."""
    run: str
    experiment: str
    title: str
    environment: str
    region: str
    team: str
    """Who answers for the environment."""
    fault: str
    target: str
    detail: str
    lease: str
    actor: str
    note: str
    ticket: str

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.fault} on {self.target} of {self.environment} {self.event}"


class Sender(Protocol):
    """A system that is told."""

    name: str

    def send(self, notice: Notice) -> None:
        """Tell it once; raise `NoticeFailed`."""


class Notifying:
    """Who is told of one run's faults. `hear` takes events and returns at once; `close` waits for what is pending, for a bounded time."""

    def __init__(self, plan: "Plan", settings: "NotifySettings | None", report: Report, limit: float = LIMIT) -> None:
        """Tell those of `settings`; `report` is called from any thread with a sentence about what could not be told."""
        self._plan = plan
        self._lines = [_Line(sender, report, limit) for sender in _senders(settings)]
        self._heard: set[tuple[str, str]] = set()

    def hear(self, event: "Message") -> None:
        """Take an event of the run in; what a fault's beginning or end is goes to everybody, once."""
        if not self._lines or event.get("event") != "fault" or event["state"] not in STATES:
            return
        mark = (event["lease"], event["state"])
        if mark not in self._heard:
            self._heard.add(mark)
            notice = self._notice(event)
            for line in self._lines:
                line.put(notice)

    def close(self, patience: float = PATIENCE) -> None:
        """Wait so many seconds for what is pending, and report what was not told by then."""
        deadline = time.monotonic() + patience
        for line in self._lines:
            line.end()
        for line in self._lines:
            line.join(max(0.0, deadline - time.monotonic()))

    def _notice(self, event: "Message") -> Notice:
        plan = self._plan
        environment = plan.environment
        return Notice(
            id=f"{event['lease']}:{event['state']}",
            event=event["state"],
            at=event["at"],
            run=plan.run_id,
            experiment=plan.experiment,
            title=plan.title,
            environment=environment.name,
            region=environment.region,
            team=environment.owner.team,
            fault=event["fault"],
            target=event["target"],
            detail=event["detail"],
            lease=event["lease"],
            actor=plan.actor,
            note=plan.note,
            ticket=plan.ticket,
        )


class _Line:
    """The notices for one system, in order, and the thread that tells them."""

    def __init__(self, sender: Sender, report: Report, limit: float) -> None:
        self._sender = sender
        self._report = report
        self._limit = limit
        self._pending: Queue[Notice | None] = Queue(MOST)
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._telling: Notice | None = None

    def put(self, notice: Notice) -> None:
        """Put one at the end; never wait."""
        try:
            self._pending.put_nowait(notice)
        except Full:
            self._report(f"{self._sender.name} was not told that {notice}: {MOST} others are waiting")
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell_all, name=f"tell {self._sender.name}", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Let the thread end when it has told the last one."""
        with contextlib.suppress(Full):  # then `join` gives it up
            self._pending.put_nowait(None)

    def join(self, patience: float) -> None:
        """Wait for the thread, and give up what it has not told by then."""
        if self._thread is None:
            return
        self._thread.join(patience)
        if self._thread.is_alive():
            self._hurry.set()
            for notice in [one for one in (self._telling, *self._rest()) if one is not None]:
                self._report(f"{self._sender.name} was not told that {notice}: the run is over, and there was no answer yet")

    def _rest(self) -> Iterator[Notice | None]:
        with contextlib.suppress(Empty):
            while True:
                yield self._pending.get_nowait()

    def _tell_all(self) -> None:
        while (notice := self._pending.get()) is not None:
            self._telling = notice
            self._tell(notice)
            self._telling = None

    def _tell(self, notice: Notice) -> None:
        from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_after_delay, stop_when_event_set, wait_exponential

        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(self._limit) | stop_when_event_set(self._hurry),
            wait=wait_exponential(multiplier=0.25, max=5.0),
            sleep=sleep_using_event(self._hurry),
            reraise=True,
        )
        try:
            retrying(self._sender.send, notice)
        except FrangibleError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - a thread that ended would be silent for the rest of the run; its words might hold a secret
            problem = f"{type(error).__name__}, which is an error of frangible's own"
        else:
            return
        if not self._hurry.is_set():  # else `join` has said so
            self._report(f"{self._sender.name} was not told that {notice}: {problem}")


# --- whom --------------------------------------------------------------------------------------------------------------


def _senders(settings: "NotifySettings | None") -> Iterator[Sender]:
    if settings is not None and settings.webhook is not None:
        yield Webhook(settings.webhook)
    if settings is not None and settings.grafana is not None:
        yield Grafana(settings.grafana)


def secrets_of(settings: "NotifySettings") -> "Iterator[Secret]":
    """Yield every secret that is needed to tell; none is read."""
    if settings.webhook is not None:
        yield from settings.webhook.secret_headers.values()
        if settings.webhook.secret_url is not None:
            yield settings.webhook.secret_url
    if settings.grafana is not None:
        yield settings.grafana.bearer


class Webhook:
    """Gets each notice as one JSON object."""

    name = "the webhook"

    def __init__(self, settings: "WebhookSettings") -> None:
        """Connect when something is to be told."""
        self._settings = settings
        self._http = _Http(settings)

    def send(self, notice: Notice) -> None:
        """POST it."""
        settings = self._settings
        headers = {name: _revealed(secret) for name, secret in settings.secret_headers.items()}
        hidden = [*headers.values()]
        url = settings.url or ""
        if settings.secret_url is not None:
            url = _revealed(settings.secret_url)
            hidden += [url, urlsplit(url).path.strip("/")]
        self._http.send("POST", url, asdict(notice), {**settings.headers, **headers}, hidden)


class Grafana:
    """Gets an annotation when a fault begins, which becomes a region when it is over.

    HTTP API: "Annotations API", POST /api/annotations and PATCH /api/annotations/:id; times are milliseconds since the epoch.
    """

    name = "Grafana"

    def __init__(self, settings: "GrafanaSettings") -> None:
        """Connect when something is to be told."""
        self._settings = settings
        self._http = _Http(settings)
        self._known: dict[str, int] = {}
        """Annotation by lease."""
        self._untold: dict[str, float] = {}
        """When a fault began of which Grafana could not be told."""

    def send(self, notice: Notice) -> None:
        """Begin an annotation, or end it; one that could not be begun is made whole at its end."""
        at = round(notice.at * 1000)
        if notice.event == "injected":
            self._untold[notice.lease] = notice.at
            self._begin(notice, {"time": at})
        elif (annotation := self._known.get(notice.lease)) is not None:
            change: dict[str, object] = {"timeEnd": at} if notice.event == "reverted" else {"text": f"{_text(notice)}: NOT reverted, {notice.detail}"}
            self._ask("PATCH", f"/api/annotations/{annotation}", change)
        elif notice.event == "reverted" and notice.lease in self._untold:
            self._begin(notice, {"time": round(self._untold[notice.lease] * 1000), "timeEnd": at})

    def _begin(self, notice: Notice, times: "dict[str, object]") -> None:
        settings = self._settings
        tags = ["frangible", f"environment:{notice.environment}", f"experiment:{notice.experiment}", f"fault:{notice.fault}", f"run:{notice.run}"]
        where: dict[str, object] = {"dashboardUID": settings.dashboard} if settings.dashboard else {}
        where |= {"panelId": settings.panel} if settings.panel is not None else {}
        answer = self._ask("POST", "/api/annotations", {**where, **times, "tags": [*tags, *settings.tags], "text": _text(notice)})
        self._untold.pop(notice.lease, None)
        try:
            self._known[notice.lease] = int(json.loads(answer)["id"])
        except (ValueError, KeyError, TypeError):
            raise NoticeFailed("it answered without the `id` of an annotation; is this address really a Grafana?") from None

    def _ask(self, method: str, path: str, document: "Mapping[str, object]") -> bytes:
        token = _revealed(self._settings.bearer)
        return self._http.send(method, f"{self._settings.url}{path}", document, {"Authorization": f"Bearer {token}"}, [token])


def _text(notice: Notice) -> str:
    return f"{notice.fault} on {notice.target} of {notice.environment} (experiment {notice.experiment}, run {notice.run})"


def _revealed(secret: "Secret") -> str:
    """Read it now, so that a renewed one counts at once."""
    try:
        return secret.reveal()
    except UsageError as error:
        raise NoticeFailed(str(error)) from None


# --- how ---------------------------------------------------------------------------------------------------------------


class _Http:
    """Sends JSON. What is said of a failure never holds a secret."""

    def __init__(self, settings: "HttpSettings") -> None:
        self._settings = settings
        self._session: requests.Session | None = None

    def send(self, method: str, url: str, document: "Mapping[str, object]", headers: Mapping[str, str], hidden: "list[str]") -> bytes:
        """Send once, and return what was answered; raise `NoticeFailed` with `hidden` replaced wherever it occurs."""
        try:
            return self._exchange(method, url, document, {name: value.encode() for name, value in headers.items()})
        except NoticeFailed as error:
            text = str(error)
            for secret in sorted(filter(None, hidden), key=len, reverse=True):
                text = text.replace(secret, "***")
            raise type(error)(text) from None  # the original may quote an address or a header

    def _exchange(self, method: str, url: str, document: "Mapping[str, object]", headers: "Mapping[str, bytes]") -> bytes:
        import requests
        from urllib3.exceptions import HTTPError

        settings = self._settings
        session = self._opened()
        data = json.dumps(document, allow_nan=False).encode()
        sent = {"Content-Type": b"application/json", **headers}
        verify: bool | str = str(settings.ca_file) if settings.ca_file is not None else True
        try:
            with session.request(method, url, data=data, headers=sent, timeout=settings.timeout, verify=verify, stream=True, allow_redirects=False) as response:
                return _checked(response, self._body(response))
        except requests.Timeout:
            raise Unavailable(f"it did not answer within {settings.timeout:g} s") from None
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            kind = Unavailable if isinstance(error, requests.ConnectionError) and not isinstance(error, requests.exceptions.SSLError) else NoticeFailed
            raise kind(f"it cannot be reached: {_cause(error)}") from None

    def _opened(self) -> "requests.Session":
        import requests

        if self._session is None:
            self._session = requests.Session()
            # Neither proxies nor .netrc nor certificates from the surroundings: what is not in the inventory does not count.
            self._session.trust_env = False
            if self._settings.proxy is not None:
                self._session.proxies = {"http": self._settings.proxy, "https": self._settings.proxy}
        return self._session

    def _body(self, response: "requests.Response") -> bytes:
        """Read the beginning of the answer; a watchdog ends one that trickles."""
        watchdog = threading.Timer(self._settings.timeout, response.raw.shutdown)
        watchdog.daemon = True
        watchdog.start()
        try:
            return bytes(response.raw.read(LONGEST_ANSWER, decode_content=True))
        finally:
            watchdog.cancel()


def _checked(response: "requests.Response", body: bytes) -> bytes:
    status = response.status_code
    if 200 <= status < 300:
        return body
    kind = Unavailable if status in TRANSIENT else NoticeFailed
    advice = {401: "; check its credentials", 403: "; check its credentials", 404: "; check its address"}.get(status, "")
    raise kind(f"it answered HTTP {status}{', a redirect: give the address that it leads to' if 300 <= status < 400 else advice}")


def _cause(error: BaseException) -> str:
    """The innermost cause: what the operating system or TLS said."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)[:200] or type(error).__name__
