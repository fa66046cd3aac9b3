"""Execution: takes accepted orders from JetStream, writes them to PostgreSQL, confirms them, answers the gateway that waits.

All executions of an environment pull from one durable consumer: one that is dead or frozen does not ask, so it is given nothing, and
what it held is given to another after `ack_wait`.
"""

import asyncio
import json
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

import asyncpg
import nats.errors
from prometheus_client import Counter

from frangible.lab.services import bus, database
from frangible.lab.services.serving import end_when_lost, run, serve_metrics
from frangible.lab.services.settings import Settings

if TYPE_CHECKING:
    from nats.js import JetStreamContext

EXECUTED = Counter("execution_orders", "Orders written and confirmed, repeated ones too.")
REDELIVERED = Counter("execution_redeliveries", "Orders that came again because nobody had confirmed them.")
FAILED = Counter("execution_failures", "Batches that could not be written.")
BATCH = 64
ASKED_FOR = 1.0
"""Seconds after which orders are asked for anew: what was asked of a NATS that has gone is never answered."""

log = logging.getLogger(__name__)


async def _write(store: database.Pool | database.Connection, orders: list[dict[str, str | int]], settings: Settings) -> None:
    statement = database.EXECUTE if settings.idempotent else database.EXECUTE_EVERY_TIME
    columns = ([order[name] for order in orders] for name in ("id", "symbol", "quantity"))
    await store.execute(statement, *columns, settings.node)


async def _confirm(client: bus.Client, messages: list[bus.Message], orders: list[dict[str, str | int]]) -> None:
    answers: dict[str, list[str]] = defaultdict(list)
    for message, order in zip(messages, orders, strict=True):
        if message.metadata.num_delivered > 1:
            REDELIVERED.inc()
        await message.ack()
        answers[str(order["answer"])].append(str(order["id"]))
    for subject, ids in answers.items():
        await client.publish(subject, json.dumps({"ids": ids, "status": "executed"}).encode())
    EXECUTED.inc(len(orders))


async def execution(settings: Settings) -> None:
    """Execute orders for ever."""
    client = await bus.connect(settings.nats, f"execution@{settings.node}", reconnects=settings.reconnects)
    stream = await bus.ensure_stream(client)
    store = await (database.connect if settings.reconnects else database.connect_once)(settings.postgres)
    config = bus.consumer(settings.ack_wait)
    subscription = await stream.pull_subscribe(bus.ACCEPTED, durable=bus.CONSUMER, stream=bus.STREAM, config=config)

    def connected() -> bool:
        return client.is_connected and not (isinstance(store, asyncpg.Connection) and store.is_closed())

    await serve_metrics(settings, connected)
    await asyncio.gather(_execute(client, subscription, store, settings), end_when_lost(connected, settings))


async def _execute(
    client: bus.Client, subscription: "JetStreamContext.PullSubscription", store: database.Pool | database.Connection, settings: Settings
) -> None:
    while True:
        try:
            messages = await subscription.fetch(BATCH, timeout=ASKED_FOR)
            orders = [json.loads(message.data) for message in messages]
            await _write(store, orders, settings)
            await _confirm(client, messages, orders)
        except TimeoutError:
            continue  # nothing to do
        except (nats.errors.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            FAILED.inc()
            log.warning("orders will come again after %.1f s: %s", settings.ack_wait, error)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    run(execution)
