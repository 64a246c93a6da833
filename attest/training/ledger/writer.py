"""Writing a ledger: one record at a time, handed to the operating system at once."""

import fcntl
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attest.errors import FormatError, LedgerError
from attest.log.merkle import Frontier
from attest.training.ledger.form import (
    LedgerOrderError,
    LedgerSummary,
    lines,
    open_ledger,
    parse_record,
    record_line,
    record_seq,
    root_text,
)

__all__ = ["Ledger"]


class Ledger:
    """A ledger open for appending.

    `append` hands every record to the operating system before it returns, so a killed
    process loses at most the step in progress. Only `sync` survives a power failure.
    One process at a time: the file is locked.
    """

    def __init__(self, file: FileIO, frontier: Frontier) -> None:
        self._file, self._frontier = file, frontier
        self._end = file.tell()

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new, empty ledger.

        Raises:
            LedgerError: the file exists or cannot be made.
        """
        try:
            file = path.open("xb", buffering=0)
        except FileExistsError as error:
            raise LedgerError(
                f"ledger {path}: exists already",
                hint="resume it, or move it away; a ledger is never overwritten",
            ) from error
        except OSError as error:
            raise LedgerError(f"ledger {path}: {error.strerror}") from error
        _lock(file, path)
        return cls(file, Frontier())

    @classmethod
    def resume(cls, path: Path) -> Self:
        """The ledger of a run that stopped; a torn last record is removed.

        The caller appends a record that says from which step it goes on: steps that
        were logged and are made again appear twice, and none is taken back.

        Raises:
            LedgerError: the file cannot be opened, another process writes it, or what
                stands before the torn record is not a ledger.
        """
        try:
            file = path.open("r+b", buffering=0)
        except OSError as error:
            raise LedgerError(f"ledger {path}: {error.strerror}") from error
        try:
            _lock(file, path)
            frontier, end = Frontier(), 0
            with open_ledger(path) as reader:
                for line in lines(reader, path, torn_ok=True):
                    _check_seq(line, frontier.size, path)
                    frontier.append(line)
                    end += len(line) + 1
            file.truncate(end)
            file.seek(end)
        except BaseException:
            file.close()
            raise
        return cls(file, frontier)

    @property
    def size(self) -> int:
        """How many records stand in the ledger."""
        return self._frontier.size

    def summary(self) -> LedgerSummary:
        """Size and root as of the last record."""
        return LedgerSummary(self.size, root_text(self._frontier))

    def append(self, record: Mapping[str, Any]) -> int:
        """Write one record and return its sequence number, which is added as `seq`.

        Raises:
            LedgerError: the record holds `seq`, a float or something that is not JSON,
                is too large, or the disk is full. A record that was refused leaves no
                trace in the file.
        """
        if "seq" in record:
            raise LedgerError("ledger: 'seq' is the ledger's own field")
        number = self.size
        try:
            line = record_line({**record, "seq": number})
        except FormatError as error:
            raise LedgerError(f"ledger: record {number}: {error}") from error
        self._write(line + b"\n")
        self._frontier.append(line)
        return number

    def sync(self) -> None:
        """Return when all records are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync, unlock and close; further calls do nothing."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        # Unbuffered: a buffer would keep what the disk refused and write it later.
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise LedgerError(
                f"ledger: record {self.size} cannot be written: {error.strerror}",
                hint="make room, then resume; all earlier records are safe",
            ) from error
        self._end += len(data)


def _lock(file: FileIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LedgerError(
            f"ledger {path}: another process writes it",
            hint="wait for the other run to end, or give this one its own directory",
        ) from error


def _check_seq(line: bytes, number: int, path: Path) -> None:
    found = record_seq(parse_record(line, number, path), number, path)
    if found != number:
        raise LedgerOrderError(
            f"ledger {path}: expected record {number}, found {found!r}",
            hint="it was changed since; check it with the last root that is known",
        )
