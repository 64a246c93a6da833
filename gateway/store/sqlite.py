"""Attestations in SQLite: one writer thread, many rows per commit.

A commit with full sync costs about 3 ms, far too much for the event loop; in batches it
is a few microseconds a row. `put` returns when its row is on disk, so a token never
leaves the process before its record is durable. Where there is a log, the leaf of a
token is written in the very transaction that keeps the token.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from attest.digests import parse_digest
from attest.errors import ConfigurationError
from attest.log.proof import LogProof
from attest.tokens import signing_digest
from gateway.errors import StoreError
from gateway.store.log import LOG_SCHEMA, LoggedRecord, LogTables, log_proof

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
Work = Callable[[sqlite3.Connection], None]
_Item = tuple[Work, "Future[None]"]
T = TypeVar("T")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


class SqliteStore:
    """One database file. Use `open`, and `close` at the end.

    Attributes:
        log: the log's tables, None where no log is kept.
        on_failure: called in the writer's thread for each transaction that failed.
    """

    def __init__(self, path: Path, *, log: bool) -> None:
        self._path = path
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._reader_lock = threading.Lock()
        self.log = LogTables(self._writer) if log else None
        self.on_failure: Callable[[], None] = lambda: None
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)

    @classmethod
    def open(cls, path: Path, *, log: bool = False) -> Self:
        """Open or create the database, and check the log in it.

        Raises:
            ConfigurationError: the file can't be opened or written.
            StartupRefusedError: the log in it was damaged (`LogTables.check`).
        """
        try:
            store = cls(path, log=log)
            with store._writer:  # own class
                store._writer.executescript(_SCHEMA + LOG_SCHEMA)
            if store.log is not None:
                store.log.check()
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"store: {path}: {error}",
                hint="choose a directory that this user may write: --state-dir DIR",
            ) from error
        store._thread.start()
        return store

    def add_boot(self, digest: str, endorsements: bytes, record: str = "") -> None:
        """Keep what the attestations of one boot refer to. Blocks; for start-up.

        Args:
            digest: how attestations name the boot.
            endorsements: what they rest on.
            record: the boot record, or a refusal to start, as a compact token; it
                becomes a leaf of the log.

        Raises:
            StoreError: it could not be written.
        """
        self._submit(partial(self._add_boot, digest, endorsements, record)).result()

    def _add_boot(
        self, digest: str, endorsements: bytes, record: str, writer: sqlite3.Connection
    ) -> None:
        added = writer.execute(
            "INSERT OR IGNORE INTO boots VALUES (?, ?)", (digest, endorsements)
        ).rowcount
        if added and record and self.log is not None:
            self.log.append(LoggedRecord(_leaf(record), record=record))

    async def put_boot(self, digest: str, endorsements: bytes, record: str) -> None:
        """The same without blocking; returns when it is on disk.

        Raises:
            StoreError: it could not be written.
        """
        await self.write(partial(self._add_boot, digest, endorsements, record))

    async def put(self, record: Record) -> None:
        """Keep one attestation; returns when it is on disk.

        Raises:
            StoreError: it could not be written (disk full, database damaged).
        """
        await self.write(partial(self._put, record))

    def _put(self, record: Record, writer: sqlite3.Connection) -> None:
        writer.execute("INSERT INTO attestations VALUES (?, ?, ?, ?)", record)
        if self.log is not None:
            compact = record[3].partition("~")[0]
            self.log.append(LoggedRecord(_leaf(compact), attestation=record[0]))

    async def write(self, work: Work) -> None:
        """Do some work in the writer's next transaction; returns when it is on disk.

        Raises:
            StoreError: the transaction failed, through this work or another's.
        """
        # A client that goes away must not cancel the write of its own record.
        await asyncio.shield(asyncio.wrap_future(self._submit(work)))

    def _submit(self, work: Work) -> "Future[None]":
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        self._queue.put((work, future))
        return future

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some reading, off the event loop; it sees what is on disk."""
        return await asyncio.to_thread(self._read, work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._reader_lock:
            return work(self._reader)

    async def get(self, attestation_id: str) -> tuple[str, bytes] | None:
        """Token and endorsements of one attestation, None when unknown."""
        return await self.read(partial(_get, attestation_id))

    async def log_proof(self, attestation_id: str) -> LogProof | None:
        """That an attestation is in the log; None where it is not, or not yet."""
        return await self.read(partial(log_proof, attestation_id=attestation_id))

    async def recent_endorsements(self, limit: int) -> list[bytes]:
        """What the last boots and refusals rest on, the latest first."""
        return await self.read(partial(_recent, limit))

    async def endorsements(self, digest: str) -> bytes | None:
        """What a boot record or a refusal rests on, None when unknown."""
        return await self.read(partial(_endorsements, digest))

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
            error = self._commit([work for work, _ in batch])
            for _, future in batch:
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
            if stop:
                return

    def _commit(self, batch: Sequence[Work]) -> StoreError | None:
        try:
            with self._writer:
                for work in batch:
                    work(self._writer)
        except sqlite3.Error as error:
            if self.log is not None:
                self.log.rolled_back()
            self.on_failure()
            return StoreError(
                f"store: {self._path}: {error}",
                hint="free disk space or repair the database, then restart",
            )
        if self.log is not None:
            self.log.committed()
        return None

    def close(self) -> None:
        """Write what is queued, then close. Blocks."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        for connection in (self._writer, self._reader):
            with closing(connection):
                pass


def _leaf(compact: str) -> bytes:
    return parse_digest(signing_digest(compact))


def _get(attestation_id: str, reader: sqlite3.Connection) -> tuple[str, bytes] | None:
    row = reader.execute(
        "SELECT token, endorsements FROM attestations "
        "JOIN boots ON boots.digest = attestations.boot WHERE id = ?",
        (attestation_id,),
    ).fetchone()
    return None if row is None else (str(row[0]), bytes(row[1]))


def _recent(limit: int, reader: sqlite3.Connection) -> list[bytes]:
    rows = reader.execute(
        "SELECT endorsements FROM boots ORDER BY rowid DESC LIMIT ?", (limit,)
    )
    return [bytes(row[0]) for row in rows]


def _endorsements(digest: str, reader: sqlite3.Connection) -> bytes | None:
    row = reader.execute(
        "SELECT endorsements FROM boots WHERE digest = ?", (digest,)
    ).fetchone()
    return None if row is None else bytes(row[0])
