"""Tells Prometheus which pods of the estate to scrape, labelled as in the lab, through its file discovery: Debian's Prometheus knows no Kubernetes.

usage: python -m frangible.lab.services.scraping LABEL_SELECTOR FILE
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from frangible.lab.services.following import follow, replace
from frangible.lab.services.settings import NODE_VARIABLE

__all__ = ["targets"]

ENVIRONMENT_LABEL = "app.kubernetes.io/instance"
PORT = "metrics"
"""A container is scraped at its port whose name begins so: names are unique in a pod."""


def targets(pods: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the targets, in an order that does not depend on that of the pods."""
    found = [target for pod in pods for target in _of(pod)]
    return sorted(found, key=lambda target: str(target["targets"]))


def _of(pod: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    address, status = pod["status"].get("podIP"), pod["status"].get("phase")
    if not address or status in ("Succeeded", "Failed"):
        return
    for container in pod["spec"]["containers"]:
        name, said = container["name"], {variable["name"]: variable.get("value") for variable in container.get("env", ())}
        node = said.get(NODE_VARIABLE) or pod["spec"]["nodeName"]
        labels = {"environment": pod["metadata"]["labels"].get(ENVIRONMENT_LABEL, ""), "node": node, "service": name, "job": name}
        for port in container.get("ports", ()):
            if port.get("name", "").startswith(PORT):
                yield {"targets": [f"{address}:{port['containerPort']}"], "labels": labels}


def main(selector: str, file: Path) -> None:
    """Follow for ever."""
    before = None
    for pods in follow("/api/v1/pods", labelSelector=selector):
        now = targets(pods.values())
        if now != before:
            replace(file, json.dumps(now, indent=1))
            before = now


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
