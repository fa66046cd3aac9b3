"""What one service of the estate is told when it starts: one JSON file, and the environment where one file serves several of them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["BOUND", "NODE_VARIABLE", "Settings"]

NODE_VARIABLE = "FRANGIBLE_NODE"
"""Environment variable that names the node where the file does not: one file then serves the instances on all nodes."""

BOUND = 1.0
"""Seconds from the intended send time within which an order must be acknowledged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of any of the services; each uses those that concern it."""

    environment: str
    node: str
    port: int
    """Metrics and health."""
    listen: str = "127.0.0.1"
    """Address that everything listens on."""
    nats: str = ""
    postgres: str = ""
    orders_port: int = 0
    """Where a gateway takes orders."""
    gateways: tuple[str, ...] = ()
    """Where the generator sends orders, each `host:port`; a name that has several addresses means a gateway at each."""
    rate_file: str = ""
    acknowledged_file: str = ""
    bound: float = BOUND
    resend_after: float = 0.3
    """Seconds after which the generator sends an unacknowledged order again, through another gateway."""
    ack_wait: float = 1.0
    """Seconds after which JetStream gives an unconfirmed order to another execution."""
    max_quantity: int = 10_000
    """The risk check's limit."""
    idempotent: bool = True
    """Whether execution writes an order that it gets twice only once."""

    reconnects: bool = True
    """Whether it connects again when NATS or PostgreSQL went away."""
    give_up_after: float = 15.0
    """Seconds without connection after which the watchdog ends a service that does not reconnect; its supervisor starts it anew."""
    risk_work: float = 0.0
    """CPU seconds of the risk model for each order."""
    cpu_limit: float | None = None
    """CPUs that a risk check keeps its node within."""

    def write(self, file: Path) -> None:
        """Store for `read`; only the owner may read it, since it names passwords."""
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(asdict(self), stream)

    @classmethod
    def read(cls, file: str) -> "Settings":
        """Inverse of `write`."""
        data = json.loads(Path(file).read_text())
        data.setdefault("node", os.environ.get(NODE_VARIABLE))
        if data["node"] is None:
            raise SystemExit(f"{file}: expected `node` in it, or the node's name in {NODE_VARIABLE}; found neither")
        data["gateways"] = tuple(data.get("gateways", ()))
        return cls(**data)
