"""What every service shares: start, metrics and health over HTTP from its own event loop, end."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, REGISTRY, Gauge, generate_latest

from frangible.lab.services.settings import Settings

__all__ = ["end_when_lost", "run", "serve_metrics"]

TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _response(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def serve_metrics(settings: Settings, healthy: Callable[[], bool]) -> asyncio.Server:
    """Serve `/metrics` and `/healthz`. The loop renders a scrape in one go, so all its numbers are of one moment."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            if request.startswith(b"GET /metrics"):
                writer.write(_response("200 OK", generate_latest()))
            elif request.startswith(b"GET /healthz"):
                writer.write(_response("200 OK", b"ok\n") if healthy() else _response("503 Service Unavailable", b"not ready\n"))
            else:
                writer.write(_response("404 Not Found", b"ask for /metrics or /healthz\n"))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # whoever asked went away
        finally:
            writer.close()

    return await asyncio.start_server(answer, settings.listen, settings.port)


async def end_when_lost(connected: Callable[[], bool], settings: Settings) -> None:
    """Be the watchdog of a service that does not reconnect: end it once it has been without connection for a while, so that it is started anew."""
    if settings.reconnects:
        return
    loop = asyncio.get_running_loop()
    alive_at = loop.time()
    while True:
        if connected():
            alive_at = loop.time()
        elif loop.time() - alive_at > settings.give_up_after:
            raise SystemExit(f"no connection for {settings.give_up_after:g} s, and this service does not reconnect")
        await asyncio.sleep(1)


def run(service: Callable[[Settings], Awaitable[None]]) -> None:
    """Run a service with the settings file that the command line names, until killed."""
    settings = Settings.read(sys.argv[1])
    # The first process of a container is ended by no signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR):  # a scrape a second of each service: what nobody reads costs CPU
        REGISTRY.unregister(collector)
    Gauge("service_info", "Which software this is.", ["version"]).labels(version("frangible")).set(1)

    async def serve() -> None:
        await service(settings)

    asyncio.run(serve())
