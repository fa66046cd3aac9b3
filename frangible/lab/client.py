"""Asking the rack."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from frangible.errors import LabError
from frangible.lab.layout import Folder

__all__ = ["ask"]


def ask(folder: Path, request: dict[str, Any], *, timeout: float = 10.0) -> dict[str, Any]:
    """Send one request to the rack of the lab in a folder and return its answer; raise `LabError` when it refuses or does not answer."""
    try:
        # The folder is opened and the socket named inside it, because a socket's own path is limited to 107 bytes.
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(f"/proc/self/fd/{descriptor}/{Folder(folder).socket.name}")
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline()
        finally:
            os.close(descriptor)
        answer: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as error:
        raise LabError(f"the rack of the lab in {folder} does not answer {request['do']!r}: {error}; see `frangible lab status`") from error
    if not answer["ok"]:
        raise LabError(f"the rack of the lab in {folder} could not do {request['do']!r}: {answer['error']}")
    return answer
