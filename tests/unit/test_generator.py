"""The order generator's connections to gateways, over real sockets."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable

import pytest

pytest.importorskip("prometheus_client")

from frangible.lab.services import generator
from frangible.lab.services.generator import Gateways

WITHIN = 10.0


class Gateway:
    """Takes lines and answers each with its own name; closed, it refuses."""

    def __init__(self) -> None:
        self.taken = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.closing(writer):
            while line := await reader.readline():
                self.taken += 1
                writer.write(line)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        while self._writers:
            self._writers.pop().transport.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(names: tuple[str, ...]) -> AsyncIterator[tuple[Gateways, "asyncio.Queue[bytes]"]]:
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    gateways = Gateways(names, answers)
    task = asyncio.create_task(gateways.keep())
    try:
        yield gateways, answers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Gateway, Gateway, int, int]]:
    first, second = Gateway(), Gateway()
    try:
        yield first, second, await first.start(), await second.start()
    finally:
        await first.stop()
        await second.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not true():
            await asyncio.sleep(0.01)


def open_connections() -> float:
    return float(next(iter(generator.CONNECTED.collect())).samples[0].value)


def test_orders_go_through_every_gateway_in_turn_and_answers_come_back():
    async def scenario() -> None:
        async with serving() as (first, second, *ports), connected(tuple(f"127.0.0.1:{port}" for port in ports)) as (gateways, answers):
            await until(lambda: open_connections() == 2)
            for number in range(6):
                gateways.send(json.dumps(number).encode() + b"\n", avoid=None)
            got = sorted([int(await asyncio.wait_for(answers.get(), WITHIN)) for _ in range(6)])
            assert (got, first.taken, second.taken) == ([0, 1, 2, 3, 4, 5], 3, 3)

    asyncio.run(scenario())


def test_an_order_that_is_sent_again_avoids_the_gateway_that_it_went_through():
    async def scenario() -> None:
        async with serving() as (_, _, *ports), connected(tuple(f"127.0.0.1:{port}" for port in ports)) as (gateways, _):
            await until(lambda: open_connections() == 2)
            for number in range(10):
                first = gateways.send(b"0\n", avoid=None)
                assert gateways.send(b"0\n", avoid=first) != first, number

    asyncio.run(scenario())


def test_a_gateway_that_comes_back_is_used_again_and_without_any_nothing_is_sent():
    async def scenario() -> None:
        async with serving() as (gateway, _, port, _), connected((f"127.0.0.1:{port}",)) as (gateways, _):
            await until(lambda: open_connections() == 1)
            await gateway.stop()
            await until(lambda: open_connections() == 0)
            assert gateways.send(b"0\n", avoid=None) is None
            await gateway.start(port)
            await until(lambda: gateways.send(b"0\n", avoid=None) == ("127.0.0.1", port))

    asyncio.run(scenario())


def test_a_name_with_several_addresses_means_a_gateway_at_each_and_who_leaves_the_name_is_left(monkeypatch: pytest.MonkeyPatch):
    async def scenario() -> None:
        ports: set[int] = set()

        async def resolve(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            assert (host, port) == ("gateways", 7000)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in ports]

        monkeypatch.setattr(generator, "LOOK_AGAIN", 0.01)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=True)
        async with serving() as (first, second, *served), connected(("gateways:7000",)) as (gateways, _):
            ports.update(served)
            await until(lambda: open_connections() == 2)
            ports.pop()
            assert len(gateways.known) == 2, "one that still answers is kept, whatever its name says"
            for each in (first, second):
                await each.stop()
            await until(lambda: gateways.known == {("127.0.0.1", port) for port in ports})

    asyncio.run(scenario())
