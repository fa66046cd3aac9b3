"""One cluster as one environment reaches it: the official client, with a deadline on each request, errors in words, and repeats where they are safe.

Every environment has a client of its own, built from its kubeconfig and context; the process-wide default of the library is never read or set.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from frangible.errors import PlatformError

if TYPE_CHECKING:
    from frangible.environment import Environment

__all__ = ["CONNECT", "READ", "Answer", "Cluster", "Conflict", "Gone", "NotFound"]

CONNECT = 5.0
"""Seconds that a connection to the API server may take, TLS included."""
READ = 10.0
"""Seconds that it may be silent before an answer."""
PATIENCE = 6.0
"""Seconds in which a request that failed for a passing reason is begun again."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be others a moment later."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
DEFAULT_KUBECONFIG = "~/.kube/config"
AGAIN = 0.2
"""Seconds before a list is asked for again whose watch has failed: a server that is too busy for watches may still answer lists."""
WATCH = 20.0
"""Seconds after which a watch is begun anew, whatever happens: a connection that died silently is noticed by then."""

type Method = Callable[..., Any]
type Item = dict[str, Any]


class NotFound(PlatformError):
    """There is no such object."""


class Conflict(PlatformError):
    """The object exists already, or was changed since it was read."""


class Gone(PlatformError):
    """What a watch should go on from is too old: list again."""


class _Passing(PlatformError):
    """It may be another answer a moment later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the API server."""

    data: Item
    at: float | None
    """The server's clock when it answered, in seconds since the epoch; whole seconds (HTTP's `Date`)."""

    @property
    def items(self) -> list[Item]:
        """The items of a list."""
        return list(self.data.get("items") or ())

    @property
    def version(self) -> str:
        """The resource version of an object, or of a list."""
        return str(self.data["metadata"].get("resourceVersion", ""))


class Cluster:
    """Reads and changes objects of one cluster. Every call has a deadline and raises `PlatformError`."""

    def __init__(self, environment: "Environment") -> None:
        """Note where it is; nothing is read or reached yet."""
        self.environment = environment.name
        self._kubeconfig = environment.platform.kubeconfig
        self._context = environment.platform.context

    @property
    def core(self) -> Any:
        """Nodes, pods, namespaces, ConfigMaps (CoreV1Api)."""
        return self._api("CoreV1Api")

    @property
    def apps(self) -> Any:
        """Deployments, StatefulSets, DaemonSets (AppsV1Api)."""
        return self._api("AppsV1Api")

    @property
    def coordination(self) -> Any:
        """Leases (CoordinationV1Api)."""
        return self._api("CoordinationV1Api")

    @property
    def policy(self) -> Any:
        """Disruption budgets (PolicyV1Api)."""
        return self._api("PolicyV1Api")

    @property
    def authorization(self) -> Any:
        """What this client may do (AuthorizationV1Api)."""
        return self._api("AuthorizationV1Api")

    @property
    def authentication(self) -> Any:
        """Who this client is (AuthenticationV1Api)."""
        return self._api("AuthenticationV1Api")

    @property
    def discovery(self) -> Any:
        """Endpoints (DiscoveryV1Api)."""
        return self._api("DiscoveryV1Api")

    @property
    def version(self) -> Any:
        """The server's version (VersionApi)."""
        return self._api("VersionApi")

    def variables(self) -> Mapping[str, str]:
        """Return the environment variables with which other programs reach this cluster; raise where they could not say which it is."""
        file = self._file()
        if file is None:
            return {"CHAOSTOOLKIT_IN_POD": "true", "KUBECONFIG": ""}
        if os.pathsep in file:  # chaostoolkit-kubernetes takes such a list for a missing file, and then asks localhost
            raise PlatformError(
                f"environment {self.environment}: KUBECONFIG names several files; name one with `platform.kubeconfig`, for programs that take one"
            )
        return {"KUBECONFIG": str(Path(file).expanduser()), "KUBERNETES_CONTEXT": self._context or self._current_context(file)}

    def ask(self, method: Method, *arguments: object, repeat: bool = True, read: float = READ, **more: Any) -> Answer:
        """Make one request; with `repeat` again for a few seconds while the reason of a failure may pass.

        `repeat` is for requests that do no harm twice: reads, a change at a known resource version, a deletion of a known uid, a creation by name.
        Raises `NotFound` and `Conflict` beside `PlatformError`.
        """

        def once() -> Answer:
            return self._once(method, arguments, more, read)

        if not repeat:
            return once()
        retrying = Retrying(
            retry=retry_if_exception_type(_Passing), stop=stop_after_delay(PATIENCE), wait=wait_random_exponential(multiplier=0.1, max=1.0), reraise=True
        )
        answer: Answer = retrying(once)
        return answer

    def text(self, method: Method, *arguments: object, read: float = READ, **more: object) -> str:
        """Make one request whose answer is no JSON, once."""
        with self._explained(method):
            response = method(*arguments, **more, _preload_content=False, _request_timeout=(CONNECT, read))
            return str(response.data.decode())

    def follow(self, method: Method, *arguments: object, seconds: float, **more: Any) -> Iterator[tuple[Item, ...]]:
        """Yield all items of a list now, and again after each change, by a watch; end after `seconds`.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
        """
        end = time.monotonic() + seconds
        while True:
            listed = self.ask(method, *arguments, **more)
            items = {item["metadata"]["uid"]: item for item in listed.items}
            yield tuple(items.values())
            version = listed.version
            try:
                while (left := end - time.monotonic()) > 0:
                    for kind, item in self._watch(method, arguments, more | {"resource_version": version}, min(left, WATCH)):
                        version = item["metadata"]["resourceVersion"]
                        if kind == "BOOKMARK":
                            continue
                        if kind == "DELETED":
                            items.pop(item["metadata"]["uid"], None)
                        else:
                            items[item["metadata"]["uid"]] = item
                        yield tuple(items.values())
            except Gone:
                continue
            except _Passing:
                time.sleep(AGAIN)
            if end - time.monotonic() <= 0:
                return

    def pages(self, method: Method, *arguments: object, limit: int = 500, **more: Any) -> Iterator[Item]:
        """Yield the items of a long list, page by page."""
        while True:
            answer = self.ask(method, *arguments, limit=limit, **more)
            yield from answer.items
            more["_continue"] = answer.data["metadata"].get("continue")
            if not more["_continue"]:
                return

    def _once(self, method: Method, arguments: tuple[object, ...], more: Mapping[str, Any], read: float) -> Answer:
        with self._explained(method):
            response = method(*arguments, **more, _preload_content=False, _request_timeout=(CONNECT, read))
            return Answer(json.loads(response.data), _moment(response.headers.get("Date")))

    def _watch(self, method: Method, arguments: tuple[object, ...], more: Mapping[str, Any], seconds: float) -> Iterator[tuple[str, Item]]:
        with self._explained(method):
            asked = {"watch": True, "allow_watch_bookmarks": True, "timeout_seconds": max(1, round(seconds))}
            response = method(*arguments, **more, **asked, _preload_content=False, _request_timeout=(CONNECT, seconds + READ))
            try:
                for line in _lines(response.stream(amt=None, decode_content=True)):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _of_status(self._who(method), int(event["object"].get("code", 500)), str(event["object"].get("message", "")))
                    yield event["type"], event["object"]
            finally:
                response.close()

    @contextlib.contextmanager
    def _explained(self, method: Method) -> Iterator[None]:
        """Turn what the library raises into errors of ours."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError, SSLError

        try:
            yield
        except ApiException as error:
            if not error.status:  # how the library tells of TLS since 36
                raise self._untrusted(method, error.reason) from error
            raise _of_status(self._who(method), int(error.status or 500), _message(error)) from error
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, SSLError):
                raise self._untrusted(method, reason) from error
            raise _Passing(f"{self._who(method)}: no answer: {_plainly(reason)}; is the cluster up and reachable from here?") from error
        except ConfigException as error:
            raise PlatformError(f"{self._who(method)}: its credentials cannot be renewed: {_plainly(error)}; look at the kubeconfig's `exec`") from error
        except ValueError as error:
            raise _Passing(f"{self._who(method)}: its answer is no JSON: {error}; is that address an API server?") from error

    def _untrusted(self, method: Method, reason: object) -> PlatformError:
        return PlatformError(f"{self._who(method)}: its certificate is not trusted: {_plainly(reason)}; is the kubeconfig that of this cluster?")

    def _who(self, method: Method) -> str:
        """Say who asked what of whom: `environment e, cluster https://...: list namespaced pod`."""
        words = method.__name__.replace("_", " ")
        return f"environment {self.environment}, cluster {self._client.configuration.host}: {words}"

    @cached_property
    def _client(self) -> Any:
        """The client of this environment alone."""
        try:
            from kubernetes.client import ApiClient, Configuration
            from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
        except ImportError as error:
            raise PlatformError(
                f"environment {self.environment} is on Kubernetes, whose client is not installed: pip install 'frangible[kubernetes]'"
            ) from error
        configuration, file = Configuration(), self._file()
        try:
            if file is None:
                load_incluster_config(client_configuration=configuration)
            else:
                load_kube_config(config_file=file, context=self._context or None, client_configuration=configuration, persist_config=False)
            configuration.retries = False  # repeats are ours: the library's would outlast every deadline
            return ApiClient(configuration)  # type: ignore[no-untyped-call, unused-ignore]
        except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            raise PlatformError(
                f"environment {self.environment}: {file or 'the service account of this pod'} names no cluster that can be reached"
                f"{f' by the context {self._context!r}' if self._context else ''}: {_plainly(error)}; "
                "name the file and the context with `platform.kubeconfig` and `platform.context` of the inventory"
            ) from error

    def _current_context(self, file: str) -> str:
        from kubernetes.config import list_kube_config_contexts

        return str(list_kube_config_contexts(config_file=file)[1]["name"])

    def _file(self) -> str | None:
        """Return the kubeconfig, or a list of them as KUBECONFIG has it; None means the pod's own service account."""
        if self._kubeconfig is not None:
            return str(self._kubeconfig)
        named = os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
        there = any(Path(one).expanduser().is_file() for one in named.split(os.pathsep) if one)
        if not there and SERVICE_ACCOUNT.is_file():
            return None
        if not there:
            raise PlatformError(f"environment {self.environment}: there is no kubeconfig at {named}; name one with `platform.kubeconfig` or KUBECONFIG")
        return named

    def _api(self, name: str) -> Any:
        made = self._client
        from kubernetes import client

        return getattr(client, name)(made)


def _of_status(who: str, status: int, message: str) -> PlatformError:
    """Return the error for an HTTP status of the API."""
    match status:
        case 404:
            return NotFound(f"{who}: {message}")
        case 409:
            return Conflict(f"{who}: {message}")
        case 410:
            return Gone(f"{who}: {message}")
        case 401:
            return PlatformError(f"{who}: it does not know us ({message}): renew the credentials of the kubeconfig")
        case 403:
            return PlatformError(
                f"{who}: a permission is missing: {message}; grant it to this user (`frangible doctor` says what grants it, docs/access.md how)"
            )
        case _ if status in PASSING:
            return _Passing(f"{who}: it cannot answer now ({status}): {message}")
        case _:
            return PlatformError(f"{who}: refused ({status}): {message}")


def _message(error: Any) -> str:
    """Return what the API said: the message of its Status object where it sent one."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason or "no reason given")
    with contextlib.suppress(ValueError):
        status = json.loads(body)
        if isinstance(status, dict):
            return str(status.get("message") or status.get("reason") or body)
    return body.strip()


def _plainly(error: object) -> str:
    """Return an error's words without the addresses of Python objects that urllib3 puts before them."""
    return re.sub(r"^.*<[^>]* object at 0x[0-9a-f]+>: ", "", str(error)) or type(error).__name__


def _moment(date: str | None) -> float | None:
    if not date:
        return None
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(date).timestamp()
    return None


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
