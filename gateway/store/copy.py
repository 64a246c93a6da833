"""Moving a store: all rows of a SQLite file into an empty PostgreSQL database."""

from pathlib import Path

from attest.errors import ConfigurationError
from gateway.store.database import Connection
from gateway.store.log import log_root, log_size
from gateway.store.postgres import PostgresStore
from gateway.store.records import RecordStore
from gateway.store.sqlite import SqliteStore

__all__ = ["COLUMNS", "copy_store"]

COLUMNS = {
    "boots": ("digest", "endorsements"),
    "attestations": ("id", "boot", "seq", "token"),
    "log_leaves": ("idx", "leaf", "attestation", "record"),
    "log_hashes": ("level", "idx", "hash"),
    "log_checkpoints": ("size", "note", "witnessed"),
}
"""What is copied, in an order in which every row finds what it refers to."""

_ROWS = 1000


async def copy_store(source: Path, dsn: str) -> dict[str, int]:
    """Copy every row, in one transaction; returns how many there are of each table.

    The gateway that writes to `source` must be stopped: what it writes meanwhile may be
    missing. Logs are checked on both sides and have the same root.

    Raises:
        ConfigurationError: either can't be opened, or the database is not empty.
        StartupRefusedError: the log of `source` is damaged.
        StoreError: the copy failed; then nothing was copied.
    """
    old = _existing(source)
    try:
        new = PostgresStore.open(dsn, log=True)
        try:
            return await _copy(old, new)
        finally:
            new.close()
    finally:
        old.close()


def _existing(source: Path) -> SqliteStore:
    # To open one that is not there would make it.
    if not source.is_file():
        raise ConfigurationError(
            f"store: {source}: expected the attestations.sqlite of a state directory"
        )
    return SqliteStore.open(source, log=True)


async def _copy(old: RecordStore, new: RecordStore) -> dict[str, int]:
    await new.read(_check_empty)
    counts: dict[str, int] = {}

    def work(writer: Connection) -> None:
        for table, columns in COLUMNS.items():
            counts[table] = _copy_table(old, writer, table, columns)

    await new.write(work)
    size = await old.read(log_size)
    roots = [await s.read(lambda reader: log_root(reader, size)) for s in (old, new)]
    if roots[0] != roots[1]:
        raise ConfigurationError("store: the copy of the log has another root")
    return counts


def _check_empty(reader: Connection) -> None:
    for table in COLUMNS:
        row = reader.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        if row[0]:
            raise ConfigurationError(
                f"store: table {table} of the database is not empty",
                hint="copy into a new database; two logs are never merged",
            )


def _copy_table(
    old: RecordStore, writer: Connection, table: str, columns: tuple[str, ...]
) -> int:
    names = ", ".join(columns)
    marks = ", ".join("?" for _ in columns)
    order = "rowid" if table == "boots" else columns[0]
    select = f"SELECT {names} FROM {table} ORDER BY {order}"  # noqa: S608
    insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
    count = 0
    with old.reading() as reader:
        rows = reader.execute(select)
        while batch := [row for _, row in zip(range(_ROWS), rows, strict=False)]:
            writer.executemany(insert, batch)
            count += len(batch)
    return count
