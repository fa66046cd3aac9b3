"""Risk check: one of a NATS queue group; rejects orders above the limit, puts the others into the order stream.

Its model is work for the CPU, sized when it starts. With a CPU limit it keeps to a share of each period, as a container's quota has it (cpu.max of
cgroups(7), which needs rights that the lab does without).
"""

import asyncio
import hashlib
import json
import time

import nats.errors
from prometheus_client import Counter, Gauge

from frangible.lab.services import bus
from frangible.lab.services.serving import end_when_lost, run, serve_metrics
from frangible.lab.services.settings import BOUND, Settings

CHECKED = Counter("risk_checks", "Orders checked.", ["result"])
THROTTLED = Counter("risk_throttled_seconds", "Time in which the check had used up its share of CPU.")
LIMIT = Gauge("risk_cpu_limit", "CPUs that the check keeps to; 0 without limit.")
PERIOD = 0.1
"""Seconds, the kernel's usual quota period."""
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


class Quota:
    """A share of one CPU in each period; what is used above it is paid back in the next ones."""

    def __init__(self, cpus: float | None) -> None:
        """Begin with a whole period's share."""
        self._cpus = cpus
        self._renewed_at, self._used_at = time.monotonic(), time.process_time()
        self._left = PERIOD * (cpus or 0.0)

    async def wait(self) -> None:
        """Return once something of the share is left."""
        if self._cpus is None:
            return
        while True:
            now, used = time.monotonic(), time.process_time()
            self._left = min(PERIOD * self._cpus, self._left + (now - self._renewed_at) * self._cpus - (used - self._used_at))
            self._renewed_at, self._used_at = now, used
            if self._left > 0:
                return
            pause = max(0.005, -self._left / self._cpus)
            THROTTLED.inc(pause)
            await asyncio.sleep(pause)


async def risk(settings: Settings) -> None:
    """Check orders for ever."""
    accepted, rejected, stale = (CHECKED.labels(result) for result in ("accepted", "rejected", "stale"))
    client = await bus.connect(settings.nats, f"risk@{settings.node}", reconnects=settings.reconnects)
    await bus.ensure_stream(client)
    known: dict[str, None] = {}
    rounds, quota = rounds_for(settings.risk_work), Quota(settings.cpu_limit)
    LIMIT.set(settings.cpu_limit or 0)

    async def check(message: bus.Message) -> None:
        order = json.loads(message.data)
        if order["at"] < time.time() - STALE_AFTER:
            stale.inc()
            return
        if rounds and order["id"] not in known:  # what is sent again has been looked at
            await quota.wait()
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
    await serve_metrics(settings.port, lambda: client.is_connected)
    await asyncio.gather(end_when_lost(lambda: client.is_connected, settings), asyncio.Event().wait())


if __name__ == "__main__":
    run(risk)
