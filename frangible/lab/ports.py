"""Free ports on loopback that stay free while their owner is off."""

import random
import socket
from collections.abc import Sequence
from pathlib import Path

from frangible.errors import LabError

__all__ = ["choose_ports"]

LOWEST = 10_000


def _first_ephemeral() -> int:
    """Where the kernel begins to hand out ports to outgoing connections (ip(7))."""
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_ports(names: Sequence[str]) -> dict[str, int]:
    """Choose a free port for each name.

    They lie below the ephemeral range, at random: a port of a node that is off must not become some client's local port in the meantime.
    """
    top = _first_ephemeral()
    bottom = LOWEST if top > LOWEST + 10 * len(names) else 1024
    candidates = random.sample(range(bottom, top), k=min(top - bottom, 20 * len(names)))
    free = [port for port, _ in zip((port for port in candidates if _free(port)), names, strict=False)]
    if len(free) < len(names):
        raise LabError(f"the lab needs {len(names)} free ports on 127.0.0.1 between {bottom} and {top}, found {len(free)}; end what uses them")
    return dict(zip(names, free, strict=True))
