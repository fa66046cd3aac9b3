"""Risk check: one of a NATS queue group; rejects orders above the limit, puts the others into the order stream.

Its model is work for the CPU. With a CPU limit it keeps its node within that, see `quota`.
"""

import asyncio
import hashlib
import json
import time

import nats.errors
from prometheus_client import Counter, Gauge

from frangible.lab.services import bus
from frangible.lab.services.quota import NodeUse, Quota
from frangible.lab.services.serving import end_when_lost, run, serve_metrics
from frangible.lab.services.settings import BOUND, Settings

CHECKED = Counter("risk_checks", "Orders checked.", ["result"])
THROTTLED = Counter("risk_throttled_seconds", "Time in which the check waited, since its node had used up its CPU limit.")
LIMIT = Gauge("risk_cpu_limit", "CPUs that the check keeps its node within; 0 without limit.")
ROUNDS = 100
"""Of the model at a time: some 50 microseconds."""
STALE_AFTER = 0.7 * BOUND
"""Seconds after which an order can hardly be in time any more: working off a backlog of such would make all others late too."""
REMEMBERED = 10_000


def work(order: bytes, seconds: float) -> None:
    """Use so many CPU seconds: a limit counts those, and how much is done in them depends on what else the machine does."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.pbkdf2_hmac("sha256", order, b"", ROUNDS)


async def risk(settings: Settings) -> None:
    """Check orders for ever."""
    accepted, rejected, stale = (CHECKED.labels(result) for result in ("accepted", "rejected", "stale"))
    client = await bus.connect(settings.nats, f"risk@{settings.node}", reconnects=settings.reconnects)
    await bus.ensure_stream(client)
    known: dict[str, None] = {}
    quota = Quota(settings.cpu_limit, NodeUse().seconds)
    LIMIT.set(settings.cpu_limit or 0)

    async def check(message: bus.Message) -> None:
        order = json.loads(message.data)
        if order["at"] < time.time() - STALE_AFTER:
            stale.inc()
            return
        if settings.risk_work and order["id"] not in known:  # what is sent again has been looked at
            THROTTLED.inc(await quota.wait())
            work(message.data, settings.risk_work)
            known[order["id"]] = None
            if len(known) > REMEMBERED:
                del known[next(iter(known))]
            await asyncio.sleep(0)  # whoever asks for metrics or health has his turn under any load
        try:
            if order["quantity"] > settings.max_quantity:
                rejected.inc()
                await client.publish(message.reply, json.dumps({"ids": [order["id"]], "status": "rejected"}).encode())
                return
            accepted.inc()
            # The gateway's subject travels with the order, so that any execution can answer.
            await client.publish(bus.ACCEPTED, json.dumps({**order, "answer": message.reply}).encode())
        except nats.errors.Error:
            return  # the bus went away with the order; its sender sends it again

    await client.subscribe(bus.NEW, queue="risk", cb=check)
    await serve_metrics(settings, lambda: client.is_connected)
    await asyncio.gather(end_when_lost(lambda: client.is_connected, settings), asyncio.Event().wait())


if __name__ == "__main__":
    run(risk)
