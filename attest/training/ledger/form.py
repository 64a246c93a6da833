"""The form of a ledger: lines, their numbers, and what can be wrong with them."""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from attest.canonical import canonical, read_object, reject_floats
from attest.digests import digest_text
from attest.errors import FormatError, LedgerError, VerificationError
from attest.log.merkle import Frontier

__all__ = [
    "MAX_RECORD_BYTES",
    "LedgerCutError",
    "LedgerEditedError",
    "LedgerOrderError",
    "LedgerSummary",
    "Rank",
    "float_hex",
    "hex_float",
    "lines",
    "open_ledger",
    "parse_record",
    "record_line",
    "record_seq",
    "root_text",
]

# A record of 10,000 samples with ids of 64 characters stays below this.
MAX_RECORD_BYTES = 1 << 20
_MAX_DEPTH = 8
_MAX_INTEGER = 2**53 - 1

# Where `_is_plain`, this is RFC 8785's form at an eighth of the cost: keys of ASCII
# sort alike by code points and by UTF-16 units, and json escapes in strings what RFC
# 8785 escapes, in the same way. A test holds the two against each other.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")
)
_LEAVES = frozenset({str, bool, type(None)})


class LedgerCutError(VerificationError, LedgerError):
    """Records are missing, or the last one is torn."""

    code = "ledger_cut"


class LedgerEditedError(VerificationError, LedgerError):
    """Records were changed, added, or are not records at all."""

    code = "ledger_edited"


class LedgerOrderError(VerificationError, LedgerError):
    """All records are there, in another order than they were written."""

    code = "ledger_order"


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The size of a ledger and its Merkle root as a text digest."""

    size: int
    root: str


@dataclass(frozen=True, slots=True)
class Rank:
    """One of `world` processes that train together, counted from 0."""

    rank: int
    world: int

    def to_json(self) -> dict[str, int]:
        """The members that its records carry."""
        return {"rank": self.rank, "world": self.world}


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


def record_line(record: dict[str, Any]) -> bytes:
    """The RFC 8785 form of a record, which is its line without the newline.

    Raises:
        FormatError: a float, an integer beyond 2^53, a lone surrogate, a value that is
            not JSON, more than 8 levels or more than 1 MiB.
    """
    if _is_plain(record, _MAX_DEPTH):
        try:
            line = _ENCODER.encode(record).encode()
        except UnicodeEncodeError:
            raise FormatError("a text holds a lone surrogate") from None
    else:
        reject_floats(record)
        line = canonical(record)
        read_object(line, max_bytes=len(line), max_depth=_MAX_DEPTH)
    if len(line) > MAX_RECORD_BYTES:
        raise FormatError(
            f"expected at most {MAX_RECORD_BYTES} bytes, found {len(line)}"
        )
    return line


def _is_plain(value: object, depth: int) -> bool:
    kind = type(value)
    if kind in _LEAVES:
        return True
    if isinstance(value, dict):
        return (
            kind is dict
            and depth > 0
            and all(type(key) is str and key.isascii() for key in value)
            and all(_is_plain(item, depth - 1) for item in value.values())
        )
    if isinstance(value, list):
        # Most lists hold texts alone; a set of types is then found in C.
        return (
            kind is list
            and depth > 0
            and (
                _LEAVES.issuperset(map(type, value))
                or all(_is_plain(item, depth - 1) for item in value)
            )
        )
    return type(value) is int and -_MAX_INTEGER <= value <= _MAX_INTEGER


def root_text(frontier: Frontier) -> str:
    """The root of a tree as a text digest."""
    return digest_text(frontier.root())


def open_ledger(path: Path) -> BinaryIO:
    """The file, to be read.

    Raises:
        LedgerError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise LedgerError(f"ledger {path}: {error.strerror}") from error


def lines(file: BinaryIO, path: Path, *, torn_ok: bool = False) -> Iterator[bytes]:
    """The lines without their newlines. A torn last one ends them, or raises.

    Raises:
        LedgerCutError: the last line has no end.
        LedgerEditedError: a line is longer than any record.
    """
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


def parse_record(line: bytes, number: int, path: Path) -> dict[str, Any]:
    """The record of a line.

    Raises:
        LedgerEditedError: it is none.
    """
    try:
        return read_object(line, max_bytes=MAX_RECORD_BYTES, max_depth=_MAX_DEPTH)
    except FormatError as error:
        raise LedgerEditedError(f"ledger {path}: record {number}: {error}") from error


def record_seq(record: dict[str, Any], number: int, path: Path) -> int:
    """The sequence number that a record states.

    Raises:
        LedgerEditedError: it states none.
    """
    found = record.get("seq")
    if type(found) is not int:  # True and 1.0 equal 1 in Python
        raise LedgerEditedError(f"ledger {path}: record {number} has no number")
    return found
