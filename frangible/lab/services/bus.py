"""The message bus: connecting to NATS, the order stream, and the subjects that orders travel on."""

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

# nats-py imports aiohttp for websockets where it is installed; no service uses one, and it would add 0.3 s to each start.
sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]

from nats.aio.client import Client  # noqa: E402 - after the line above
from nats.aio.msg import Msg as Message  # noqa: E402 - after the line above
from nats.errors import NoServersError  # noqa: E402 - after the line above
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType  # noqa: E402 - after the line above
from nats.js.errors import BadRequestError  # noqa: E402 - after the line above

if TYPE_CHECKING:
    from nats.js import JetStreamContext

__all__ = ["ACCEPTED", "CONSUMER", "NEW", "STREAM", "Client", "Message", "connect", "consumer", "ensure_stream"]

NEW = "orders.new"
"""From gateways to risk checks."""
ACCEPTED = "orders.accepted"
"""From risk checks to executions, through JetStream."""
STREAM = "ORDERS"
CONSUMER = "execution"
"""The durable consumer that all executions of an environment share."""

log = logging.getLogger(__name__)


async def connect(url: str, name: str, *, reconnects: bool = True) -> Client:
    """Connect, and reconnect for ever: the bus may be powered off and on. Without `reconnects` the first loss is the end, as it is for a naive client."""

    async def lost() -> None:
        log.warning("%s: connection to NATS at %s lost%s", name, url, ", trying again" if reconnects else "")

    options: dict[str, Any] = {"connect_timeout": 2, "ping_interval": 5, "allow_reconnect": reconnects}
    if reconnects:
        options |= {"reconnect_time_wait": 0.2, "max_reconnect_attempts": -1}
    while True:
        client = Client()
        try:
            await client.connect(url, name=name, disconnected_cb=lost, **options)
        except (NoServersError, OSError, TimeoutError) as error:
            log.info("NATS does not answer yet: %s", error)
            await asyncio.sleep(0.2)
        else:
            return client


async def ensure_stream(client: Client) -> "JetStreamContext":
    """Return JetStream with the order stream in it; an order leaves the stream once it is executed, or after ten minutes."""
    stream = client.jetstream(timeout=5)
    try:
        await stream.add_stream(name=STREAM, subjects=[ACCEPTED], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE, max_age=600)
    except BadRequestError as error:
        # Two services may ask at the same moment; the stream that is there then is the same one.
        log.info("stream %s: %s", STREAM, error.description)
    return stream


def consumer(ack_wait: float) -> ConsumerConfig:
    """Return how executions share the stream: each order is confirmed by hand, or given to another after `ack_wait` seconds."""
    return ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, ack_wait=ack_wait, max_ack_pending=1000)
