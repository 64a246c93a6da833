"""States that a ledger is expected to have had, compared while it is read."""

from collections.abc import Sequence
from pathlib import Path

from attest.digests import digests_equal
from attest.log.merkle import Frontier
from attest.training.ledger.form import (
    LedgerCutError,
    LedgerEditedError,
    LedgerSummary,
    root_text,
)

__all__ = ["Heads"]

_HINT = "ask for the ledger that these roots are of"


class Heads:
    """Expected states, in any order; `check` after every record, then `close`."""

    def __init__(self, path: Path, expected: Sequence[LedgerSummary]) -> None:
        self._path = path
        self._rest = sorted(expected, key=lambda head: head.size, reverse=True)
        self._good = 0
        self._differs: LedgerEditedError | None = None

    def check(self, frontier: Frontier) -> None:
        """Compare the states of this size; what differs is raised by `close`."""
        while self._rest and self._rest[-1].size <= frontier.size:
            head, found = self._rest.pop(), root_text(frontier)
            if self._differs is not None:
                continue
            if head.size == frontier.size and digests_equal(found, head.root):
                self._good = head.size
            else:
                self._differs = LedgerEditedError(
                    f"ledger {self._path}: expected root {head.root} at {head.size} "
                    f"records, found {found}; the change lies in records "
                    f"{self._good} to {head.size - 1}",
                    hint=_HINT,
                )

    def close(self, frontier: Frontier) -> None:
        """Return when all states were reached, with the roots that were expected.

        Raises:
            LedgerEditedError: a root differs; names the records that hold the change.
            LedgerCutError: the ledger ended before.
        """
        if self._differs is not None:
            raise self._differs
        if self._rest:
            raise LedgerCutError(
                f"ledger {self._path}: expected {self._rest[0].size} records, found "
                f"{frontier.size}",
                hint=_HINT,
            )
