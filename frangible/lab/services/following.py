"""Follows objects of the Kubernetes API from within a pod, with its own service account. Standard library only: a sidecar that waits should weigh little."""

import json
import logging
import os
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

__all__ = ["follow", "own_namespace", "replace"]

type Objects = dict[str, dict[str, Any]]
"""Objects as the API gives them, by uid."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's own credentials."""
WATCH = 60.0
"""Seconds after which the objects are listed anew."""
log = logging.getLogger(__name__)


def own_namespace() -> str:
    """Return the namespace that this pod is in."""
    return (ACCOUNT / "namespace").read_text()


def _lines(path: str, **parameters: str) -> Iterator[bytes]:
    address = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    request = urllib.request.Request(f"https://{address}{path}?{urlencode(parameters)}", headers=headers)
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=WATCH + 10, context=context) as response:  # noqa: S310
        yield from response


def _versions(path: str, selector: dict[str, str]) -> Iterator[Objects]:
    listed = json.loads(b"".join(_lines(path, **selector)))
    objects: Objects = {item["metadata"]["uid"]: item for item in listed["items"]}
    yield objects
    version = listed["metadata"]["resourceVersion"]
    for line in _lines(path, **selector, watch="1", resourceVersion=version, timeoutSeconds=f"{WATCH:.0f}"):
        event = json.loads(line)
        uid = event["object"].get("metadata", {}).get("uid")
        match event["type"]:
            case "ADDED" | "MODIFIED":
                objects[uid] = event["object"]
            case "DELETED":
                objects.pop(uid, None)
            case _:
                return  # the server has forgotten where we were
        yield objects


def follow(path: str, **selector: str) -> Iterator[Objects]:
    """Yield the objects of a collection such as `/api/v1/pods`, and again after each change, for ever; while nobody answers, nothing is yielded."""
    while True:
        try:
            yield from _versions(path, selector)
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s cannot be followed, trying again: %s", path, error)
            time.sleep(0.5)


def replace(file: Path, text: str) -> None:
    """Let the file hold this text; who reads it sees the old or the new one."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)
