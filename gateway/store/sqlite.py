"""Attestations in a SQLite file, for one gateway process."""

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self, cast

from gateway.store.database import Connection
from gateway.store.records import RecordStore

__all__ = ["SqliteStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS boots (
    digest TEXT PRIMARY KEY, endorsements BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS attestations (
    id TEXT PRIMARY KEY, boot TEXT NOT NULL REFERENCES boots, seq INTEGER NOT NULL,
    token TEXT NOT NULL, UNIQUE (boot, seq)
) STRICT, WITHOUT ROWID;
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


class _File:
    schema = _SCHEMA
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    shared = False
    hint = "choose a directory that this user may write: --state-dir DIR"

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, str(path)

    def connect(self) -> Connection:
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return cast("Connection", connection)

    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        return cast("sqlite3.Connection", connection)

    def lock_log(self, connection: Connection) -> None:
        """One process, one writer: nobody else is there."""


class SqliteStore(RecordStore):
    """One database file."""

    @classmethod
    def open(cls, path: Path, *, log: bool = False) -> Self:
        """Open or create the file, and check the log in it.

        Raises:
            ConfigurationError, StartupRefusedError: as `RecordStore.start`.
        """
        return cls(_File(path), log=log).start()
