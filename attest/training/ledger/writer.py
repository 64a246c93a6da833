"""Writing a ledger: one record at a time, handed to the operating system at once."""

import fcntl
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attest.errors import FormatError, LedgerError
from attest.files import sync_folder
from attest.log.merkle import Frontier
from attest.training.ledger.form import (
    LedgerEditedError,
    LedgerOrderError,
    LedgerSummary,
    Rank,
    lines,
    open_ledger,
    parse_record,
    record_line,
    record_seq,
    root_text,
)
from attest.training.ledger.heads import Heads

__all__ = ["Ledger"]


class Ledger:
    """A ledger open for appending.

    `append` hands every record to the operating system before it returns, so a killed
    process loses at most the step in progress. Only `sync` survives a power failure.
    One process at a time: the file is locked.
    """

    def __init__(
        self, file: FileIO, frontier: Frontier, rank: Rank | None = None
    ) -> None:
        self._file, self._frontier = file, frontier
        self._common = {} if rank is None else rank.to_json()
        self._end = file.tell()

    @classmethod
    def create(cls, path: Path, *, rank: Rank | None = None) -> Self:
        """A new, empty ledger.

        Where several ranks train, each writes one of its own, and all its records say
        whose they are; `attest.training.ledger.ranks` makes one of them.

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
        sync_folder(path.parent)
        return cls(file, Frontier(), rank)

    @classmethod
    def resume(
        cls, path: Path, *known: LedgerSummary, rank: Rank | None = None
    ) -> Self:
        """The ledger of a run that stopped; a torn last record is removed.

        The caller appends a record that says from which step it goes on, as `rejoin`
        does: steps that were logged and are made again appear twice, and none is taken
        back.

        Args:
            path: the ledger.
            known: states that it had before.
            rank: as in `create`.

        Raises:
            LedgerCutError, LedgerEditedError: it never had one of the known states.
            LedgerError: the file cannot be opened, another process writes it, or what
                stands before the torn record is not a ledger.
        """
        try:
            file = path.open("r+b", buffering=0)
        except OSError as error:
            raise LedgerError(f"ledger {path}: {error.strerror}") from error
        try:
            _lock(file, path)
            frontier, end = _replay(path, known)
            file.truncate(end)
            file.seek(end)
        except BaseException:
            file.close()
            raise
        return cls(file, frontier, rank)

    @classmethod
    def rejoin(
        cls,
        path: Path,
        at: LedgerSummary,
        checkpoint: Mapping[str, Any],
        *,
        rank: Rank | None = None,
    ) -> Self:
        """The ledger of a run that goes on from a checkpoint, and a record of that.

        Nothing is taken out: a `resume` record names the state that the ledger had at
        the checkpoint, and what was logged after it counts no more (`counted`).

        Args:
            path: the ledger.
            at: its `summary()` when the checkpoint was made, before it was logged.
            checkpoint: the `stage`, the next `step` and the `digest` that `checkpoint`
                was given for it; it is logged here where the process was killed before
                it could do so. Empty where there is none, and all begins anew.
            rank: as in `create`.

        Raises:
            LedgerEditedError: the ledger names another checkpoint at this place.
            LedgerError: as `resume`.
        """
        ledger = cls.resume(path, at, rank=rank)
        try:
            logged = _logged(path, at.size, checkpoint)
            if logged:
                at = _state(path, at.size + 1)
            ledger.append(
                {
                    "kind": "resume",
                    "stage": checkpoint.get("stage"),
                    "step": checkpoint.get("step", 0),
                    "checkpoint": checkpoint.get("digest"),
                    "size": at.size,
                    "root": at.root,
                }
            )
            if checkpoint and not logged:
                ledger.checkpoint(**checkpoint)
        except BaseException:
            ledger.close()
            raise
        return ledger

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
            LedgerError: the record holds a member of the ledger's own, a float or
                something that is not JSON, is too large, or the disk is full. A record
                that was refused leaves no trace in the file.
        """
        number = self.size
        own = {**self._common, "seq": number}
        if taken := own.keys() & record.keys():
            raise LedgerError(f"ledger: {min(taken)!r} is the ledger's own member")
        try:
            line = record_line({**record, **own})
        except FormatError as error:
            raise LedgerError(f"ledger: record {number}: {error}") from error
        self._write(line + b"\n")
        self._frontier.append(line)
        return number

    def checkpoint(self, *, digest: str, stage: str | None, step: int) -> int:
        """Log that what the run can go on from is on the disk; `rejoin` looks for it.

        Args:
            digest: of the checkpoint.
            stage: the stage that goes on from there; None between two.
            step: the next step of it.
        """
        record = {"kind": "checkpoint", "stage": stage, "step": step, "digest": digest}
        return self.append(record)

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


def _replay(path: Path, known: Sequence[LedgerSummary]) -> tuple[Frontier, int]:
    """The tree over the whole records of a ledger, and where the last one ends."""
    heads, frontier, end = Heads(path, known), Frontier(), 0
    heads.check(frontier)
    with open_ledger(path) as reader:
        for line in lines(reader, path, torn_ok=True):
            _check_seq(line, frontier.size, path)
            frontier.append(line)
            heads.check(frontier)
            end += len(line) + 1
    heads.close(frontier)
    return frontier, end


def _state(path: Path, size: int) -> LedgerSummary:
    """The state that a ledger had when it held so many records."""
    frontier = Frontier()
    with open_ledger(path) as reader:
        for line in islice(lines(reader, path), size):
            frontier.append(line)
    return LedgerSummary(frontier.size, root_text(frontier))


def _logged(path: Path, number: int, checkpoint: Mapping[str, Any]) -> bool:
    """Whether record `number` is that of the checkpoint."""
    with open_ledger(path) as reader:
        line = next(islice(lines(reader, path), number, None), None)
    record = {} if line is None else parse_record(line, number, path)
    if record.get("kind") != "checkpoint":
        return False
    if record.get("digest") != checkpoint.get("digest"):
        raise LedgerEditedError(
            f"ledger {path}: record {number}: expected checkpoint "
            f"{checkpoint.get('digest')}, found {record.get('digest')}",
            hint="the checkpoint is not the one that the run wrote; take it away to go "
            "on from an earlier one",
        )
    return True


def _check_seq(line: bytes, number: int, path: Path) -> None:
    found = record_seq(parse_record(line, number, path), number, path)
    if found != number:
        raise LedgerOrderError(
            f"ledger {path}: expected record {number}, found {found!r}",
            hint="it was changed since; check it with the last root that is known",
        )
