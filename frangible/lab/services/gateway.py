"""Order gateway: takes orders as JSON lines over TCP, hands them to the risk check, brings the answer back to whoever sent the order."""

import asyncio
import json
from uuid import uuid4

import nats.errors
from prometheus_client import Counter, Gauge

from frangible.lab.services import bus
from frangible.lab.services.serving import end_when_lost, run, serve_metrics
from frangible.lab.services.settings import Settings

RECEIVED = Counter("gateway_orders", "Orders received, repeated ones too.")
ANSWERED = Counter("gateway_answers", "Answers brought back to senders.", ["status"])
UNCHECKED = Counter("gateway_orders_unchecked", "Orders for which no risk check was there.")
IN_FLIGHT = Gauge("gateway_orders_in_flight", "Orders received and not yet answered.")
FORGET_AFTER = 30.0


class Gateway:
    """Orders in flight, by id, and the connections that wait for their answers."""

    def __init__(self, client: bus.Client) -> None:
        """Answers come back on a subject of this instance alone."""
        self.client = client
        self.answers = f"gateway.{uuid4().hex}"
        self._waiting: dict[str, asyncio.StreamWriter] = {}
        IN_FLIGHT.set_function(lambda: len(self._waiting))

    async def start(self) -> None:
        """Listen for answers."""

        async def answer(message: bus.Message) -> None:
            if not message.data:  # NATS itself: nobody has subscribed to new orders
                UNCHECKED.inc()
                return
            decided = json.loads(message.data)
            for order in decided["ids"]:
                self._answer(order, decided["status"])

        await self.client.subscribe(self.answers, cb=answer)

    def _answer(self, order: str, status: str) -> None:
        writer = self._waiting.pop(order, None)
        if writer is not None and not writer.is_closing():
            ANSWERED.labels(status).inc()
            writer.write(json.dumps({"id": order, "status": status}).encode() + b"\n")

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its end."""
        loop = asyncio.get_running_loop()
        try:
            while line := await reader.readline():
                order = json.loads(line)
                RECEIVED.inc()
                self._waiting[order["id"]] = writer
                loop.call_later(FORGET_AFTER, self._waiting.pop, order["id"], None)
                await self.client.publish(bus.NEW, line, reply=self.answers)
        except (ConnectionError, nats.errors.Error):
            pass  # the sender went away, and nobody waits for its answers; or the bus did, and the sender may try another gateway
        finally:
            writer.close()


async def gateway(settings: Settings) -> None:
    """Serve orders for ever."""
    client = await bus.connect(settings.nats, f"gateway@{settings.node}", reconnects=settings.reconnects)
    instance = Gateway(client)
    await instance.start()
    await serve_metrics(settings, lambda: client.is_connected)
    server = await asyncio.start_server(instance.take, settings.listen, settings.orders_port)
    await asyncio.gather(server.serve_forever(), end_when_lost(lambda: client.is_connected, settings))


if __name__ == "__main__":
    run(gateway)
