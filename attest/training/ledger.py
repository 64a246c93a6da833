"""The training ledger: what a trainer says it did, one record per optimizer step.

A JSONL file of RFC 8785 lines. Each line without its newline is a leaf of an RFC 6962
tree whose size and root go into the signed manifest. Record n carries `"seq": n`.

It proves what the trainer wrote, at the latest when the root was signed. It does not
prove that the trainer did it: a lying trainer can log a run that it never made.
"""

import fcntl
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from attest.canonical import canonical, read_object
from attest.digests import digests_equal
from attest.errors import FormatError, LedgerError
from attest.log.merkle import Frontier

__all__ = [
    "MAX_RECORD_BYTES",
    "Ledger",
    "LedgerCutError",
    "LedgerEditedError",
    "LedgerOrderError",
    "LedgerSummary",
    "float_hex",
    "hex_float",
    "read_ledger",
    "verify_ledger",
]

# A record of 10,000 samples with ids of 64 characters stays below this.
MAX_RECORD_BYTES = 1 << 20


class LedgerCutError(LedgerError):
    """Records are missing, or the last one is torn."""

    code = "ledger_cut"


class LedgerEditedError(LedgerError):
    """Records were changed, added, or are not records at all."""

    code = "ledger_edited"


class LedgerOrderError(LedgerError):
    """All records are there, in another order than they were written."""

    code = "ledger_order"


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The size of a ledger and its Merkle root as a text digest."""

    size: int
    root: str


class Ledger:
    """A ledger open for appending.

    `append` hands every record to the operating system before it returns, so a killed
    process loses at most the step in progress. Only `sync` survives a power failure.
    One process at a time: the file is locked.
    """

    def __init__(self, file: FileIO, frontier: Frontier) -> None:
        self._file, self._frontier = file, frontier

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
            with _open(path) as reader:
                for line in _lines(reader, path, torn_ok=True):
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
        return LedgerSummary(self.size, "sha256:" + self._frontier.root().hex())

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
            line = canonical({**record, "seq": number})
        except FormatError as error:
            raise LedgerError(f"ledger: record {number}: {error}") from error
        if len(line) > MAX_RECORD_BYTES:
            raise LedgerError(
                f"ledger: record {number}: expected at most {MAX_RECORD_BYTES} bytes, "
                f"found {len(line)}"
            )
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
        start = self._file.tell()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(start)
            self._file.seek(start)
            raise LedgerError(
                f"ledger: record {self.size} cannot be written: {error.strerror}",
                hint="make room, then resume; all earlier records are safe",
            ) from error


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The records in file order, unchecked but for their form.

    Raises:
        LedgerError: as `verify_ledger`, without its checks of order, size and root.
    """
    with _open(path) as file:
        for number, line in enumerate(_lines(file, path)):
            yield _parse(line, number, path)


def verify_ledger(path: Path, *expected: LedgerSummary) -> LedgerSummary:
    """Check a ledger against the sizes and roots that were signed for it.

    A manifest lists one summary per stage: each must be the state of this ledger at
    that size, and the largest must be the whole of it. Without any, only the form and
    the order are checked, which an editor of the file can restore.

    Raises:
        LedgerCutError: shorter than expected, a record missing, or the last one torn.
        LedgerOrderError: the records are complete and out of order.
        LedgerEditedError: a root differs, there are more records than expected, or a
            line is not a record. The message names the range that holds the change.
        LedgerError: the file cannot be read.
    """
    heads = sorted(expected, key=lambda head: head.size)
    frontier, numbers = Frontier(), []
    differs: LedgerEditedError | None = None
    last_good = 0
    with _open(path) as file:
        for line in _lines(file, path):
            numbers.append(_seq(line, frontier.size, path))
            frontier.append(line)
            while differs is None and heads and heads[0].size == frontier.size:
                head = heads.pop(0)
                if digests_equal(_root(frontier), head.root):
                    last_good = head.size
                else:
                    differs = LedgerEditedError(
                        f"ledger {path}: expected root {head.root} at {head.size} "
                        f"records, found {_root(frontier)}; the change lies in records "
                        f"{last_good} to {head.size - 1}",
                        hint="ask the training authority for the ledger that it signed",
                    )
    _check_order(numbers, path)
    found = LedgerSummary(frontier.size, _root(frontier))
    if differs is not None:
        raise differs
    _check_size(found, expected, path)
    return found


def float_hex(value: float) -> str:
    """A number as the hex of its big-endian IEEE 754 single: no decimal to disagree on.

    Values beyond a single become infinite.
    """
    try:
        return struct.pack(">f", value).hex()
    except OverflowError:
        return struct.pack(">f", math.copysign(math.inf, value)).hex()


def hex_float(text: str) -> float:
    """The number that `float_hex` wrote.

    Raises:
        FormatError: not eight hex digits.
    """
    try:
        value: float = struct.unpack(">f", bytes.fromhex(text))[0]
    except (ValueError, struct.error):
        raise FormatError("ledger: expected a number as 8 hex digits") from None
    return value


# --- lines ------------------------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise LedgerError(f"ledger {path}: {error.strerror}") from error


def _lock(file: FileIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LedgerError(
            f"ledger {path}: another process writes it",
            hint="wait for the other run to end, or give this one its own directory",
        ) from error


def _lines(file: BinaryIO, path: Path, *, torn_ok: bool = False) -> Iterator[bytes]:
    number = 0
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) > MAX_RECORD_BYTES:
            raise LedgerEditedError(f"ledger {path}: record {number} is too long")
        elif torn_ok:
            return
        else:
            raise LedgerCutError(
                f"ledger {path}: record {number} is torn, its line has no end",
                hint="the run was killed while writing; resume it, which removes the "
                "torn record",
            )
        number += 1


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        return read_object(line, max_bytes=MAX_RECORD_BYTES, max_depth=8)
    except FormatError as error:
        raise LedgerEditedError(f"ledger {path}: record {number}: {error}") from error


def _seq(line: bytes, number: int, path: Path) -> int:
    found = _parse(line, number, path).get("seq")
    if type(found) is not int:  # True and 1.0 equal 1 in Python
        raise LedgerEditedError(f"ledger {path}: record {number} has no number")
    return found


def _check_seq(line: bytes, number: int, path: Path) -> None:
    found = _seq(line, number, path)
    if found != number:
        raise LedgerOrderError(
            f"ledger {path}: expected record {number}, found {found!r}",
            hint="it was changed since; check it with the last root that is known",
        )


def _root(frontier: Frontier) -> str:
    return "sha256:" + frontier.root().hex()


def _check_order(numbers: list[int], path: Path) -> None:
    wanted = range(len(numbers))
    if numbers == list(wanted):
        return
    present = set(numbers)
    if present == set(wanted):
        where = next(n for n in wanted if numbers[n] != n)
        raise LedgerOrderError(
            f"ledger {path}: expected record {where}, found {numbers[where]}; all "
            f"{len(numbers)} are there, out of order"
        )
    missing = next(n for n in range(len(numbers) + 1) if n not in present)
    if len(present) < len(numbers):
        raise LedgerEditedError(
            f"ledger {path}: record {missing} is missing and another stands twice"
        )
    raise LedgerCutError(f"ledger {path}: record {missing} is missing")


def _check_size(
    found: LedgerSummary, expected: tuple[LedgerSummary, ...], path: Path
) -> None:
    if not expected:
        return
    wanted = max(head.size for head in expected)
    if found.size < wanted:
        raise LedgerCutError(
            f"ledger {path}: expected {wanted} records, found {found.size}",
            hint="ask the training authority for the ledger that it signed",
        )
    if found.size > wanted:
        raise LedgerEditedError(
            f"ledger {path}: expected {wanted} records, found {found.size}; "
            "records were added after signing"
        )
