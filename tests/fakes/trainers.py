"""Governed trainers over a tiny model, made as users of transformers and TRL do.

TRL tells its makers of every trainer unless the variable CI is set.
"""

import warnings

from datasets import Dataset
from fakes.training import CONSTITUTION, changed, fingerprints, tiny_model
from peft import LoraConfig
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from attest.training.demo import corpus
from attest.training.demo.tiny import build_tokenizer
from attest.training.hf import Governance, Governed

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
    if "eval_strategy" in options:
        extra["eval_dataset"] = rows.select(range(16))
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


def governance_in(folder):
    folder.mkdir(exist_ok=True)
    return Governance(
        CONSTITUTION,
        folder / "ledger.jsonl",
        check_every=2,
        observers=[StepCounter()],
    )
