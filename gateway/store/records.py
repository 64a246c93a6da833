"""Attestations in a database: one writer thread, many rows per commit.

A commit with full sync costs about 3 ms, far too much for the event loop; in batches it
is a few microseconds a row. `put` returns when its row is on disk, so a token never
leaves the process before its record is durable. Where there is a log, the leaf of a
token is written in the very transaction that keeps the token.
"""

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, Self, TypeVar

from attest.errors import ConfigurationError, FormatError
from attest.log.proof import LogProof
from attest.tokens import signing_hash
from gateway.errors import StoreError
from gateway.store.boots import boot_endorsements
from gateway.store.database import Connection, Database
from gateway.store.deadlines import Deadlines
from gateway.store.log import LoggedRecord, LogTables, log_proof

__all__ = ["Record", "RecordStore"]

_BATCH = 256
# A database that is frozen, or behind a broken network, says nothing at all.
_ANSWER_SECONDS = 15.0
_ROOM_BYTES = 256 * 1024

# As PostgreSQL's commit_delay and commit_siblings: with so many requests in flight,
# others are about to end, and a row in a batch costs a quarter of one alone.
_LINGER_SECONDS = 0.003
_SIBLINGS = 5
# Of a batch this large a row more costs what it costs in any other.
_ENOUGH = 64


class Record(NamedTuple):
    """An attestation to keep.

    Attributes:
        id: by which it is asked for.
        boot: digest of the boot whose key signed it.
        seq: its place among those of the boot.
        token: with its disclosures.
        leaf: `tokens.signing_hash` of the token, which the log takes.
    """

    id: str
    boot: str
    seq: int
    token: str
    leaf: bytes

    @classmethod
    def of(cls, attestation_id: str, boot: str, seq: int, token: str) -> Self:
        """That of a token whose hash is not at hand."""
        leaf = signing_hash(token.partition("~")[0])
        return cls(attestation_id, boot, seq, token, leaf)


Work = Callable[[Connection], None] | Record
_Future = Future[None] | asyncio.Future[None]
_Item = tuple[Work, asyncio.AbstractEventLoop | None, _Future]
T = TypeVar("T")


class RecordStore:
    """One database. Use `open` of a subclass, and `close` at the end.

    Attributes:
        log: the log's tables, None where no log is kept.
        shared: whether other processes write to the same database.
        on_failure: called in the writer's thread for each transaction that failed.
        in_flight: how many requests are being served; called in the writer's thread.
        deadlines: how long a write or a read may take.
    """

    def __init__(self, database: Database, *, log: bool) -> None:
        self._database, self.shared = database, database.shared
        self.log = LogTables() if log else None
        self.on_failure: Callable[[], None] = lambda: None
        self.in_flight: Callable[[], int] = lambda: 0
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._reader_lock = threading.Lock()
        self.deadlines = Deadlines(_ANSWER_SECONDS, self._silence)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)

    def start(self, *, check: bool = True) -> Self:
        """Make the tables that are missing, check the log, and take records.

        Without `check` a log that others write to as well is NOT checked.

        Raises:
            ConfigurationError: the database can't be opened or written.
            StartupRefusedError: the log in it was damaged (`LogTables.check`).
        """
        database = self._database
        try:
            with database.turn():
                self._prepare(check=check)
        except database.errors as error:
            self._close_connections()
            raise ConfigurationError(
                f"store: {database.name}: {_one_line(error)}", hint=database.hint
            ) from error
        except BaseException:
            self._close_connections()
            raise
        self._thread.start()
        return self

    def _prepare(self, *, check: bool) -> None:
        database = self._database
        writer = self._writer = database.connect()
        with database.transaction(writer):
            database.lock_log(writer)
            for statement in database.schema.split(";"):
                if statement.strip():
                    writer.execute(statement)
        if self.log is not None and (check or not self.shared):
            with database.snapshot(writer):
                self.log.check(writer)

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
        self, digest: str, endorsements: bytes, record: str, writer: Connection
    ) -> None:
        added = writer.execute(
            "INSERT INTO boots (digest, endorsements) VALUES (?, ?) "
            "ON CONFLICT DO NOTHING",
            (digest, endorsements),
        ).rowcount
        if added and record and self.log is not None:
            self.log.append(writer, LoggedRecord(signing_hash(record), record=record))

    async def put_boot(self, digest: str, endorsements: bytes, record: str) -> None:
        """The same without blocking; returns when it is on disk.

        Raises:
            StoreError: it could not be written.
        """
        await self.write(partial(self._add_boot, digest, endorsements, record))

    async def make_room(self) -> None:
        """Write what is larger than an attestation, and remove it.

        Raises:
            StoreError: that can't be done.
        """
        await self.write(_fill_room)
        await self.write(_clear_room)

    async def put(self, record: Record) -> None:
        """Keep one attestation; returns when it is on disk.

        Raises:
            StoreError: it could not be written (disk full, database damaged).
        """
        await self.write(record)

    def _put(self, records: list[Record], writer: Connection) -> None:
        rows = [record[:4] for record in records]
        writer.executemany("INSERT INTO attestations VALUES (?, ?, ?, ?)", rows)
        if self.log is not None:
            leaves = [LoggedRecord(r.leaf, attestation=r.id) for r in records]
            self.log.append(writer, *leaves)

    def _do(self, batch: Sequence[Work], writer: Connection) -> None:
        """Work in its order; records that follow each other together."""
        records: list[Record] = []
        for work in batch:
            if isinstance(work, Record):
                records.append(work)
                continue
            self._put(records, writer)
            records = []
            work(writer)
        self._put(records, writer)

    async def write(self, work: Work) -> None:
        """Do some work in the writer's next transaction; returns when it is on disk.

        Raises:
            StoreError: the transaction failed, through this work or another's; or
                nothing came of it in time: then it may still be done.
        """
        # Whoever waits may be cancelled; the work is done all the same.
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.put((work, loop, future))
        await self.deadlines.wait(future)

    def _submit(self, work: Work) -> "Future[None]":
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        self._queue.put((work, None, future))
        return future

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do some reading, off the event loop; it sees what is on disk.

        Raises:
            StoreError: the database does not answer.
        """
        try:
            async with asyncio.timeout(self.deadlines.seconds):
                return await asyncio.to_thread(self._read, work)
        except TimeoutError:
            raise self._silence() from None

    def _silence(self) -> StoreError:
        return StoreError(
            f"store: {self._database.name}: no answer in {self.deadlines.seconds:g} s",
            hint="is the database up, and the network between?",
        )

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.reading() as reader:
            return work(reader)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One look at the database, for one thread at a time. Blocks.

        Raises:
            StoreError: the database does not answer.
        """
        database = self._database
        with self._reader_lock:
            try:
                self._reader = self._reader or database.connect()
                with database.transaction(self._reader):
                    yield self._reader
            except database.errors as error:
                _close(self._reader)
                self._reader = None
                raise self._failure(error) from error

    async def get(self, attestation_id: str) -> tuple[str, bytes] | None:
        """Token and endorsements of one attestation, None when unknown."""
        return await self.read(partial(_get, attestation_id))

    async def log_proof(self, attestation_id: str) -> LogProof | None:
        """That an attestation is in the log; None where it is not, or not yet."""
        return await self.read(partial(log_proof, attestation_id=attestation_id))

    async def endorsements(self, digest: str) -> bytes | None:
        """What a boot record or a refusal rests on, None when unknown."""
        return await self.read(partial(boot_endorsements, digest=digest))

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            self._linger()
            batch, stop = [first], False
            try:
                with self._database.turn():
                    # What came while others wrote goes along.
                    stop = self._gather(batch)
                    error = self._commit([item[0] for item in batch])
            except self._database.errors as problem:
                error = self._failed(problem)
            waiting: dict[asyncio.AbstractEventLoop | None, list[_Future]] = {}
            for _, loop, future in batch:
                waiting.setdefault(loop, []).append(future)
            for loop, futures in waiting.items():
                _tell(loop, futures, error)
            if stop:
                return

    def _gather(self, batch: list[_Item]) -> bool:
        """Add what is queued to the batch; whether the store is to end after it."""
        while len(batch) < _BATCH:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return True
            batch.append(item)
        return False

    def _linger(self) -> None:
        """Wait a moment for others, if there are any that could come."""
        ends = time.monotonic() + _LINGER_SECONDS
        while (
            (waiting := self._queue.qsize()) < _ENOUGH
            and self.in_flight() >= max(_SIBLINGS, waiting + 2)
            and time.monotonic() < ends
        ):
            time.sleep(_LINGER_SECONDS / 2)

    def _commit(self, batch: Sequence[Work]) -> StoreError | None:
        database = self._database
        failures: tuple[type[Exception], ...] = (FormatError, *database.errors)
        try:
            # A connection that broke is made anew with the next batch.
            writer = self._writer = self._writer or database.connect()
            with database.transaction(writer):
                if self.log is not None:
                    database.lock_log(writer)
                    self.log.begin(writer, shared=self.shared)
                self._do(batch, writer)
        except failures as error:
            if self.shared:
                _close(self._writer)
                self._writer = None
            if self.log is not None:
                self.log.rolled_back()
            return self._failed(error)
        if self.log is not None:
            self.log.committed()
        return None

    def _failed(self, error: Exception) -> StoreError:
        self.on_failure()
        return self._failure(error)

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(
            f"store: {self._database.name}: {_one_line(error)}",
            hint="free disk space or repair the database, then restart",
        )

    def close(self) -> None:
        """Write what is queued, then close. Blocks."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._close_connections()

    def _close_connections(self) -> None:
        for connection in (self._writer, self._reader):
            _close(connection)


def _tell(
    loop: asyncio.AbstractEventLoop | None,
    futures: Sequence[_Future],
    error: StoreError | None,
) -> None:
    """Resolve futures, those of an event loop in it: it is woken once for all."""
    if loop is None:
        _resolve(futures, error)
        return
    with suppress(RuntimeError):  # it is closed, so nobody waits
        loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: Sequence[_Future], error: StoreError | None) -> None:
    for future in futures:
        if future.done():  # whoever waited was cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _close(connection: Connection | None) -> None:
    if connection is not None:
        with suppress(Exception):  # it may be broken, which is why it is closed
            connection.close()


def _one_line(error: Exception) -> str:
    """Drivers add hints and statements below the first line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fill_room(writer: Connection) -> None:
    writer.execute("CREATE TABLE IF NOT EXISTS room (filler TEXT)")
    # Random, since PostgreSQL packs; so large that no page left over has place for it.
    filler = secrets.token_hex(_ROOM_BYTES // 2)
    writer.execute("INSERT INTO room VALUES (?)", (filler,))


def _clear_room(writer: Connection) -> None:
    writer.execute("DELETE FROM room")


def _get(attestation_id: str, reader: Connection) -> tuple[str, bytes] | None:
    row = reader.execute(
        "SELECT token, endorsements FROM attestations "
        "JOIN boots ON boots.digest = attestations.boot WHERE id = ?",
        (attestation_id,),
    ).fetchone()
    return None if row is None else (str(row[0]), bytes(row[1]))
