"""The one request that a helper pod makes: it writes into its own pod what it sees, and reads there whether its pod is being deleted.

It goes to the API server's own address where that is given, from one of a few source ports: so it gets through the hole that a cut network leaves.
"""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PORTS", "TOLD", "Api"]

TOLD = "frangible.io/told"
"""Annotation of a helper's pod: what it sees, as JSON."""
PORTS = range(17000, 17016)
"""Source ports that a cut network lets through to the API server: several, since one that was just closed cannot be used again at once."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAME = "kubernetes.default.svc"
"""A name that every API server's certificate has."""
TIMEOUT = 2.0
"""Seconds of one request."""


class _Connection(http.client.HTTPConnection):
    """HTTPS to an address, checked by the server's name inside the cluster."""

    def __init__(self, address: str, source: int) -> None:
        host, _, port = address.rpartition(":")
        super().__init__(host.strip("[]"), int(port), timeout=TIMEOUT, source_address=("", source) if source else None)
        self._context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def connect(self) -> None:
        super().connect()
        self.sock: socket.socket = self._context.wrap_socket(self.sock, server_hostname=NAME)


class Api:
    """The API server as one helper pod sees it; an answer that does not come is None, and the job goes on without it."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        """Take the API server's own addresses (`host:port`), or the cluster's service where none is given."""
        self._addresses = tuple(addresses)
        self._pod = os.environ.get("POD_NAME", "")
        self._connection: _Connection | None = None

    def tell(self, seen: dict[str, object]) -> bool | None:
        """Write what is seen; return whether the pod is being deleted, or None without an answer."""
        if not self._pod or not (ACCOUNT / "token").is_file():
            return None
        for connection in self._connections():
            try:
                answer = self._patch(connection, {"metadata": {"annotations": {TOLD: json.dumps(seen)}}})
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                continue
            self._connection = connection
            return answer
        self._connection = None
        return None

    def _connections(self) -> Sequence[_Connection]:
        """Return the open one, then fresh ones; to the API server's own addresses from each of the ports that may be free."""
        service = f"{os.environ.get('KUBERNETES_SERVICE_HOST', '')}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        start = int.from_bytes(os.urandom(1)) % len(PORTS)
        tried = [PORTS[(start + step) % len(PORTS)] for step in range(3)]
        fresh = [_Connection(address, port) for address in self._addresses for port in tried] or [_Connection(service, 0)]
        return [*([self._connection] if self._connection is not None else []), *fresh]

    def _patch(self, connection: _Connection, body: dict[str, object]) -> bool:
        namespace = (ACCOUNT / "namespace").read_text().strip()
        headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}", "Content-Type": "application/merge-patch+json"}
        connection.request("PATCH", f"/api/v1/namespaces/{namespace}/pods/{self._pod}", json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        if response.status == 404:
            return True  # deleted at once, without waiting for us
        if response.status != 200:
            raise OSError(f"{response.status} {text[:200]!r}")
        return "deletionTimestamp" in json.loads(text)["metadata"]
