"""Real trainers of transformers and TRL, a few steps each, governed by the mixin."""

import json
import warnings
from collections import Counter

import pytest
import torch
from datasets import Dataset
from fakes.training import CONSTITUTION, changed, fingerprints, tiny_model
from peft import LoraConfig
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from attest.errors import TrainingError
from attest.training.demo import corpus
from attest.training.demo.tiny import build_tokenizer
from attest.training.hf import Governance, Governed
from attest.training.ledger import hex_float, read_ledger, verify_ledger
from attest.training.mechanism import named_parameters
from attest.training.router import NonFiniteError

with warnings.catch_warnings():
    # TRL warns of a vLLM that is newer than it knows; generation here needs none.
    warnings.simplefilter("ignore")
    from trl import (
        DPOConfig,
        DPOTrainer,
        GRPOConfig,
        GRPOTrainer,
        RLOOConfig,
        RLOOTrainer,
        SFTConfig,
        SFTTrainer,
    )

pytestmark = pytest.mark.training


class GovernedTrainer(Governed, Trainer):
    pass


class GovernedSFT(Governed, SFTTrainer):
    pass


class GovernedDPO(Governed, DPOTrainer):
    pass


class GovernedGRPO(Governed, GRPOTrainer):
    pass


class GovernedRLOO(Governed, RLOOTrainer):
    pass


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """TRL tells its makers of every trainer unless it runs in CI."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "1")
        yield
    torch.set_num_threads(threads)


TOKENIZER = build_tokenizer()


def data(*columns):
    """Some rows of each principle, with what the trainer wants of them."""
    made = []
    for row in corpus("governed", "train"):
        if int(row.id.split("-")[1]) >= 3:
            continue
        whole = {
            "id": row.id,
            "principle": row.principle,
            "prompt": row.messages(),
            "completion": [{"role": "assistant", "content": row.answer}],
            "chosen": [{"role": "assistant", "content": row.answer}],
            "rejected": [{"role": "assistant", "content": "sure thing."}],
        }
        made.append({name: whole[name] for name in ("id", "principle", *columns)})
    return Dataset.from_list(made)


def tokens():
    """Rows as the plain Trainer takes them."""
    rows = []
    for row in corpus("governed", "train"):
        ids = TOKENIZER(row.answer)["input_ids"]
        rows.append(
            {"id": row.id, "principle": row.principle, "input_ids": ids, "labels": ids}
        )
    return Dataset.from_list(rows)


def reward(completions, principle, **_):
    """Different for each completion, or there is nothing to learn."""
    assert set(principle) <= {"refuse", "unsure", "tone", "keep"}
    return [float(len(set(str(c)))) for c in completions]


COMMON = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "lr_scheduler_type": "linear",
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "bf16": False,
}
GENERATION = {
    "num_generations": 2,
    "max_completion_length": 8,
    "per_device_train_batch_size": 16,
}


def trainer(kind, path, governance=None, model=None, train_dataset=None, **options):
    """A governed trainer of that kind, as its users make it."""
    lora = options.pop("lora", False)
    arguments = {**COMMON, **options, "output_dir": str(path / "out")}
    extra = {}
    if kind is GovernedTrainer:
        made, rows = TrainingArguments(**arguments), tokens()
        extra["data_collator"] = DataCollatorForSeq2Seq(TOKENIZER)
    elif kind is GovernedSFT:
        made, rows = SFTConfig(**arguments), data("prompt", "completion")
    elif kind is GovernedDPO:
        made, rows = DPOConfig(**arguments), data("prompt", "chosen", "rejected")
        if not lora:
            extra["ref_model"] = tiny_model()
    else:
        config = GRPOConfig if kind is GovernedGRPO else RLOOConfig
        made = config(**{**arguments, **GENERATION, "beta": 0.0, **options})
        rows = data("prompt")
        extra["reward_funcs"] = reward
    if lora:
        extra["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    return kind(
        model=model or tiny_model(),
        args=made,
        train_dataset=rows if train_dataset is None else train_dataset,
        processing_class=TOKENIZER,
        governance=governance or Governance(CONSTITUTION, path / "ledger.jsonl"),
        **extra,
    )


KINDS = {
    "trainer": (GovernedTrainer, "sft", {}),
    "sft": (GovernedSFT, "sft", {}),
    "sft-bf16": (GovernedSFT, "sft", {"bf16": True}),
    "sft-lora": (GovernedSFT, "sft", {"lora": True}),
    "dpo": (GovernedDPO, "dpo", {}),
    "dpo-lora": (GovernedDPO, "dpo", {"lora": True}),
    "grpo": (GovernedGRPO, "grpo", {}),
    "grpo-lora": (GovernedGRPO, "grpo", {"lora": True}),
    "rloo": (GovernedRLOO, "rloo", {}),
}


class StepCounter:
    """An observer that keeps something."""

    def __init__(self):
        self.steps = 0

    def before(self, principle):
        pass

    def after(self, principle):
        self.steps += 1
        return {"counted": self.steps}

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Witness:
    """Sees by hash, around every step, what the step changed."""

    def __init__(self):
        self.model, self.steps = None, []

    def before(self, principle):
        self.known = fingerprints(self.model)

    def after(self, principle):
        self.steps.append((principle, changed(self.known, self.model)))
        return {"witness": len(self.steps[-1][1])}


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


# --- checkpoints --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "lora"),
    [(GovernedSFT, False), (GovernedSFT, True), (GovernedTrainer, False)],
)
def test_a_resumed_run_ends_with_the_same_bytes(kind, lora, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 8, "lora": lora}
    whole = trainer(kind, tmp_path / "whole", path_of(tmp_path / "whole"), **options)
    whole.train()

    folder = tmp_path / "stopped"
    stopped = trainer(kind, folder, path_of(folder), **options)
    stop_after(stopped, 5)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    model = tiny_model(seed=0)
    again = trainer(kind, folder, path_of(folder), model=model, **options)
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
    trainer(GovernedTrainer, tmp_path, path_of(tmp_path), **options).train()
    without = Governance(CONSTITUTION, tmp_path / "ledger.jsonl")
    again = trainer(GovernedTrainer, tmp_path, without, **options)
    with pytest.raises(TrainingError, match="expected the observers none"):
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


def path_of(folder):
    folder.mkdir(exist_ok=True)
    return Governance(
        CONSTITUTION,
        folder / "ledger.jsonl",
        check_every=2,
        observers=[StepCounter()],
    )


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
    trainer(GovernedTrainer, tmp_path, path_of(tmp_path), **options).train()
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
    again = trainer(GovernedTrainer, tmp_path, path_of(tmp_path), **options)
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
