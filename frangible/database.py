"""One database by URL: durable transactions, the schema at its head, and errors that say which file and what to do.

SQLite runs with a truncated rollback journal and `synchronous=FULL`: what was committed survives a power cut, several processes may write, and a
database on a full or read-only disk can still be read, which WAL cannot promise because its readers need to write the `-shm` file
(https://sqlite.org/wal.html#read_only_databases). PostgreSQL runs the same statements.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import URL, Connection, Engine, MetaData, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from frangible.errors import FrangibleError

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["Database", "Schema", "insert_into", "run_migrations"]

BUSY_SECONDS = 5
"""How long a writer waits for another process before it gives up."""
_MIGRATING = threading.Lock()
"""Alembic keeps the migration in progress in module globals: one at a time in a process."""
_COMPILED: dict[Any, Any] = {}
"""SQL by statement, for every SQLite database of this process: to compile one takes longer than to execute it. The statements are those of our code."""
POSTGRESQL_OPTIONS = f"-c lock_timeout={BUSY_SECONDS}s -c timezone=UTC"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database is for, and where its migrations are."""

    what: str
    """What it holds, for messages: `ledger` or `journal`."""
    variable: str
    """The environment variable that names another one."""
    error: type[FrangibleError]
    """What every failure becomes."""
    migrations: Path
    """Folder inside the package with alembic's `versions/` and an `env.py` that calls `run_migrations`."""
    head: str
    """The newest revision in that folder, so that a database that has it opens without importing alembic."""
    if_damaged: str
    """What to do about a damaged file."""

    @property
    def version_table(self) -> str:
        """Table of the revision: ledger and journal may share one PostgreSQL database."""
        return f"{self.what}_schema"


class Sqlite(SQLiteDialect_pysqlite):
    """SQLAlchemy's own dialect; those of two databases are equal, so that what was compiled for one is found for the other."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        """Whether the other one compiles to the same."""
        return type(other) is type(self)

    def __hash__(self) -> int:
        """Return the same for each."""
        return hash(type(self))


registry.register("sqlite.frangible", __name__, Sqlite.__name__)


class Database:
    """One open database; safe to use from several threads, and beside other processes."""

    def __init__(self, engine: Engine, schema: Schema) -> None:
        """Use `open` instead."""
        self.engine = engine
        self.schema = schema

    @classmethod
    def open(cls, url: str, schema: Schema) -> "Database":
        """Connect and bring the schema to its head; raise `schema.error` that names the database and what to do."""
        database = cls(_engine(_parsed(url, schema)), schema)
        try:
            database._ensure_schema()
        except FrangibleError:
            database.close()
            raise
        return database

    @classmethod
    def in_memory(cls, schema: Schema, tables: MetaData) -> "Database":
        """Return an empty one that lasts as long as it is open: to have statements compiled before they are needed."""
        engine = create_engine("sqlite+frangible://", execution_options={"compiled_cache": _COMPILED})
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "connect", _configure_sqlite)
        tables.create_all(engine)
        return cls(engine, schema)

    @property
    def location(self) -> str:
        """The file, or the URL without its password."""
        return _location(self.engine.url)

    @property
    def is_postgresql(self) -> bool:
        """Whether this is PostgreSQL; it is SQLite otherwise."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction: the lock is taken at once, and it is durable when the block has ended."""
        with self._mapped_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read transaction: a consistent view that works on a full or read-only disk too."""
        options = {"isolation_level": "REPEATABLE READ"} if self.is_postgresql else {"frangible_reading": True}
        with self._mapped_errors(), self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self.schema.error(f"{self.schema.what} {self.location}: {_explanation(error, self)}") from error

    def _ensure_schema(self) -> None:
        with self.reading() as connection:
            revision = self._revision(connection)
        if revision == self.schema.head:
            return
        # Imported before the write lock is taken: on a busy machine that takes longer than others wait for the lock.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(self.schema.migrations).replace("%", "%%"))
        if revision is not None and revision not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
            raise self.schema.error(
                f"{self.schema.what} {self.location}: its schema is {revision!r} and this frangible knows up to {self.schema.head!r}: "
                f"a newer frangible wrote it; upgrade frangible, or name another with {self.schema.variable}"
            )
        with _MIGRATING, self.writing() as connection:
            if self.is_postgresql:
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": self.schema.version_table})
            if self._revision(connection) == self.schema.head:
                return  # another process was faster
            config.attributes.update(connection=connection, version_table=self.schema.version_table)
            command.upgrade(config, "head")

    def _revision(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(self.schema.version_table):
            return None
        # The table's name is a constant of ours.
        return connection.execute(text(f"SELECT version_num FROM {self.schema.version_table}")).scalar()  # noqa: S608


def insert_into(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """Return an insert that can be told `on_conflict_do_nothing`; imports the dialect in use and not the other one."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def run_migrations() -> None:
    """All that a migration folder's `env.py` does: run the asked revisions inside the transaction that `Database.open` began."""
    from alembic import context

    attributes = context.config.attributes
    context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
    with context.begin_transaction():
        context.run_migrations()


def _parsed(url: str, schema: Schema) -> URL:
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    except ArgumentError as error:
        raise schema.error(f"{schema.what}: {schema.variable} is not a database URL; expected sqlite:////FILE or postgresql://USER@HOST/NAME") from error
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"} or (backend == "sqlite" and parsed.database in {None, "", ":memory:"}):
        raise schema.error(f"{schema.what} {_location(parsed)}: expected sqlite:////FILE or postgresql://USER@HOST/NAME; set {schema.variable}")
    if backend == "postgresql":
        _need_psycopg(schema)
        return parsed.set(drivername="postgresql+psycopg")
    folder = Path(_location(parsed)).parent
    if not folder.is_dir():
        raise schema.error(f"{schema.what} {_location(parsed)}: its folder does not exist; `mkdir -p {folder}`, or name another with {schema.variable}")
    return parsed


def _need_psycopg(schema: Schema) -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise schema.error(f"{schema.what}: PostgreSQL needs the driver psycopg; `pip install 'frangible[postgresql]'`") from error


def _location(url: URL) -> str:
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.render_as_string(hide_password=True)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": BUSY_SECONDS, "application_name": "frangible", "options": POSTGRESQL_OPTIONS, "tcp_user_timeout": 10_000}
        return create_engine(url, connect_args=arguments, pool_pre_ping=True)
    sqlite = url.set(drivername="sqlite+frangible")
    engine = create_engine(sqlite, connect_args={"timeout": BUSY_SECONDS}, execution_options={"compiled_cache": _COMPILED})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not at the driver's first write
    for pragma in ("journal_mode = TRUNCATE", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that writes after it has read fails at once when another process wrote meanwhile, whatever the busy timeout.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("frangible_reading") else "BEGIN IMMEDIATE")


type _Cause = Literal["full", "read-only", "unreachable", "damaged", "busy", "conflict", "other"]

_SQLITE_CAUSES: dict[str, _Cause] = {
    "SQLITE_FULL": "full",
    "SQLITE_IOERR": "full",
    "SQLITE_READONLY": "read-only",
    "SQLITE_PERM": "read-only",
    "SQLITE_CANTOPEN": "unreachable",
    "SQLITE_AUTH": "unreachable",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_NOTADB": "damaged",
    "SQLITE_BUSY": "busy",
    "SQLITE_LOCKED": "busy",
    "SQLITE_CONSTRAINT": "conflict",
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html; the class is the first two characters.
_POSTGRESQL_CAUSES: dict[str, _Cause] = {
    "53": "full",
    "58": "full",
    "25": "read-only",
    "42": "read-only",
    "08": "unreachable",
    "28": "unreachable",
    "3D": "unreachable",
    "57": "unreachable",
    "XX": "damaged",
    "55": "busy",
    "40": "busy",
    "23": "conflict",
}


def _cause(error: Exception) -> _Cause:
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(original, "sqlite_errorname", None)
    if name is not None:  # extended names such as SQLITE_IOERR_WRITE begin with the primary one (https://sqlite.org/rescode.html)
        return _SQLITE_CAUSES.get("_".join(name.split("_")[:2]), "other")
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return _POSTGRESQL_CAUSES.get(state[:2], "other")
    if isinstance(error, IntegrityError):
        return "conflict"
    return "unreachable" if isinstance(error, DBAPIError) and not isinstance(original, sqlite3.Error) else "other"


def _explanation(error: Exception, database: Database) -> str:
    found = str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]
    another = f"name another with {database.schema.variable}"
    advice: dict[_Cause, str] = {
        "full": f"cannot be written: make room on its disk or within its quota (`df`), or {another}",
        "read-only": f"may not be written by this user: give write permission on it and its folder, or {another}",
        "unreachable": f"cannot be opened: check that it is there and that this user may use it, or {another}",
        "damaged": f"is damaged or not a database: {database.schema.if_damaged}, or {another}",
        "busy": f"was held by another process for more than {BUSY_SECONDS} s: try again, and look for a process that hangs (`frangible status`)",
        "conflict": "the row contradicts what is already there",
        "other": "the statement failed",
    }
    return f"{advice[_cause(error)]} ({found})"
