import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.canonical import canonical, read_object
from attest.errors import LedgerError
from attest.training.ledger import (
    Ledger,
    LedgerCutError,
    LedgerEditedError,
    Rank,
    counted,
    read_ledger,
    verify_ledger,
)
from attest.training.ledger.contents import Events
from attest.training.ledger.ranks import RankGapError, RanksCheck, merge_ledgers

WORLD = 3


def step(number, stage="sft", **members):
    return {"kind": "step", "stage": stage, "step": number, **members}


def log(ledger, steps, stage="sft"):
    for number in steps:
        ledger.append(step(number, stage, samples=[f"{ledger.size}"]))


def write(path, rank, *, world=WORLD, steps=4):
    with Ledger.create(path, rank=Rank(rank, world)) as ledger:
        for stage in ("sft", "dpo"):
            ledger.append({"kind": "stage", "stage": stage})
            log(ledger, range(steps), stage)
            ledger.checkpoint(digest=f"{rank}", stage=stage, step=steps)
    return path


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path / f"rank-{rank}", rank) for rank in range(WORLD)]


def check(path, *heads):
    seen = RanksCheck()
    summary = verify_ledger(path, *heads, visit=seen.visit)
    seen.check(path)
    assert seen.count > 0
    return summary


def own(record, rank):
    """The record as it stood in the ledger of its rank."""
    assert record["rank"] == rank
    rest = {k: v for k, v in record.items() if k not in {"rankSeq", "void"}}
    return {**rest, "seq": record["rankSeq"]}


def test_same_bytes_whatever_the_order(paths, tmp_path):
    found = set()
    for number, order in enumerate(itertools.permutations(paths)):
        merge_ledgers(order, tmp_path / f"out-{number}")
        found.add((tmp_path / f"out-{number}").read_bytes())
    assert len(found) == 1


def test_steps_stand_by_step_and_rank(paths, tmp_path):
    merged = merge_ledgers(paths, tmp_path / "out")
    rows = list(read_ledger(tmp_path / "out"))
    places = [(r["stage"], r["step"], r["rank"]) for r in rows if r["kind"] == "step"]
    assert places == [
        (stage, number, rank)
        for stage in ("sft", "dpo")
        for number in range(4)
        for rank in range(WORLD)
    ]
    assert merged.head == check(tmp_path / "out")
    assert list(merged.stages) == ["sft", "dpo"]
    assert merged.stages["dpo"] == merged.head
    assert rows[merged.stages["sft"].size - 1]["stage"] == "sft"
    verify_ledger(tmp_path / "out", *merged.stages.values())


def test_every_ranks_ledger_can_be_made_again(paths, tmp_path):
    merge_ledgers(paths, tmp_path / "out")
    rows = list(read_ledger(tmp_path / "out"))
    for rank, path in enumerate(paths):
        lines = [canonical(own(r, rank)) for r in rows if r.get("rank") == rank]
        assert b"".join(line + b"\n" for line in lines) == path.read_bytes()
        stated = rows[0]["ranks"][rank]
        summary = verify_ledger(path)
        assert stated == {
            "rank": rank,
            "treeSize": summary.size,
            "root": summary.root,
        }


def test_stages_of_a_merged_ledger_fit_a_statement(paths, tmp_path):
    merged = merge_ledgers(paths, tmp_path / "out")
    events = Events(None, None)
    verify_ledger(tmp_path / "out", visit=events.visit)
    events.check(list(merged.stages), list(merged.stages.values()))


@pytest.mark.parametrize("chosen", [[0, 1], [0, 1, 1], [0, 0, 2], [1, 2], [], [0]])
def test_missing_or_repeated_rank(paths, tmp_path, chosen):
    with pytest.raises(RankGapError, match="each once"):
        merge_ledgers([paths[rank] for rank in chosen], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_world(paths, tmp_path):
    other = write(tmp_path / "other", 2, world=4)
    with pytest.raises(RankGapError):
        merge_ledgers([*paths[:2], other], tmp_path / "out")


def test_step_that_one_rank_lacks(paths, tmp_path):
    short = write(tmp_path / "short", 2, steps=3)
    with pytest.raises(
        RankGapError, match=r"rank 2 .*step 3.*found stage of"
    ) as caught:
        merge_ledgers([*paths[:2], short], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert caught.value.code == "rank_gap"


def test_rank_that_stopped_earlier(tmp_path):
    paths = []
    for rank in range(2):
        path = tmp_path / f"{rank}"
        with Ledger.create(path, rank=Rank(rank, 2)) as ledger:
            log(ledger, range(5 - rank))
        paths.append(path)
    with pytest.raises(RankGapError, match="step 4 of stage sft, found nothing more"):
        merge_ledgers(paths, tmp_path / "out")


def test_ledger_of_no_rank(tmp_path):
    with Ledger.create(tmp_path / "single") as ledger:
        ledger.append({"step": 0})
    with pytest.raises(RankGapError, match="of one rank"):
        merge_ledgers([tmp_path / "single"], tmp_path / "out")
    Ledger.create(tmp_path / "empty").close()
    with pytest.raises(RankGapError):
        merge_ledgers([tmp_path / "empty"], tmp_path / "out")


def test_torn_ledger_is_not_merged(paths, tmp_path):
    paths[1].write_bytes(paths[1].read_bytes()[:-3])
    with pytest.raises(LedgerCutError):
        merge_ledgers(paths, tmp_path / "out")


def test_merged_ledger_is_never_overwritten(paths, tmp_path):
    with pytest.raises(LedgerError, match="exists already"):
        merge_ledgers(paths, paths[0])


# --- resumption ----------------------------------------------------------------------


def resumed(path, rank, *, lost, world=2):
    """A rank that lost so many steps after its checkpoint, and made them again."""
    with Ledger.create(path, rank=Rank(rank, world)) as ledger:
        log(ledger, range(3))
        at = ledger.summary()
        members = {"stage": "sft", "step": 3, "digest": f"{rank}"}
        ledger.checkpoint(**members)
        log(ledger, range(3, 3 + lost))
    with Ledger.rejoin(path, at, members, rank=Rank(rank, world)) as ledger:
        log(ledger, range(3, 6))
    return path


@pytest.mark.parametrize("lost", [(1, 2), (0, 2), (2, 0), (3, 3)])
def test_lost_steps_may_differ_between_ranks(tmp_path, lost):
    paths = [resumed(tmp_path / f"{r}", r, lost=n) for r, n in enumerate(lost)]
    merged = merge_ledgers(paths, tmp_path / "out")
    assert check(tmp_path / "out") == merged.head
    rows = [r for r in counted(tmp_path / "out") if r["kind"] == "step"]
    assert [(r["step"], r["rank"]) for r in rows] == [
        (number, rank) for number in range(6) for rank in range(2)
    ]
    void = [r for r in read_ledger(tmp_path / "out") if "void" in r]
    assert len(void) == sum(lost)


# --- tampering with a merged ledger ---------------------------------------------------


def rows_of(path):
    return [
        read_object(line, max_bytes=1 << 20) for line in path.read_bytes().splitlines()
    ]


def _swap(rows):
    rows[4], rows[5] = rows[5], rows[4]


def _other_world(rows):
    rows[0]["world"] = 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[7].update(samples=["other"]),
        lambda rows: rows[7].update(void=True),
        lambda rows: rows[7].update(rank=2),
        lambda rows: rows[7].update(rank=99),
        lambda rows: rows[7].update(rank=True),
        lambda rows: rows[7].update(rankSeq=0),
        lambda rows: rows[7].update(loss=0.5),
        lambda rows: rows[7].pop("rankSeq"),
        lambda rows: rows.pop(7),
        lambda rows: rows.pop(),
        lambda rows: rows.insert(7, dict(rows[7])),
        _swap,
        _other_world,
        lambda rows: rows[0].update(ranks=[]),
        lambda rows: rows[0].update(ranks="all"),
        lambda rows: rows[0]["ranks"].pop(),
        lambda rows: rows[0]["ranks"][1].update(treeSize=1),
        lambda rows: rows[0].update(kind="stage"),
    ],
)
def test_merged_ledger_that_was_changed(paths, tmp_path, spoil):
    out = tmp_path / "out"
    merge_ledgers(paths, out)
    rows = rows_of(out)
    spoil(rows)
    lines = [canonical({**row, "seq": number}) for number, row in enumerate(rows)]
    out.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(LedgerEditedError):
        check(out)


@pytest.mark.parametrize("mark", [True, False])
def test_only_a_resumption_makes_void(tmp_path, mark):
    paths = [resumed(tmp_path / f"{r}", r, lost=2) for r in range(2)]
    out = tmp_path / "out"
    merge_ledgers(paths, out)
    rows = rows_of(out)
    if mark:
        for row in rows[-2:]:
            row["void"] = True
    else:
        for row in rows:
            row.pop("void", None)
    out.write_bytes(b"".join(canonical(row) + b"\n" for row in rows))
    with pytest.raises(LedgerEditedError):
        check(out)


def test_single_ledger_cannot_say_that_records_are_void(tmp_path):
    path = tmp_path / "ledger"
    with Ledger.create(path) as ledger:
        ledger.append({"step": 0, "void": True})
    seen = RanksCheck()
    verify_ledger(path, visit=seen.visit)
    assert seen.count == 0
    with pytest.raises(LedgerEditedError, match="was not merged"):
        seen.check(path)
    assert len(list(counted(path))) == 1


@settings(max_examples=40)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kind", "rank", "rankSeq", "void", "size", "ranks", "x"]),
            st.sampled_from(["resume", "ranks", "step", 0, 1, 2, True, None, []]),
        ),
        max_size=6,
    )
)
def test_whatever_is_in_a_ledger_is_checked_or_refused(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("any") / "ledger"
    with Ledger.create(path) as ledger:
        for record in records:
            ledger.append(record)
    seen = RanksCheck()
    verify_ledger(path, visit=seen.visit)
    try:
        seen.check(path)
    except LedgerEditedError:
        return
    assert seen.count == 0
