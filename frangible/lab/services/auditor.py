"""Auditor: outside all targets, compares what was acknowledged to the generator with the rows in PostgreSQL, order by order.

It also watches the middleware: a counter dies with its process, the rows and the stream do not.
"""

import asyncio
import logging
import os
import time
from collections import deque
from pathlib import Path
from typing import TextIO

import asyncpg
import nats.errors
from prometheus_client import Counter, Gauge

from frangible.lab.services import bus, database
from frangible.lab.services.serving import run, serve_metrics
from frangible.lab.services.settings import Settings

AUDITED = Counter("orders_audited", "Acknowledged orders compared with the database, each once.", ["result"])
EXACT, LOST, DUPLICATED = (AUDITED.labels(result) for result in ("exact", "lost", "duplicated"))
WAITING = Gauge("auditor_orders_waiting", "Acknowledged orders that were not compared yet.")
NATS_UP = Gauge("nats_reachable", "Whether the auditor is connected to NATS.")
POSTGRES_UP = Gauge("postgres_reachable", "Whether PostgreSQL answered the auditor's last question.")
PENDING = Gauge("jetstream_consumer_pending", "Orders in the stream that no execution has been given yet.")
UNCONFIRMED = Gauge("jetstream_consumer_unconfirmed", "Orders given to an execution and not confirmed yet.")

AUDIT_AFTER = 3.0
"""Seconds between acknowledgement and comparison."""
BATCH = 2000
FORGET_EVERY = 60.0
log = logging.getLogger(__name__)


class Log:
    """The generator's acknowledgement log, followed across its renewal."""

    def __init__(self, file: Path) -> None:
        """Start at the beginning of the present log."""
        self._file = file
        self._stream: TextIO | None = None
        self._rest = ""

    def entries(self) -> list[tuple[float, str]]:
        """Return what was appended since the last call: when, and which order."""
        if self._stream is None:
            if not self._file.exists():
                return []
            self._stream = self._file.open()
        *lines, self._rest = (self._rest + self._stream.read()).split("\n")
        if not lines and self._renewed():
            self._stream.close()
            self._stream = None
        pairs = (line.split("\t") for line in lines)
        return [(float(at), order) for at, order in pairs]

    def _renewed(self) -> bool:
        return self._stream is not None and self._file.exists() and os.fstat(self._stream.fileno()).st_ino != self._file.stat().st_ino


async def _audit(pool: database.Pool, orders: list[str]) -> None:
    rows = await pool.fetch(database.AUDIT, orders)
    times = {row["order_id"]: row["times"] for row in rows}
    for order in orders:
        match times.get(order, 0):
            case 0:
                LOST.inc()
                log.warning("order %s was acknowledged and is not in the database", order)
            case 1:
                EXACT.inc()
            case _:
                DUPLICATED.inc()


async def _reconcile(pool: database.Pool, file: Path) -> None:
    acknowledged, waiting = Log(file), deque[tuple[float, str]]()
    WAITING.set_function(lambda: len(waiting))
    forget_at = time.monotonic() + FORGET_EVERY
    while True:
        waiting.extend(acknowledged.entries())
        ripe = [order for at, order in list(waiting)[:BATCH] if at < time.time() - AUDIT_AFTER]
        try:
            await _audit(pool, ripe)
            POSTGRES_UP.set(1)
            for _ in ripe:
                waiting.popleft()
            if time.monotonic() > forget_at:
                await pool.execute(database.FORGET)
                forget_at = time.monotonic() + FORGET_EVERY
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            POSTGRES_UP.set(0)
            log.warning("PostgreSQL does not answer, %d orders wait: %s", len(waiting), error)
        await asyncio.sleep(0.5)


async def _watch_stream(client: bus.Client) -> None:
    stream = await bus.ensure_stream(client)
    while True:
        NATS_UP.set(client.is_connected)
        try:
            consumer = await stream.consumer_info(bus.STREAM, bus.CONSUMER)
            PENDING.set(consumer.num_pending or 0)
            UNCONFIRMED.set(consumer.num_ack_pending or 0)
        except (nats.errors.Error, TimeoutError) as error:
            log.info("JetStream does not answer: %s", error)
        await asyncio.sleep(1)


async def audit(settings: Settings) -> None:
    """Compare for ever."""
    ready = asyncio.Event()
    await serve_metrics(settings, ready.is_set)
    client = await bus.connect(settings.nats, "auditor")
    pool = await database.connect(settings.postgres)
    ready.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_watch_stream(client))
        tasks.create_task(_reconcile(pool, Path(settings.acknowledged_file)))


if __name__ == "__main__":
    run(audit)
