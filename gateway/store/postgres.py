"""Attestations in PostgreSQL, for replicas that share them and one log.

Every transaction that adds to the log first takes a lock of the database, so that the
leaves of all replicas have one order and the tree one right edge.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from attest.errors import ConfigurationError
from gateway.store.database import Connection, Cursor
from gateway.store.records import RecordStore

__all__ = ["PostgresStore", "read_dsn"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS boots (
    digest TEXT PRIMARY KEY, endorsements BYTEA NOT NULL, rowid BIGSERIAL
);
CREATE TABLE IF NOT EXISTS attestations (
    id TEXT PRIMARY KEY, boot TEXT NOT NULL REFERENCES boots, seq BIGINT NOT NULL,
    token TEXT NOT NULL, UNIQUE (boot, seq)
);
CREATE TABLE IF NOT EXISTS log_leaves (
    idx BIGINT PRIMARY KEY, leaf BYTEA NOT NULL, attestation TEXT UNIQUE, record TEXT
);
CREATE TABLE IF NOT EXISTS log_hashes (
    level BIGINT NOT NULL, idx BIGINT NOT NULL, hash BYTEA NOT NULL,
    PRIMARY KEY (level, idx)
);
CREATE TABLE IF NOT EXISTS log_checkpoints (
    size BIGINT PRIMARY KEY, note TEXT NOT NULL, witnessed INTEGER NOT NULL
);
"""
# Any number would do, as long as all replicas take the same: "attest" in ASCII.
_LOCK = 0x617474657374
_CONNECT_SECONDS = 5
# How soon a connection over a broken network counts as broken, too; else the kernel
# takes a quarter of an hour. libpq's parameters; the connection string's come first.
_BROKEN = {
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
# What must hold so that a commit that was answered survives a power failure.
_DURABLE = {"fsync": ("on",), "synchronous_commit": ("on", "local", "remote_write")}


def read_dsn(path: Path) -> str:
    """The connection string in a file: it holds a password, so it is never a flag.

    Raises:
        ConfigurationError: the file can't be read, or holds no connection string.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        conninfo_to_dict(text)
    except (OSError, UnicodeDecodeError, psycopg.Error) as error:
        # The driver's message quotes the string.
        raise ConfigurationError(
            f"postgres_dsn_file: {path}: "
            f"{getattr(error, 'strerror', None) or 'is no connection string'}",
            hint="for example: postgresql://attest:PASSWORD@db/attest?sslmode=verify-full",
        ) from None
    return text


class _Connected:
    """A connection that takes `?` for parameters."""

    def __init__(self, raw: "psycopg.Connection[Any]") -> None:
        self.raw = raw

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Cursor:
        found = self.raw.execute(_translated(statement), parameters or None)
        return cast("Cursor", found)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        cursor = self.raw.cursor()
        cursor.executemany(_translated(statement), rows)
        return cursor

    def close(self) -> None:
        self.raw.close()


def _translated(statement: str) -> Any:
    return statement.replace("?", "%s")


class _Server:
    schema = _SCHEMA
    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    shared = True
    hint = "check the connection string, and that the user may create tables"

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._dsn = make_conninfo(
            dsn, **{k: parts.get(k, v) for k, v in _BROKEN.items()}
        )
        self.name = f"{parts.get('host', 'local')}/{parts.get('dbname', '')}"

    def connect(self) -> Connection:
        raw = psycopg.connect(
            self._dsn, connect_timeout=_CONNECT_SECONDS, autocommit=True
        )
        try:
            _check_durable(raw)
        except BaseException:
            raw.close()
            raise
        return _Connected(raw)

    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        return cast("_Connected", connection).raw.transaction()

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        with self.transaction(connection):
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield

    def turn(self) -> AbstractContextManager[object]:
        # The server lets many write at once; the log has a lock of its own.
        return nullcontext()

    def lock_log(self, connection: Connection) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))


def _check_durable(raw: "psycopg.Connection[Any]") -> None:
    for name, allowed in _DURABLE.items():
        row = raw.execute("SELECT current_setting(%s)", (name,)).fetchone()
        if row is None or row[0] not in allowed:
            raise psycopg.NotSupportedError(
                f"{name} is {row and row[0]}: a crash could lose attestations"
            )


class PostgresStore(RecordStore):
    """One database, shared by all replicas of one gateway."""

    @classmethod
    def open(cls, dsn: str, *, log: bool = False, check: bool = True) -> Self:
        """Connect, make the tables that are missing, and check the log.

        Without `check` the log is NOT checked: for a worker, whose parent has done it.

        Raises:
            ConfigurationError, StartupRefusedError: as `RecordStore.start`; also where
                the server does not write what it commits.
        """
        return cls(_Server(dsn), log=log).start(check=check)
