"""Governed trainers: evaluation, checkpoints, and what goes wrong."""

import json
from collections import Counter

import pytest
import torch
from fakes.trainers import (
    GovernedGRPO,
    GovernedSFT,
    GovernedTrainer,
    governance_in,
    tokens,
    trainer,
)
from fakes.training import CONSTITUTION, fingerprints, tiny_model

from attest.errors import TrainingError
from attest.training.hf import Governance
from attest.training.ledger import read_ledger
from attest.training.router import NonFiniteError

pytestmark = pytest.mark.training


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """TRL tells its makers of every trainer unless it runs in CI."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "1")
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", [GovernedTrainer, GovernedSFT, GovernedGRPO])
def test_evaluation_in_the_middle_leaves_no_trace(kind, tmp_path):
    """Nor do workers that load the rows."""
    plain = trainer(
        kind, tmp_path / "plain", governance_in(tmp_path / "plain"), max_steps=2
    )
    plain.train()
    options = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
    if kind is GovernedTrainer:
        options["dataloader_num_workers"] = 1
    governed = trainer(kind, tmp_path, governance_in(tmp_path), **options)
    governed.train()
    logged = [entry for entry in governed.state.log_history if "eval_loss" in entry]
    assert len(logged) == 2
    records = list(read_ledger(tmp_path / "ledger.jsonl"))
    wanted = list(read_ledger(tmp_path / "plain" / "ledger.jsonl"))
    if kind is GovernedGRPO:  # evaluation draws completions too
        assert [r["samples"] for r in records[1:2]] == [wanted[1]["samples"]]
    else:
        assert records == wanted


# --- checkpoints --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "lora"),
    [(GovernedSFT, False), (GovernedSFT, True), (GovernedTrainer, False)],
)
def test_a_resumed_run_ends_with_the_same_bytes(kind, lora, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 8, "lora": lora}
    whole = trainer(
        kind, tmp_path / "whole", governance_in(tmp_path / "whole"), **options
    )
    whole.train()

    folder = tmp_path / "stopped"
    stopped = trainer(kind, folder, governance_in(folder), **options)
    stop_after(stopped, 5)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    model = tiny_model(seed=0)
    again = trainer(kind, folder, governance_in(folder), model=model, **options)
    again.train(resume_from_checkpoint=True)
    assert fingerprints(again.model) == fingerprints(whole.model)

    records = list(read_ledger(folder / "ledger.jsonl"))
    kinds = Counter(record["kind"] for record in records)
    assert kinds["resume"] == 1
    at = next(i for i, record in enumerate(records) if record["kind"] == "resume")
    assert records[at]["step"] == 3
    steps = [r for r in records[at:] if r["kind"] == "step"]
    wanted = [
        r
        for r in read_ledger(tmp_path / "whole" / "ledger.jsonl")
        if r["kind"] == "step" and r["step"] >= 3
    ]
    assert [{**r, "seq": 0} for r in steps] == [{**r, "seq": 0} for r in wanted]
    assert steps[-1]["counted"] == 8


def test_an_observer_that_is_missing_cannot_go_on(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer(GovernedTrainer, tmp_path, governance_in(tmp_path), **options).train()
    without = Governance(CONSTITUTION, tmp_path / "ledger.jsonl")
    again = trainer(GovernedTrainer, tmp_path, without, **options)
    with pytest.raises(TrainingError, match="expected the observers none"):
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


def stop_after(governed, steps):
    apply = governed.governed.apply

    def stopping(lr):
        if governed.state.global_step == steps:
            raise KeyboardInterrupt
        apply(lr)

    governed.governed.apply = stopping


@pytest.mark.parametrize("what", ["file", "ours", "missing"])
def test_a_checkpoint_that_was_changed_is_refused(what, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer(GovernedTrainer, tmp_path, governance_in(tmp_path), **options).train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    ours = checkpoint / "governance-00000.json"
    if what == "file":
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
        state["total_flos"] = 7
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    elif what == "ours":
        found = json.loads(ours.read_bytes())
        ours.write_text(json.dumps(found | {"size": 1}))
    else:
        ours.unlink()
    again = trainer(GovernedTrainer, tmp_path, governance_in(tmp_path), **options)
    with pytest.raises(TrainingError):
        again.train(resume_from_checkpoint=str(checkpoint))


# --- what cannot be governed, and what goes wrong -----------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (
            {"load_best_model_at_end": True, "metric_for_best_model": "loss"},
            "load_best_model",
        ),
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
    ],
)
def test_arguments_that_break_the_record(options, word, tmp_path, monkeypatch):
    governed = trainer(GovernedTrainer, tmp_path)
    for name, value in options.items():
        monkeypatch.setattr(governed.args, name, value)
    with pytest.raises(TrainingError, match=word):
        GovernedTrainer(
            model=governed.model,
            args=governed.args,
            train_dataset=governed.train_dataset,
            governance=Governance(CONSTITUTION, tmp_path / "other.jsonl"),
        )


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[5].mlp.up_proj.weight[0, 0] = float("inf")
    governed = trainer(GovernedTrainer, tmp_path, model=model)
    before = fingerprints(model)
    with pytest.raises(NonFiniteError, match="the loss of rows"):
        governed.train()
    assert fingerprints(model) == before
    assert [r["kind"] for r in read_ledger(tmp_path / "ledger.jsonl")] == ["stage"]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_ledger_is_never_overwritten(tmp_path):
    trainer(GovernedTrainer, tmp_path).train()
    with pytest.raises(TrainingError, match="exists already"):
        trainer(GovernedTrainer, tmp_path).train()


@pytest.mark.parametrize("column", ["id", "principle"])
def test_rows_without_id_or_principle(column, tmp_path):
    rows = tokens().remove_columns(column)
    governed = trainer(GovernedTrainer, tmp_path, train_dataset=rows)
    with pytest.raises(TrainingError, match=f"expected a column '{column}'"):
        governed.train()


def test_too_few_rows_for_the_anchors(tmp_path):
    governed = trainer(GovernedTrainer, tmp_path, per_device_train_batch_size=4)
    with pytest.raises(TrainingError, match="leave none beside 12 anchors"):
        governed.train()


def test_rows_of_another_sampler_are_refused(tmp_path):
    governed = trainer(GovernedTrainer, tmp_path)
    own = governed._get_train_sampler

    def other(dataset=None):
        own(dataset)
        return torch.utils.data.SequentialSampler(dataset)

    governed._get_train_sampler = other
    with pytest.raises(TrainingError, match="expected rows dealt for"):
        governed.train()
