"""Risk check: one of a NATS queue group; rejects orders above the limit, puts the others into the order stream."""

import asyncio
import json

from prometheus_client import Counter

from frangible.lab.services import bus
from frangible.lab.services.serving import run, serve_metrics
from frangible.lab.services.settings import Settings

CHECKED = Counter("risk_checks", "Orders checked.", ["result"])


async def risk(settings: Settings) -> None:
    """Check orders for ever."""
    accepted, rejected = CHECKED.labels("accepted"), CHECKED.labels("rejected")
    client = await bus.connect(settings.nats, f"risk@{settings.node}")
    await bus.ensure_stream(client)

    async def check(message: bus.Message) -> None:
        order = json.loads(message.data)
        if order["quantity"] > settings.max_quantity:
            rejected.inc()
            await client.publish(message.reply, json.dumps({"ids": [order["id"]], "status": "rejected"}).encode())
            return
        accepted.inc()
        # The gateway's subject travels with the order, so that any execution can answer.
        await client.publish(bus.ACCEPTED, json.dumps({**order, "answer": message.reply}).encode())

    await client.subscribe(bus.NEW, queue="risk", cb=check)
    await serve_metrics(settings.port, lambda: client.is_connected)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(risk)
