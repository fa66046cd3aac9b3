"""Risk check: one of a NATS queue group; rejects orders above the limit, puts the others into the order stream.

Its model is work for the CPU, sized when it starts. With a CPU limit it keeps its node within that, see `quota`.
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
SAMPLE = 20_000
STALE_AFTER = 0.7 * BOUND
"""Seconds after which an order can hardly be in time any more: working off a backlog of such would make all others late too."""
REMEMBERED = 10_000


def rounds_for(seconds: float) -> int:
    """Measure how many rounds of the model take so many CPU seconds on this machine, undisturbed."""
    if seconds <= 0:
        return 0
    spent = []
    for _ in range(5):
        before = time.thread_time()
        hashlib.pbkdf2_hmac("sha256", b"order", b"", SAMPLE)
        spent.append(time.thread_time() - before)
    return max(1, round(SAMPLE * seconds / min(spent)))


async def risk(settings: Settings) -> None:
    """Check orders for ever."""
    accepted, rejected, stale = (CHECKED.labels(result) for result in ("accepted", "rejected", "stale"))
    client = await bus.connect(settings.nats, f"risk@{settings.node}", reconnects=settings.reconnects)
    await bus.ensure_stream(client)
    known: dict[str, None] = {}
    rounds, quota = rounds_for(settings.risk_work), Quota(settings.cpu_limit, NodeUse().seconds)
    LIMIT.set(settings.cpu_limit or 0)

    async def check(message: bus.Message) -> None:
        order = json.loads(message.data)
        if order["at"] < time.time() - STALE_AFTER:
            stale.inc()
            return
        if rounds and order["id"] not in known:  # what is sent again has been looked at
            THROTTLED.inc(await quota.wait())
            hashlib.pbkdf2_hmac("sha256", message.data, b"", rounds)
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
