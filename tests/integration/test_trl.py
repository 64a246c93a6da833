"""Real trainers of transformers and TRL, a few steps each, governed by the mixin."""

from collections import Counter

import pytest
import torch
from fakes.trainers import (
    GENERATION,
    KINDS,
    GovernedDPO,
    GovernedGRPO,
    GovernedRLOO,
    GovernedSFT,
    GovernedTrainer,
    Witness,
    trainer,
)
from fakes.training import CONSTITUTION, changed, fingerprints

from attest.errors import TrainingError
from attest.training.demo import corpus
from attest.training.hf import Governance
from attest.training.ledger import hex_float, read_ledger, verify_ledger
from attest.training.mechanism import named_parameters

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


class Ran:
    """One trainer, trained for four steps, and what was seen of it."""

    def __init__(self, name, path):
        self.kind, self.method, self.options = KINDS[name]
        self.ledger, witness = path / "ledger.jsonl", Witness()
        governance = Governance(CONSTITUTION, self.ledger, observers=[witness])
        self.trainer = trainer(self.kind, path, governance, **self.options)
        self.run = self.trainer.governed
        witness.model = self.trainer.model
        before = fingerprints(self.trainer.model)
        self.trainer.train()
        self.moved = changed(before, self.trainer.model)
        self.steps = witness.steps
        self.records = list(read_ledger(self.ledger))


@pytest.fixture(scope="module")
def ran(tmp_path_factory, request):
    return Ran(request.param, tmp_path_factory.mktemp("ran"))


@pytest.mark.parametrize("ran", KINDS, indirect=True)
def test_every_step_stays_in_its_band(ran):
    verify_ledger(ran.ledger, ran.run.head)
    opening, *records = ran.records
    assert (opening["kind"], opening["method"]) == ("stage", ran.method)
    assert opening["schedule"] == ran.run.schedule.digest
    cleared = ran.options.get("lora") and ran.method != "sft"
    assert opening["mechanism"] == ("clear" if cleared else "toggle")
    assert len(records) == len(ran.steps) == 4
    bands = set()
    for record, (principle, moved) in zip(records, ran.steps, strict=True):
        band = set(ran.run.router.trained(principle))
        bands |= band
        assert record["principle"] == principle
        assert moved <= band
        # The first step of fresh adapters cannot move their A: B is zero.
        assert len(moved) >= len(band) // 2
        assert record["witness"] == len(moved)
        assert sum(hex_float(value) for value in record["energy"].values()) > 0
    # Stem, head and, under adapters, the base: as before training.
    assert ran.moved <= bands
    if ran.options.get("lora"):
        assert all("lora_" in tensor for tensor in bands)


@pytest.mark.parametrize("ran", KINDS, indirect=True)
def test_the_record_names_the_rows(ran):
    owners = {row.id: row.principle for row in corpus("governed", "train")}
    generates = ran.kind in (GovernedGRPO, GovernedRLOO)
    times = GENERATION["num_generations"] if generates else 1
    for record in ran.records[1:]:
        assert [owners[i] for i in record["samples"]] == record["principles"]
        assert len(record["samples"]) == 16 * times
        if generates:
            assert all(n % times == 0 for n in Counter(record["samples"]).values())
        counts = Counter(record["principles"])
        assert counts["keep"] == 8 * times
        assert counts[record["principle"]] == 4 * times
        rate = 1e-3 * (1 - record["step"] / 4)
        assert hex_float(record["lr"]) == pytest.approx(rate, rel=1e-5)
    assert len({record["batch"] for record in ran.records[1:]}) == 4


def test_generations_that_are_used_twice(tmp_path):
    governed = trainer(GovernedGRPO, tmp_path, num_iterations=2)
    governed.train()
    steps = list(read_ledger(tmp_path / "ledger.jsonl"))[1:]
    for one, two in (steps[:2], steps[2:]):
        assert one["principle"] == two["principle"]
        assert sorted(one["samples"]) == sorted(two["samples"])


def test_generations_of_another_step_are_refused(tmp_path):
    """TRL begins a generation anew where it is resumed, also in the middle of one."""
    options = {"num_iterations": 2, "save_strategy": "steps", "save_steps": 1}
    governed = trainer(GovernedGRPO, tmp_path, **options)
    chunk = governed._get_train_sampler().chunks(0)
    assert set(chunk[0].rows) - set(chunk[1].rows)
    governed.train()
    again = trainer(GovernedGRPO, tmp_path, **options)
    with pytest.raises(TrainingError, match="generated for another step"):
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))


def test_loss_falls(tmp_path):
    governed = trainer(
        GovernedSFT, tmp_path, max_steps=30, lr_scheduler_type="constant"
    )
    governed.train()
    steps = list(read_ledger(tmp_path / "ledger.jsonl"))[1:]
    losses = [hex_float(record["loss"]) for record in steps]
    assert max(losses[-5:]) < min(losses[:3])


@pytest.mark.parametrize(
    "options",
    [{"gradient_accumulation_steps": 1, "per_device_train_batch_size": 16}, {}],
    ids=["one", "two"],
)
def test_accumulation_is_one_step(options, tmp_path):
    """Two micro-batches of 8 train as one batch of 16 does, but for rounding."""
    governed = trainer(GovernedSFT, tmp_path, **options)
    governed.train()
    reference = trainer(
        GovernedSFT,
        tmp_path / "reference",
        Governance(CONSTITUTION, tmp_path / "reference.jsonl"),
        gradient_accumulation_steps=4,
        per_device_train_batch_size=4,
    )
    reference.train()
    theirs = named_parameters(reference.model)
    for name, parameter in named_parameters(governed.model).items():
        assert torch.allclose(parameter, theirs[name], atol=2e-4), name


# --- mixed batches ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GovernedTrainer, GovernedSFT, GovernedDPO])
def test_mixed_batches_train_each_row_in_its_band(kind, tmp_path):
    governance = Governance(CONSTITUTION, tmp_path / "ledger.jsonl", grouped=False)
    governed = trainer(kind, tmp_path, governance, max_steps=3)
    routed = governed.train_dataset.filter(lambda row: row["principle"] != "keep")
    governed.train_dataset = routed
    start = fingerprints(governed.model)
    governed.train()
    records = list(read_ledger(tmp_path / "ledger.jsonl"))[1:]
    parts = [(record["step"], record["part"], record["parts"]) for record in records]
    assert {step for step, _, _ in parts} == set(range(3))
    for step in range(3):
        of_step = [record for record in records if record["step"] == step]
        assert [r["part"] for r in of_step] == list(range(of_step[0]["parts"]))
        assert sum(len(record["samples"]) for record in of_step) == 16
    for record in records:
        assert set(record["principles"]) == {record["principle"]}
    # The parts' losses add up to the mean over the batch: ln 2 before the first update
    # of preferences, about the logarithm of 264 tokens otherwise.
    total = sum(hex_float(r["loss"]) for r in records if r["step"] == 0)
    assert total == pytest.approx(0.6931 if kind is GovernedDPO else 5.6, rel=0.03)
    moved = changed(start, governed.model)
    assert moved <= {
        name
        for route in governed.governed.schedule.routes.values()
        for name in route.tensors
    }


def test_mixed_row_without_a_band(tmp_path):
    governance = Governance(CONSTITUTION, tmp_path / "ledger.jsonl", grouped=False)
    with pytest.raises(TrainingError, match="'keep' has no route"):
        trainer(GovernedSFT, tmp_path, governance).train()
