from collections import Counter

import pytest
from fakes.training import CONSTITUTION, OVERLAPPING
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import TrainingError
from attest.training.constitution import (
    PrincipleWithoutDataError,
    UnknownPrincipleError,
)
from attest.training.hf.sampling import ChunkSampler, Shape
from attest.training.routing import anchor_counts

ANCHORS = {p.id: anchor_counts(p, CONSTITUTION) for p in CONSTITUTION.routed}


def rows_of(**counts):
    return [(f"{name}-{i}", name) for name, n in counts.items() for i in range(n)]


def overlapping(size=4, seed=0, counts=None, **shape):
    counts = counts or {"deep": 9, "shallow": 4, "middle": 2}
    rows = rows_of(**counts)
    return rows, ChunkSampler(rows, OVERLAPPING, Shape(size, **shape), seed=seed)


@given(
    size=st.integers(1, 9),
    counts=st.fixed_dictionaries(
        {name: st.integers(1, 20) for name in ("deep", "shallow", "middle")}
    ),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 1000),
)
def test_every_row_leads_and_no_chunk_mixes(size, counts, seed, epoch):
    rows, sampler = overlapping(size, seed, counts)
    chunks = sampler.chunks(epoch)
    seen = Counter(row for chunk in chunks for row in chunk.rows)
    assert set(seen) == set(range(len(rows)))
    for name, count in counts.items():
        mine = [chunk for chunk in chunks if chunk.principle == name]
        assert len(mine) == -(-count // size)
        dealt = Counter(row for chunk in mine for row in chunk.rows)
        assert {rows[row][1] for row in dealt} == {name}
        # All rows before one again, so counts differ by one at most.
        assert max(dealt.values()) - min(dealt.values()) <= 1
    assert all(len(chunk.rows) == size for chunk in chunks)


def test_anchors_join_every_chunk():
    rows = rows_of(refuse=6, unsure=6, tone=6, keep=6)
    sampler = ChunkSampler(rows, CONSTITUTION, Shape(16), seed=0)
    for chunk in sampler.chunks(0):
        counts = Counter(rows[row][1] for row in chunk.rows)
        anchors = ANCHORS[chunk.principle]
        assert counts == {**anchors, chunk.principle: 16 - sum(anchors.values())}


def test_an_epoch_is_the_same_whoever_deals_it():
    _, one = overlapping(seed=3)
    _, two = overlapping(seed=3)
    later = one.chunks(5)
    one.chunks(0)
    assert one.chunks(5) == later == two.chunks(5)
    assert one.chunks(5) != one.chunks(6)
    assert overlapping(seed=4)[1].chunks(5) != later


def test_order_of_indices():
    _, sampler = overlapping()
    sampler.set_epoch(2)
    assert (
        len(sampler)
        == len(list(sampler))
        == sum(len(chunk.rows) for chunk in sampler.chunks(2))
    )
    assert list(sampler) == [row for c in sampler.chunks(2) for row in c.rows]


def test_generations_repeat_as_trl_repeats():
    """As `RepeatSampler`: each row `each` times, the whole chunk `repeat` times."""
    _, sampler = overlapping(2, each=3, repeat=2, steps=2)
    (first, second), length = sampler.chunks(0)[0].rows, len(sampler)
    assert list(sampler)[:12] == ([first] * 3 + [second] * 3) * 2
    assert length == len(list(sampler))
    assert sampler.steps == 2 * len(sampler.chunks(0))


def test_the_leader_of_a_step():
    rows, sampler = overlapping(steps=2, repeat=2)
    chunks = sampler.chunks(0) + sampler.chunks(1)
    for step in range(2 * len(chunks)):
        chunk = chunks[step // 2]
        dealt = [[rows[row] for row in chunk.rows[:2]], [rows[chunk.rows[-1]]]]
        assert sampler.leader(step, dealt) == chunk.principle


def test_rows_that_were_not_dealt():
    rows, sampler = overlapping()
    chunk = sampler.chunks(0)[0]
    other = next(row for row in range(len(rows)) if row not in chunk.rows)
    with pytest.raises(TrainingError, match="expected rows dealt for"):
        sampler.leader(0, [[rows[other]]])


def test_a_row_of_an_unknown_principle():
    with pytest.raises(UnknownPrincipleError, match="nobody"):
        overlapping(counts={"deep": 1, "shallow": 1, "middle": 1, "nobody": 1})


@pytest.mark.parametrize("missing", ["refuse", "keep"])
def test_a_principle_without_rows(missing):
    counts = {"refuse": 3, "unsure": 3, "tone": 3, "keep": 3}
    del counts[missing]
    with pytest.raises(PrincipleWithoutDataError, match=f"'{missing}': has no rows"):
        ChunkSampler(rows_of(**counts), CONSTITUTION, Shape(16), seed=0)


def test_no_room_beside_the_anchors():
    rows = rows_of(refuse=3, unsure=3, tone=3, keep=3)
    with pytest.raises(TrainingError, match="12 rows per step leave none"):
        ChunkSampler(rows, CONSTITUTION, Shape(12), seed=0)
