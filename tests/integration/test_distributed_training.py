"""Two processes train together over gloo: DistributedDataParallel, FSDP2, Trainer."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attest.training.ledger import read_ledger
from attest.training.ledger.ranks import merge_ledgers
from attest.training.ledger.reading import counted

pytestmark = pytest.mark.training

TESTS = Path(__file__).parents[1]
# What differs between the ranks' records of one step, and nothing else does.
OF_A_RANK = {"seq", "rank", "samples", "principles", "batch", "loss"}


def launch(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    common = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fakes.ranks", str(folder)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [0, 0], "\n".join(error[-2000:] for error in errors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("ranks")
    launch(made)
    return made


@pytest.fixture
def ranks(folder, request):
    case = request.param
    return [
        json.loads((folder / f"{case}-{rank}.json").read_bytes()) for rank in (0, 1)
    ]


@pytest.mark.parametrize(
    ("ranks", "mechanism"),
    [("ddp-unused", "toggle"), ("ddp", "clear")],
    indirect=["ranks"],
)
def test_replicas_train_like_one_process(ranks, mechanism):
    for rank in ranks:
        assert rank["mechanism"] == mechanism
        assert rank["differs_from_one_process"] == []
        assert rank["outside"] == [[], []]
        assert rank["same_energy"]
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize("ranks", ["fsdp2"], indirect=True)
def test_shards_are_confined(ranks):
    for rank in ranks:
        assert rank["mechanism"] == "clear"
        assert rank["outside"] == [[], []]
        assert rank["mixed"] == []
        # The norm is summed in another order, which the clipping factor shows.
        assert rank["gap"] < 1e-4
        assert rank["energy_gap"] < 1e-3


@pytest.mark.parametrize("ranks", ["mixed-ddp", "mixed-ddp-unused"], indirect=True)
def test_ranks_with_different_principles(ranks):
    assert ranks[0] == ranks[1]
    assert ranks[0]["order"] == ["deep", "shallow", "middle"]
    assert ranks[0]["gap"] < 1e-6


@pytest.mark.parametrize("ranks", ["other-routes"], indirect=True)
def test_ranks_in_different_routes_stop(ranks):
    for rank, name in zip(ranks, ("deep", "shallow"), strict=True):
        assert f"this rank trains '{name}'" in rank["error"]
        assert rank["same"]


@pytest.mark.parametrize("ranks", ["bad-row"], indirect=True)
def test_a_bad_row_on_one_rank_stops_all(ranks):
    assert ranks == [{"code": "non_finite", "same": True}] * 2


@pytest.mark.parametrize("ranks", ["trainer"], indirect=True)
def test_trainer_on_two_ranks(ranks, folder):
    assert ranks[0] == ranks[1]
    assert ranks[0]["mechanism"] == "toggle"
    assert ranks[0]["resumed"] == ranks[0]["weights"]
    ledgers = [
        list(read_ledger(folder / "whole" / f"ledger-rank{rank:05d}.jsonl"))
        for rank in (0, 1)
    ]
    for one, two in zip(*ledgers, strict=True):
        assert (one["rank"], two["rank"], one["world"]) == (0, 1, 2)
        if one["kind"] == "step":
            assert len(one["samples"]) == len(two["samples"]) == 8
        same = one.keys() - OF_A_RANK
        assert {key: one[key] for key in same} == {key: two[key] for key in same}
    for run in ("whole", "stopped"):
        paths = sorted((folder / run).glob("ledger-rank*.jsonl"))
        merged = merge_ledgers(paths, folder / f"{run}.jsonl")
        steps = [r for r in counted(folder / f"{run}.jsonl") if r["kind"] == "step"]
        assert [(r["step"], r["rank"]) for r in steps] == [
            (step, rank) for step in range(6) for rank in (0, 1)
        ]
        assert list(merged.stages) == ["governed"]
    kinds = [
        record["kind"]
        for record in read_ledger(folder / "stopped" / "ledger-rank00001.jsonl")
    ]
    assert kinds.count("resume") == 1
    assert kinds.count("step") == 4 + 3


@pytest.mark.parametrize("ranks", ["sharded-trainer"], indirect=True)
def test_trainer_on_shards(ranks):
    assert ranks[0] == ranks[1]
    assert ranks[0]["mechanism"] == "clear"
    assert ranks[0]["sharded"]
    assert ranks[0]["still"] == [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
    ]
    assert "grouped=False on shards" in ranks[0]["refusal"]
