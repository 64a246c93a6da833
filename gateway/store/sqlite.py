"""Attestations in a SQLite file, for the processes of one gateway on one host.

Several of them take turns by a lock file. SQLite's own way to wait for another writer
is to sleep, for up to 100 ms at a time; the kernel wakes whoever waits for the file.
"""

import fcntl
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

from gateway.store.database import Connection
from gateway.store.records import RecordStore

__all__ = ["SqliteStore"]

# Ids are random: rows in their order would dirty a page or two each, which halves the
# speed. So attestations stand in the order in which they came, beside an index.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS boots (
    digest TEXT PRIMARY KEY, endorsements BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS attestations (
    id TEXT PRIMARY KEY, boot TEXT NOT NULL REFERENCES boots, seq INTEGER NOT NULL,
    token TEXT NOT NULL, UNIQUE (boot, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS log_leaves (
    idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, attestation TEXT UNIQUE, record TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS log_hashes (
    level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_checkpoints (
    size INTEGER PRIMARY KEY, note TEXT NOT NULL, witnessed INTEGER NOT NULL
) STRICT;
"""


_TOGETHER = 64


class _Connection(sqlite3.Connection):
    """Adds many rows in one statement.

    Where another thread is busy, getting the interpreter back from it after each row
    costs more than the row.
    """

    def executemany(self, statement: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Run an INSERT whose last part is the `VALUES` of one row."""
        head, values, one = statement.rpartition("VALUES ")
        cursor, rows = self.cursor(), list(rows)
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            many = ", ".join([one] * len(some))
            cursor.execute(head + values + many, list(chain.from_iterable(some)))
        return cursor


class _File:
    schema = _SCHEMA
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    hint = "choose a directory that this user may write: --state-dir DIR"

    def __init__(self, path: Path, *, shared: bool) -> None:
        self._path, self.name = path, str(path)
        self._lock = path.with_name(f"{path.name}-turn")
        self.shared = shared

    def connect(self) -> Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=10,
            check_same_thread=False,
            cached_statements=4 * _TOGETHER,
            factory=_Connection,
        )
        # Of a new file; three tokens fit such a page, and one the usual page.
        connection.execute("PRAGMA page_size=8192")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return cast("Connection", connection)

    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        return cast("sqlite3.Connection", connection)

    def snapshot(self, connection: Connection) -> AbstractContextManager[object]:
        # Whoever looks has the turn, see RecordStore.start.
        return self.transaction(connection)

    def turn(self) -> AbstractContextManager[object]:
        return self._locked() if self.shared else nullcontext()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Whoever dies with the lock held loses it with the file, flock(2).
        try:
            file = self._lock.open("ab")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise sqlite3.OperationalError(
                f"no lock on {self._lock.name}: {error.strerror}"
            ) from error
        with file:
            yield

    def lock_log(self, connection: Connection) -> None:
        """Whose turn it is alone writes."""


class SqliteStore(RecordStore):
    """One database file."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        log: bool = False,
        shared: bool = False,
        check: bool = True,
    ) -> Self:
        """Open or create the file, and check the log in it.

        With `shared` other processes of this host may write to it too, if they open it
        with `shared` as well; a network file system is NOT safe for that. Without
        `check` the log is NOT checked: for a worker, whose parent has done it.

        Raises:
            ConfigurationError, StartupRefusedError: as `RecordStore.start`.
        """
        return cls(_File(path, shared=shared), log=log).start(check=check)
