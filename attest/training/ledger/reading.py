"""Reading a ledger back, and holding it against what was signed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attest.digests import digests_equal
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

__all__ = ["read_ledger", "verify_ledger"]


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
    heads = _Heads(path, expected)
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
    if heads.differs is not None:
        raise heads.differs
    found = LedgerSummary(frontier.size, root_text(frontier))
    _check_size(found, expected, path)
    return found


class _Heads:
    """The expected states, each compared when the tree has its size."""

    def __init__(self, path: Path, expected: tuple[LedgerSummary, ...]) -> None:
        self._path = path
        self._rest = sorted(expected, key=lambda head: head.size, reverse=True)
        self._good = 0
        self.differs: LedgerEditedError | None = None

    def check(self, frontier: Frontier) -> None:
        while self._rest and self._rest[-1].size <= frontier.size:
            head, found = self._rest.pop(), root_text(frontier)
            if self.differs is not None:
                continue
            if head.size == frontier.size and digests_equal(found, head.root):
                self._good = head.size
            else:
                self.differs = LedgerEditedError(
                    f"ledger {self._path}: expected root {head.root} at {head.size} "
                    f"records, found {found}; the change lies in records "
                    f"{self._good} to {head.size - 1}",
                    hint="ask the training authority for the ledger that it signed",
                )


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
