"""Reading a ledger back, and holding it against what was signed."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attest.errors import LedgerError
from attest.log.merkle import Frontier
from attest.training.ledger.form import (
    LedgerCutError,
    LedgerEditedError,
    LedgerOrderError,
    LedgerSummary,
    lines,
    open_ledger,
    parse_record,
    record_seq,
    root_text,
)
from attest.training.ledger.heads import Heads

__all__ = [
    "MERGED_KIND",
    "Void",
    "counted",
    "is_local",
    "read_ledger",
    "resumed",
    "verify_ledger",
]

# Of the record that begins a ledger which was merged from those of several ranks.
MERGED_KIND = "ranks"
# What a process says of itself and not of the training; several need not agree on it.
_LOCAL_KINDS = ("checkpoint", "resume")


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The records in file order, unchecked but for their form.

    Raises:
        LedgerError: as `verify_ledger`, without its checks of order, size and root.
    """
    with open_ledger(path) as file:
        for number, line in enumerate(lines(file, path)):
            yield parse_record(line, number, path)


def verify_ledger(
    path: Path,
    *expected: LedgerSummary,
    visit: Callable[[dict[str, Any]], None] | None = None,
) -> LedgerSummary:
    """Check a ledger against the sizes and roots that were signed for it.

    A manifest lists one summary per stage: each must be the state of this ledger at
    that size, and the largest must be the whole of it. Without any, only the form and
    the order are checked, which an editor of the file can restore.

    Args:
        path: the ledger.
        expected: sizes and roots, in any order.
        visit: called with every record, before anything is known about the roots.

    Raises:
        LedgerCutError: shorter than expected, a record missing, or the last one torn.
        LedgerOrderError: the records are complete and out of order.
        LedgerEditedError: a root differs, there are more records than expected, or a
            line is not a record. The message names the range that holds the change.
        LedgerError: the file cannot be read.
    """
    heads = Heads(path, expected)
    frontier, ordered = Frontier(), True
    heads.check(frontier)
    with open_ledger(path) as file:
        for line in lines(file, path):
            record = parse_record(line, frontier.size, path)
            ordered &= record_seq(record, frontier.size, path) == frontier.size
            frontier.append(line)
            heads.check(frontier)
            if visit is not None:
                visit(record)
    if not ordered:
        raise _disorder(path)
    heads.close(frontier)
    found = LedgerSummary(frontier.size, root_text(frontier))
    wanted = max((head.size for head in expected), default=found.size)
    if found.size > wanted:
        raise LedgerEditedError(
            f"ledger {path}: expected {wanted} records, found {found.size}; "
            "records were added after signing"
        )
    return found


def counted(path: Path) -> Iterator[dict[str, Any]]:
    """The records that count: those whose place no resumption took, in file order.

    A run that was killed goes on from a checkpoint and makes some steps again. Its
    `resume` record names the number of records (`size`) that stood at the checkpoint;
    those between are what happened in a process that is gone, and count no more. In a
    merged ledger they are marked.

    Raises:
        LedgerError: as `read_ledger`, or a `resume` record names no earlier size.
    """
    merged = next(read_ledger(path), {}).get("kind") == MERGED_KIND
    void = Void()
    for record in () if merged else read_ledger(path):
        if record.get("kind") == "resume":
            void.add(resumed(record, path))
    for number, record in enumerate(read_ledger(path)):
        if not (("void" in record) if merged else number in void):
            yield record


def is_local(record: dict[str, Any]) -> bool:
    """Whether a record is about the process that wrote it, not about the training."""
    return record.get("kind") in _LOCAL_KINDS


class Void:
    """Numbers of records that count no more: a union of ranges, each added in order.

    Ranges end where their `resume` record stands, so every one ends after those before.
    """

    def __init__(self) -> None:
        self._parts: list[range] = []

    def add(self, part: range) -> None:
        """Take a range in; empty ones change nothing."""
        start = part.start
        while self._parts and self._parts[-1].stop >= start:
            start = min(start, self._parts.pop().start)
        if start < part.stop:
            self._parts.append(range(start, part.stop))

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._parts, number, key=lambda part: part.start)
        return place > 0 and number < self._parts[place - 1].stop

    def __len__(self) -> int:
        return sum(map(len, self._parts))


def resumed(record: dict[str, Any], path: Path) -> range:
    """The numbers of the records that a `resume` record takes the place of.

    Raises:
        LedgerEditedError: it names no earlier size of the ledger.
    """
    number, size = record.get("seq"), record.get("size")
    if type(number) is not int or type(size) is not int or not 0 <= size <= number:
        raise LedgerEditedError(
            f"ledger {path}: record {number}: expected an earlier size, found {size!r}"
        )
    return range(size, number)


def _disorder(path: Path) -> LedgerError:
    """What is wrong with the numbers of a ledger, read once more to tell."""
    numbers = [int(record["seq"]) for record in read_ledger(path)]
    wanted = range(len(numbers))
    present = set(numbers)
    if present == set(wanted):
        where = next(n for n in wanted if numbers[n] != n)
        return LedgerOrderError(
            f"ledger {path}: expected record {where}, found {numbers[where]}; all "
            f"{len(numbers)} are there, out of order"
        )
    missing = next(n for n in range(len(numbers) + 1) if n not in present)
    if len(present) < len(numbers):
        return LedgerEditedError(
            f"ledger {path}: record {missing} is missing and another stands twice"
        )
    return LedgerCutError(f"ledger {path}: record {missing} is missing")
