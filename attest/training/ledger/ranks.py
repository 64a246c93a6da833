"""One ledger out of those of several ranks that trained together.

The merged ledger begins with a record of kind `ranks`: for each rank the size and root
of its own ledger. Then come all their records, each with `rankSeq`, its number there,
and with `void` where a resumption took its place, so that the ledger of every rank can
be made again from it. Records that count stand by (stage, step, part), then by rank.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.errors import FormatError, LedgerError
from attest.log.merkle import Frontier
from attest.training.ledger.form import (
    LedgerEditedError,
    LedgerSummary,
    record_line,
    root_text,
)
from attest.training.ledger.reading import (
    MERGED_KIND,
    Void,
    is_local,
    read_ledger,
    resumed,
    verify_ledger,
)
from attest.training.ledger.writer import Ledger

__all__ = ["Merged", "RankGapError", "RanksCheck", "merge_ledgers"]

_MAX_RANKS = 65_536


class RankGapError(LedgerError):
    """A rank, or a step of one, is not there; or two ledgers are of one rank."""

    code = "rank_gap"


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of several ledgers.

    Attributes:
        head: size and root of the merged ledger.
        stages: its state after the last record of every stage that counts, in order;
            that of the last stage is `head`.
    """

    head: LedgerSummary
    stages: dict[str, LedgerSummary]


def merge_ledgers(paths: Iterable[Path], out: Path) -> Merged:
    """Write the ledger of all ranks, the same whatever the order of `paths`.

    Raises:
        RankGapError: a rank is missing or given twice, or ranks logged different steps.
            Steps that a resumption took the place of may differ.
        LedgerError: a ledger is broken, or `out` exists.
    """
    ranks = _sorted(paths)
    with Ledger.create(out) as ledger:
        try:
            return _merge(ranks, ledger)
        except BaseException:
            out.unlink()
            raise


def _merge(ranks: Sequence["_Rank"], ledger: Ledger) -> Merged:
    heads = [
        {"rank": rank.rank, "treeSize": rank.head.size, "root": rank.head.root}
        for rank in ranks
    ]
    ledger.append({"kind": MERGED_KIND, "world": len(ranks), "ranks": heads})
    ends: dict[str, LedgerSummary] = {}
    for round_ in _rounds(ranks):
        stage = None
        for record in round_:
            ledger.append(record)
            if _counts(record):
                stage = record.get("stage", stage)
        if stage is not None:
            ends[str(stage)] = ledger.summary()
    head = ledger.summary()
    if ends:
        ends[[*ends][-1]] = head
    return Merged(head, ends)


@dataclass(frozen=True, slots=True)
class _Rank:
    path: Path
    rank: int
    world: int
    head: LedgerSummary
    void: Void

    def records(self) -> Iterator[dict[str, Any]]:
        """As they will stand in the merged ledger, but for their number there."""
        for number, record in enumerate(read_ledger(self.path)):
            del record["seq"]
            record["rankSeq"] = number
            if number in self.void:
                record["void"] = True
            yield record


def _sorted(paths: Iterable[Path]) -> list[_Rank]:
    ranks = sorted(map(_open, paths), key=lambda rank: rank.rank)
    worlds = {rank.world for rank in ranks}
    found = [rank.rank for rank in ranks]
    if len(worlds) != 1 or found != list(range(*worlds)):
        raise RankGapError(
            f"ledgers: expected ranks 0 to {max(worlds, default=1) - 1}, each once, "
            f"found {', '.join(map(str, found)) or 'none'}",
            hint="name the ledger of every rank that trained",
        )
    return ranks


def _open(path: Path) -> _Rank:
    whose: set[tuple[Any, Any]] = set()
    void = Void()

    def visit(record: dict[str, Any]) -> None:
        whose.add((repr(record.get("rank")), repr(record.get("world"))))
        if record.get("kind") == "resume":
            void.add(resumed(record, path))

    head = verify_ledger(path, visit=visit)
    first = next(read_ledger(path), {})
    rank, world = first.get("rank"), first.get("world")
    if (
        type(rank) is not int
        or type(world) is not int
        or not 0 <= rank < world <= _MAX_RANKS
        or len(whose) != 1
    ):
        raise RankGapError(
            f"ledger {path}: expected records of one rank, found {len(whose)} kinds",
            hint="write it with Ledger.create(path, rank=Rank(...)); merge each once",
        )
    return _Rank(path, rank, world, head, void)


def _counts(record: dict[str, Any]) -> bool:
    return not is_local(record) and "void" not in record


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in ("kind", "stage", "step", "part"))


def _rounds(ranks: Sequence[_Rank]) -> Iterator[list[dict[str, Any]]]:
    """The next record that counts of every rank, each after what does not before it."""
    streams = [rank.records() for rank in ranks]
    while True:
        parts = [_until_counting(stream) for stream in streams]
        ends = [part[-1] if part and _counts(part[-1]) else None for part in parts]
        _check_same(ranks, ends)
        yield [record for part in parts for record in part]
        if ends[0] is None:
            return


def _until_counting(stream: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for record in stream:
        found.append(record)
        if _counts(record):
            break
    return found


def _check_same(ranks: Sequence[_Rank], ends: Sequence[dict[str, Any] | None]) -> None:
    keys = [None if end is None else _key(end) for end in ends]
    for rank, key in zip(ranks, keys, strict=True):
        if key != keys[0]:
            raise RankGapError(
                f"ledger {rank.path}: expected of rank {rank.rank} what rank 0 has, "
                f"{_said(keys[0])}, found {_said(key)}",
                hint="a step of one rank is not there; let the run go on until all "
                "ranks have logged it",
            )


def _said(key: tuple[Any, ...] | None) -> str:
    if key is None:
        return "nothing more"
    kind, stage, step, part = key
    words = [f"{kind} {step}" if step is not None else str(kind), f"of stage {stage}"]
    return " ".join([*words, *([] if part is None else [f"part {part}"])])


class RanksCheck:
    """Whether a merged ledger is made of the ledgers that its first record names.

    Give every record to `visit`, then call `check`. A ledger that was not merged passes
    unless a record says that it was.
    """

    def __init__(self) -> None:
        self._ranks: list[_Replay] | None = None
        self._stated: list[Any] = []
        self._problem: str | None = None
        self._turn: list[tuple[Any, ...]] = []

    @property
    def count(self) -> int:
        """How many ranks the ledger was merged from; 0 where it was not merged."""
        return len(self._ranks or ())

    def visit(self, record: dict[str, Any]) -> None:
        """Take the next record; never raises."""
        if self._problem is not None:
            return
        if record.get("kind") == MERGED_KIND and record.get("seq") == 0:
            self._begin(record)
        elif self._ranks is None:
            if "rankSeq" in record or "void" in record:
                self._problem = f"record {record.get('seq')}: was not merged"
        else:
            self._problem = self._take(record, self._ranks)

    def check(self, path: Path) -> None:
        """Return when every rank's ledger was made again with its size and root.

        Raises:
            LedgerEditedError: it was not; names the rank or the record.
        """
        if self._problem is None and self._turn:
            self._problem = "ends before all ranks had their turn"
        if self._problem is None and self._ranks is not None:
            found = [rank.summary(i) for i, rank in enumerate(self._ranks)]
            if found != self._stated:
                self._problem = "the ranks' own ledgers are not those that it names"
            elif not all(rank.is_marked() for rank in self._ranks):
                self._problem = "marks other records as void than a resumption does"
        if self._problem is not None:
            raise LedgerEditedError(
                f"ledger {path}: {self._problem}",
                hint="merge the ranks' ledgers anew: attest ledger merge OUT FILE...",
            )

    def _begin(self, record: dict[str, Any]) -> None:
        stated, world = record.get("ranks"), record.get("world")
        if not isinstance(stated, list) or not 0 < len(stated) <= _MAX_RANKS:
            self._problem = "record 0: names no ranks"
        elif world != len(stated):
            self._problem = "record 0: names other ranks than it says there are"
        else:
            self._stated = stated
            self._ranks = [_Replay(Frontier(), Void(), set()) for _ in stated]

    def _take(self, record: dict[str, Any], ranks: list["_Replay"]) -> str | None:
        number, rank = record.get("seq"), record.get("rank")
        if type(rank) is not int or not 0 <= rank < len(ranks):
            return f"record {number}: is of no rank"
        if _counts(record):
            # In rounds: the same of every rank, one after the other.
            expected = len(self._turn)
            self._turn.append(_key(record))
            if rank != expected or self._turn[-1] != self._turn[0]:
                return f"record {number}: stands where rank {expected} has its turn"
            if len(self._turn) == len(ranks):
                self._turn = []
        return ranks[rank].take(record)


@dataclass(slots=True)
class _Replay:
    """The ledger of one rank, made again from its records in the merged one."""

    frontier: Frontier
    void: Void
    marked: set[int]

    def take(self, record: dict[str, Any]) -> str | None:
        own = {k: v for k, v in record.items() if k not in ("rankSeq", "void")}
        own["seq"] = record.get("rankSeq")
        if own["seq"] != self.frontier.size or type(own["seq"]) is not int:
            return f"record {record.get('seq')}: is out of its rank's order"
        if "void" in record:
            self.marked.add(own["seq"])
        if record.get("kind") == "resume":
            size = record.get("size")
            if type(size) is not int or not 0 <= size <= own["seq"]:
                return f"record {record.get('seq')}: resumes from no earlier size"
            self.void.add(range(size, own["seq"]))
        try:
            self.frontier.append(record_line(own))
        except FormatError as error:
            return f"record {record.get('seq')}: {error}"
        return None

    def is_marked(self) -> bool:
        """Whether all that a resumption took the place of is marked, and no more."""
        marked = all(number in self.void for number in self.marked)
        return marked and len(self.marked) == len(self.void)

    def summary(self, rank: int) -> dict[str, Any]:
        root = root_text(self.frontier)
        return {"rank": rank, "treeSize": self.frontier.size, "root": root}
