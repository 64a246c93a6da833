"""Which rows each optimizer step gets: all for one principle, with its anchors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from attest.errors import TrainingError
from attest.training.constitution import Constitution, PrincipleWithoutDataError
from attest.training.hf.rows import Row
from attest.training.routing import anchor_counts

__all__ = ["Chunk", "ChunkSampler", "Shape"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are drawn together, for steps of one principle."""

    principle: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a trainer takes rows.

    Attributes:
        size: different rows in a chunk, over all ranks.
        each: how often a row is given in a row, as many as it has generations.
        repeat: how often the whole chunk is given.
        steps: optimizer steps that one chunk makes.
    """

    size: int
    each: int = 1
    repeat: int = 1
    steps: int = 1


class ChunkSampler(torch.utils.data.Sampler[int]):
    """Deals chunks: rows of one principle, and the anchors that it asks for.

    Every routed principle leads so many chunks per epoch that each of its rows is in
    one; where they do not come out even, its last chunk has rows twice. Chunks come in
    random order. Anchors are dealt from shuffled decks of their own. An epoch is made
    from seed and epoch number alone, so all ranks and a resumed run deal alike.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        constitution: Constitution,
        shape: Shape,
        *,
        seed: int,
    ) -> None:
        """`rows` has sample id and principle of every row of the data set.

        Raises:
            UnknownPrincipleError: a row names a principle that there is not.
            PrincipleWithoutDataError: a routed principle or an anchor has no rows.
            TrainingError: a chunk has no room for the anchors and a row of its own.
        """
        self.shape, self.epoch, self._seed = shape, 0, seed
        self._tags, self._known = rows, (-1, tuple[Chunk, ...]())
        self._rows: dict[str, list[int]] = {}
        for row, (_, name) in enumerate(rows):
            self._rows.setdefault(constitution.principle(name).id, []).append(row)
        self._anchors: dict[str, Mapping[str, int]] = {}
        for principle in constitution.routed:
            self._anchors[principle.id] = anchor_counts(principle, constitution)
            self._check(principle.id)

    def __len__(self) -> int:
        per_chunk = self.shape.size * self.shape.each * self.shape.repeat
        return per_chunk * sum(map(self._count, self._anchors))

    def __iter__(self) -> Iterator[int]:
        for chunk in self.chunks(self.epoch):
            for _ in range(self.shape.repeat):
                for row in chunk.rows:
                    yield from [row] * self.shape.each

    def set_epoch(self, epoch: int) -> None:
        """Deal this epoch from now on."""
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return self.shape.steps * sum(map(self._count, self._anchors))

    def leader(self, step: int, batches: Sequence[Sequence[Row]]) -> str:
        """The principle of an optimizer step, counted from the beginning of training.

        Raises:
            TrainingError: one of the step's rows was not dealt for it.
        """
        epoch, number = divmod(step, self.steps)
        chunk = self.chunks(epoch)[number // self.shape.steps]
        dealt = {self._tags[row] for row in chunk.rows}
        strange = {row for rows in batches for row in rows} - dealt
        if strange:
            raise TrainingError(
                f"step {step}: expected rows dealt for {chunk.principle!r}, found row "
                f"{min(strange)[0]!r}",
                hint="let no other sampler or shuffling stand between data set and "
                "trainer, or set grouped=False",
            )
        return chunk.principle

    def chunks(self, epoch: int) -> tuple[Chunk, ...]:
        """The epoch's chunks in their order."""
        if self._known[0] != epoch:
            self._known = epoch, self._dealt(epoch)
        return self._known[1]

    def _dealt(self, epoch: int) -> tuple[Chunk, ...]:
        random = torch.Generator().manual_seed((self._seed << 20) + epoch)
        decks = {name: _Deck(rows, random) for name, rows in self._rows.items()}
        anchors = {name: _Deck(rows, random) for name, rows in self._rows.items()}
        leaders = [name for name in self._anchors for _ in range(self._count(name))]
        found = []
        for number in torch.randperm(len(leaders), generator=random).tolist():
            leader = leaders[number]
            rows = decks[leader].deal(self._own(leader))
            for name, count in self._anchors[leader].items():
                rows += anchors[name].deal(count)
            order = torch.randperm(len(rows), generator=random).tolist()
            found.append(Chunk(leader, tuple(rows[index] for index in order)))
        return tuple(found)

    def _own(self, principle: str) -> int:
        return self.shape.size - sum(self._anchors[principle].values())

    def _count(self, principle: str) -> int:
        return -(-len(self._rows[principle]) // self._own(principle))

    def _check(self, principle: str) -> None:
        for name in (principle, *self._anchors[principle]):
            if name not in self._rows:
                raise PrincipleWithoutDataError(
                    f"principle {name!r}: has no rows",
                    hint="add rows with this principle id, or take its anchors away",
                )
        if self._own(principle) < 1:
            raise TrainingError(
                f"principle {principle!r}: {self.shape.size} rows per step leave none "
                f"beside {sum(self._anchors[principle].values())} anchors",
                hint="raise per_device_train_batch_size or gradient_accumulation_steps",
            )


class _Deck:
    """Rows dealt in random order, all of them before one again."""

    def __init__(self, rows: Sequence[int], random: torch.Generator) -> None:
        self._rows, self._random = rows, random
        self._left: list[int] = []

    def deal(self, count: int) -> list[int]:
        dealt = []
        for _ in range(count):
            if not self._left:
                order = torch.randperm(len(self._rows), generator=self._random)
                self._left = [self._rows[index] for index in order.tolist()]
            dealt.append(self._left.pop())
        return dealt
