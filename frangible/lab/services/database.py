"""The order database: its schema and the statements on it."""

import asyncio
import logging

import asyncpg

__all__ = ["AUDIT", "EXECUTE", "EXECUTE_EVERY_TIME", "FORGET", "Connection", "Pool", "connect", "connect_once"]

type Pool = asyncpg.Pool
type Connection = asyncpg.Connection

log = logging.getLogger(__name__)

SCHEMA = """
create table if not exists orders (id text primary key, symbol text not null, quantity integer not null, at timestamptz not null default now());
create table if not exists executions (order_id text not null, instance text not null, at timestamptz not null default now());
create index if not exists executions_order on executions (order_id);
create index if not exists executions_at on executions (at);
create index if not exists orders_at on orders (at);
"""
# `executions` has no unique constraint: an order that is executed twice shows as two rows, and the auditor sees it.

EXECUTE = """
with fresh as (
  insert into orders (id, symbol, quantity)
  select * from unnest($1::text[], $2::text[], $3::integer[]) on conflict (id) do nothing returning id
)
insert into executions (order_id, instance) select id, $4 from fresh
"""
"""Execute each order once, however often it comes."""

EXECUTE_EVERY_TIME = """
with known as (
  insert into orders (id, symbol, quantity)
  select * from unnest($1::text[], $2::text[], $3::integer[]) on conflict (id) do nothing
)
insert into executions (order_id, instance) select unnest($1::text[]), $4
"""
"""Execute each message: what comes twice is executed twice."""

AUDIT = "select order_id, count(*) as times from executions where order_id = any($1::text[]) group by order_id"
FORGET = "with old as (delete from orders where at < now() - interval '1 hour') delete from executions where at < now() - interval '1 hour'"

SCHEMA_LOCK = 7_311_042
"""Advisory lock: `create table if not exists` fails when two do it at once."""

STARTING = (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError, asyncpg.InterfaceError, TimeoutError)


async def connect(url: str) -> Pool:
    """Wait until the database answers, make sure of the schema, return a pool that reconnects."""
    while True:
        try:
            pool = await asyncpg.create_pool(url, min_size=1, max_size=2, timeout=2, command_timeout=10)
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1::bigint)", SCHEMA_LOCK)
                await connection.execute(SCHEMA)
        except STARTING as error:
            log.info("PostgreSQL does not answer yet: %s", error)
            await asyncio.sleep(0.1)
        else:
            return pool


async def connect_once(url: str) -> Connection:
    """Wait until the database answers and return one connection, which ends when the database does."""
    pool = await connect(url)
    await pool.close()
    return await asyncpg.connect(url, timeout=2, command_timeout=10)
