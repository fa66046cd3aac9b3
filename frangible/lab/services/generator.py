"""Open-loop order generator: offers orders at a fixed rate whatever becomes of them, and counts where the user stands.

Each order's time is measured from when it was meant to be sent, so a stalled system cannot hide behind orders that were never sent.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import random
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from prometheus_client import Counter, Gauge, Histogram

from frangible.lab.services.serving import run, serve_metrics
from frangible.lab.services.settings import Settings

OFFERED = Counter("orders_offered", "Orders, counted at their intended send time.")
OUTCOMES = Counter("order_outcomes", "What became of offered orders, decided at the latest when the bound has run out.", ["outcome"])
IN_TIME, LATE, REJECTED = (OUTCOMES.labels(outcome) for outcome in ("in_time", "late", "rejected"))
SECONDS = Histogram(
    "order_acknowledgement_seconds",
    "From intended send time to acknowledgement, late ones too.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 15),
)
RESENT = Counter("orders_resent", "Times that an order was sent again.")
CONNECTED = Gauge("generator_gateways_connected", "Gateways that take orders now.")
RATE = Gauge("generator_rate", "Orders offered a second, as configured.")

SYMBOLS = ("AAPL", "BARC", "DBK", "GS", "HSBA", "JPM", "MSFT", "SAP")
FORGET_AFTER = 30.0
"""Seconds after which an acknowledgement of a late order is no longer waited for."""
LOG_LIMIT = 8_000_000
LOOK_AGAIN = 1.0
"""Seconds between two looks at which gateways there are."""
ANSWER_WITHIN = 1.0
"""Seconds that a name or a gateway has to answer: a machine that is off refuses nothing."""
SILENCE = 1.0
"""Seconds for which what was sent may stay unconfirmed by the other machine's kernel."""

type Address = tuple[str, int]
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pending:
    """An order that was offered and may still be acknowledged."""

    line: bytes
    intended: float
    """On the event loop's clock."""
    decided: bool = False
    through: Address | None = None
    """The gateway that it went through last."""


class Gateways:
    """A connection to each gateway, opened anew for ever; which gateways there are is asked of the names again and again."""

    def __init__(self, names: tuple[str, ...], acknowledge: "asyncio.Queue[bytes]") -> None:
        """Connect in `keep`; answers go to `acknowledge`."""
        self._names = names
        self._acknowledge = acknowledge
        self._kept: dict[Address, asyncio.Task[None]] = {}
        self._open: dict[Address, asyncio.StreamWriter] = {}
        self._turn = itertools.count()
        CONNECTED.set_function(lambda: len(self._open))

    @property
    def known(self) -> set[Address]:
        """Gateways that there are, connected or not."""
        return set(self._kept)

    async def keep(self) -> None:
        """Stay connected to every gateway; one that no name stands for any more is left once its connection ends."""
        kept = self._kept
        async with asyncio.TaskGroup() as tasks:
            while True:
                there = await self._addresses()
                for address in there - kept.keys():
                    kept[address] = tasks.create_task(self._keep_one(address))
                for address in kept.keys() - there - self._open.keys():
                    kept.pop(address).cancel()
                await asyncio.sleep(LOOK_AGAIN)

    async def _addresses(self) -> set[Address]:
        loop = asyncio.get_running_loop()
        found: set[Address] = set()
        for name in self._names:
            host, _, port = name.rpartition(":")
            try:
                entries = await asyncio.wait_for(loop.getaddrinfo(host, int(port), family=socket.AF_INET, type=socket.SOCK_STREAM), ANSWER_WITHIN)
            except (OSError, TimeoutError) as error:
                log.info("%s: no gateway is known by this name: %s", name, error)
                continue
            found |= {(str(entry[4][0]), int(entry[4][1])) for entry in entries}
        return found

    async def _keep_one(self, address: Address) -> None:
        while True:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(*address), ANSWER_WITHIN)
                with contextlib.closing(writer):
                    _notice_silence(writer)
                    self._open[address] = writer
                    while line := await reader.readline():
                        self._acknowledge.put_nowait(line)
            except (OSError, TimeoutError):
                pass  # the gateway is off; it may come back
            finally:
                self._open.pop(address, None)
            await asyncio.sleep(0.2)

    def send(self, line: bytes, avoid: Address | None) -> Address | None:
        """Send through the next connected gateway, another than `avoid` where there is one; return it, or None when there is none."""
        candidates = [address for address in self._open if address != avoid] or list(self._open)
        if not candidates:
            return None
        address = candidates[next(self._turn) % len(candidates)]
        self._open[address].write(line)
        return address


def _notice_silence(writer: asyncio.StreamWriter) -> None:
    """Let the kernel end the connection once the other machine confirms nothing any more: one that has lost its power says no goodbye (tcp(7))."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * SILENCE))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        connection.setsockopt(socket.IPPROTO_TCP, option, 1)


@dataclass
class Generator:
    """Offers orders and decides their outcomes."""

    settings: Settings
    gateways: Gateways
    rate: float = 0.0
    _pending: dict[str, Pending] = field(default_factory=dict)
    _name: str = field(default_factory=lambda: uuid4().hex[:12])
    _number: "itertools.count[int]" = field(default_factory=itertools.count)
    _choice: random.Random = field(default_factory=random.Random)

    def offer(self, intended: float) -> None:
        """Offer one order that was meant to be sent at `intended`."""
        loop = asyncio.get_running_loop()
        order = f"{self._name}-{next(self._number)}"
        body = {"id": order, "symbol": self._choice.choice(SYMBOLS), "quantity": self._choice.randint(1, 1000), "at": time.time()}
        pending = self._pending[order] = Pending(json.dumps(body).encode() + b"\n", intended)
        OFFERED.inc()
        self._send(pending)
        loop.call_at(intended + self.settings.resend_after, self._resend, order)
        loop.call_at(intended + self.settings.bound, self._expire, order)
        loop.call_at(intended + FORGET_AFTER, self._pending.pop, order, None)

    def _send(self, pending: Pending) -> None:
        pending.through = self.gateways.send(pending.line, pending.through)

    def _resend(self, order: str) -> None:
        pending = self._pending.get(order)
        if pending is None or pending.decided:
            return
        RESENT.inc()
        self._send(pending)
        loop = asyncio.get_running_loop()
        loop.call_later(self.settings.resend_after, self._resend, order)

    def _expire(self, order: str) -> None:
        pending = self._pending.get(order)
        if pending is not None and not pending.decided:
            pending.decided = True
            LATE.inc()

    def acknowledged(self, line: bytes) -> str | None:
        """Take an answer; return the line for the acknowledgement log when it is an order's first acknowledgement."""
        answer = json.loads(line)
        pending = self._pending.pop(answer["id"], None)
        if pending is None:
            return None
        seconds = asyncio.get_running_loop().time() - pending.intended
        executed = answer["status"] == "executed"
        if not pending.decided:
            in_time = seconds <= self.settings.bound
            (LATE if not in_time else IN_TIME if executed else REJECTED).inc()
        if not executed:
            return None
        SECONDS.observe(seconds)
        return f"{time.time():.3f}\t{answer['id']}\n"

    async def offer_for_ever(self) -> None:
        """Offer at the intended times of the present rate. When the loop was held up, the orders that were due are offered at once, with their own times."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            rate = self.rate  # it may change while this loop sleeps
            if rate <= 0:
                await asyncio.sleep(0.1)
                due = loop.time()
                continue
            await asyncio.sleep(due - loop.time())
            while due <= loop.time():
                self.offer(due)
                due += 1 / rate


async def _follow_rate(generator: Generator, file: Path) -> None:
    """Take up what the rack writes into the rate file."""
    while True:
        try:
            generator.rate = float(file.read_text())
            RATE.set(generator.rate)
        except (OSError, ValueError) as error:
            log.warning("%s: expected a number of orders a second: %s", file, error)
        await asyncio.sleep(0.2)


async def _record(generator: Generator, answers: "asyncio.Queue[bytes]", file: Path) -> None:
    """Append acknowledgements to the log before anybody can rely on them; start a new one when it has grown long."""
    stream = file.open("a", buffering=1)
    while True:
        entry = generator.acknowledged(await answers.get())
        if entry is not None:
            stream.write(entry)
            if stream.tell() > LOG_LIMIT:
                stream.close()
                file.rename(file.with_suffix(".old"))
                stream = file.open("a", buffering=1)


async def generate(settings: Settings) -> None:
    """Offer orders for ever."""
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    gateways = Gateways(settings.gateways, answers)
    generator = Generator(settings, gateways)
    await serve_metrics(settings, lambda: True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateways.keep())
        tasks.create_task(_follow_rate(generator, Path(settings.rate_file)))
        tasks.create_task(_record(generator, answers, Path(settings.acknowledged_file)))
        tasks.create_task(generator.offer_for_ever())


if __name__ == "__main__":
    run(generate)
