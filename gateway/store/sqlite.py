"""Attestations in SQLite: one writer thread, many rows per commit.

A commit with full sync costs about 3 ms, far too much for the event loop; in batches it
is a few microseconds a row. `put` returns when its row is on disk, so a token never
leaves the process before its record is durable.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

from attest.errors import ConfigurationError
from gateway.errors import StoreError

__all__ = ["Record", "SqliteStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS boots (
    digest TEXT PRIMARY KEY, endorsements BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS attestations (
    id TEXT PRIMARY KEY, boot TEXT NOT NULL REFERENCES boots, seq INTEGER NOT NULL,
    token TEXT NOT NULL, UNIQUE (boot, seq)
) STRICT, WITHOUT ROWID;
"""
_BATCH = 256

# id, boot, seq, token
Record = tuple[str, str, int, str]
_Item = tuple[Record, asyncio.AbstractEventLoop, "asyncio.Future[None]"]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _settle(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class SqliteStore:
    """One database file. Use `open`, and `close` at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._reader_lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the database.

        Raises:
            ConfigurationError: the file can't be opened or written.
        """
        try:
            store = cls(path)
            with store._writer:  # noqa: SLF001  # own class
                store._writer.executescript(_SCHEMA)  # noqa: SLF001
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"store: {path}: {error}",
                hint="choose a directory that this user may write: --state-dir DIR",
            ) from error
        store._thread.start()  # noqa: SLF001
        return store

    def add_boot(self, digest: str, endorsements: bytes) -> None:
        """Keep what the attestations of one boot refer to. Blocks; for start-up."""
        with self._writer:
            self._writer.execute(
                "INSERT OR IGNORE INTO boots VALUES (?, ?)", (digest, endorsements)
            )

    async def put(self, record: Record) -> None:
        """Keep one attestation; returns when it is on disk.

        Raises:
            StoreError: it could not be written (disk full, database damaged).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._queue.put((record, loop, future))
        # A client that goes away must not cancel the write of its own record.
        await asyncio.shield(future)

    async def get(self, attestation_id: str) -> tuple[str, bytes] | None:
        """Token and endorsements of one attestation, None when unknown."""
        return await asyncio.to_thread(self._get, attestation_id)

    def _get(self, attestation_id: str) -> tuple[str, bytes] | None:
        with self._reader_lock:
            row = self._reader.execute(
                "SELECT token, endorsements FROM attestations "
                "JOIN boots ON boots.digest = attestations.boot WHERE id = ?",
                (attestation_id,),
            ).fetchone()
        return None if row is None else (str(row[0]), bytes(row[1]))

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, stop = [first], False
            while len(batch) < _BATCH:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    stop = True
                    break
                batch.append(item)
            error = self._commit([record for record, _, _ in batch])
            for _, loop, future in batch:
                loop.call_soon_threadsafe(_settle, future, error)
            if stop:
                return

    def _commit(self, records: Sequence[Record]) -> StoreError | None:
        try:
            with self._writer:
                self._writer.executemany(
                    "INSERT INTO attestations VALUES (?, ?, ?, ?)", records
                )
        except sqlite3.Error as error:
            return StoreError(
                f"store: {self._path}: {error}",
                hint="free disk space or repair the database, then restart",
            )
        return None

    def close(self) -> None:
        """Write what is queued and close. Call it outside the event loop's callbacks."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        for connection in (self._writer, self._reader):
            with closing(connection):
                pass
