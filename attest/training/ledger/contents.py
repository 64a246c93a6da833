"""What the records of a ledger say that a statement about the run says too."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attest.errors import RunMismatchError
from attest.training._mismatch import expect_equal, mismatch
from attest.training.constitution import Constitution
from attest.training.ledger.form import LedgerSummary
from attest.training.ledger.reading import MERGED_KIND, is_local

__all__ = ["Events"]


class Events:
    """Looks at every record, and says at the end what does not fit the statement.

    Args:
        constitution: whose digest and principle ids records must carry, where they
            carry any; None checks neither.
        schedule: the digest of the schedule, likewise.
        routes: by principle, the digest of the route that its steps must carry.

    Attributes:
        resumed: states of the ledger that it says a run went on from.
    """

    def __init__(
        self,
        constitution: Constitution | None,
        schedule: str | None,
        routes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._routes = routes
        self._wanted = {"schedule": schedule}
        self._ids: set[str] | None = None
        if constitution is not None:
            self._wanted["constitution"] = constitution.digest
            self._ids = {principle.id for principle in constitution.principles}
        self._problem: RunMismatchError | None = None
        self._merged = False
        self.resumed: list[LedgerSummary] = []
        # Where a stage's first and last record stand.
        self._spans: dict[str, tuple[int, int]] = {}

    def visit(self, record: dict[str, Any]) -> None:
        """Take the next record; never raises, since edits are to be found first."""
        if self._problem is None:
            try:
                self._look(record)
            except RunMismatchError as error:
                self._problem = error

    def check(self, names: Sequence[str], heads: Sequence[LedgerSummary]) -> None:
        """Return when all records fit, and the stages' records stand below their heads.

        Args:
            names: the stages of the statement, in order.
            heads: the state of the ledger after each.

        Raises:
            RunMismatchError: names the record, what was expected and what was found.
        """
        self.close()
        expect_equal("ledger.jsonl, stages", list(names), list(self._spans))
        start = 0
        for name, head in zip(names, heads, strict=True):
            first, last = self._spans[name]
            if not start <= first <= last < head.size:
                raise mismatch(
                    f"ledger.jsonl, records of stage {name}",
                    f"all in {start} to {head.size - 1}",
                    f"{first} to {last}",
                )
            start = head.size

    def close(self) -> None:
        """Return when no record contradicts what is known, or itself.

        Raises:
            RunMismatchError: as `check`.
        """
        if self._problem is not None:
            raise self._problem

    def _look(self, record: dict[str, Any]) -> None:
        number, kind = record["seq"], record.get("kind")
        place = f"ledger.jsonl, record {number}"
        self._merged |= kind == MERGED_KIND
        if self._merged and "void" in record:
            return
        # Numbers in a merged ledger are those of one rank: `RanksCheck` follows them.
        if kind == "resume" and not self._merged:
            self._resume(record, place)
        stage = record.get("stage")
        if isinstance(stage, str) and not is_local(record):
            first, _ = self._spans.get(stage, (number, number))
            self._spans[stage] = (first, number)
        for key, wanted in self._wanted.items():
            if wanted is not None and key in record:
                expect_equal(f"{place}, {key}", wanted, record[key])
        self._look_at_principles(record, place)

    def _look_at_principles(self, record: dict[str, Any], place: str) -> None:
        principle = record.get("principle")
        if "route" in record and isinstance(principle, str) and self._routes:
            wanted = self._routes.get(principle)
            expect_equal(f"{place}, route of {principle!r}", wanted, record["route"])
        more = record.get("principles")
        for found in (principle, *(more if type(more) is list else ())):
            if (
                self._ids is not None
                and found is not None
                and not (type(found) is str and found in self._ids)
            ):
                raise mismatch(
                    f"{place}, principle", "one of the constitution", repr(found)
                )

    def _resume(self, record: dict[str, Any], place: str) -> None:
        """What was logged after the checkpoint counts no more."""
        size, root = record.get("size"), record.get("root")
        if type(size) is not int or not 0 <= size <= record["seq"]:
            raise mismatch(f"{place}, size", "an earlier one", repr(size))
        self.resumed.append(LedgerSummary(size, str(root)))
        self._spans = {
            name: (first, min(last, size - 1))
            for name, (first, last) in self._spans.items()
            if first < size
        }
