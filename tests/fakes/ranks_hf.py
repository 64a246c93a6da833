"""A governed Trainer on one of several ranks; see `fakes.ranks`."""

from contextlib import suppress

from datasets import Dataset
from fakes.training import CONSTITUTION, fingerprints, tiny_model, token_rows
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from attest.training.demo.tiny import build_tokenizer
from attest.training.hf import Governance, Governed

OPTIONS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 3,
    "use_cpu": True,
    "ddp_backend": "gloo",
    "report_to": [],
    "disable_tqdm": True,
}


class GovernedTrainer(Governed, Trainer):
    pass


def make(folder, **options):
    rows = [
        {
            "id": row.id,
            "principle": row.principle,
            "input_ids": list(row.prompt + row.answer),
            "labels": list(row.prompt + row.answer),
        }
        for row in token_rows(("refuse", "unsure", "tone", "keep"))
    ]
    return GovernedTrainer(
        model=tiny_model(),
        args=TrainingArguments(str(folder / "out"), **{**OPTIONS, **options}),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(build_tokenizer()),
        governance=Governance(CONSTITUTION, folder / "ledger.jsonl"),
    )


def governed_trainer(_rank, folder):
    """Trains six steps; then again, killed in the fourth and resumed."""
    for name in ("whole", "stopped"):
        (folder / name).mkdir(exist_ok=True)
    whole = make(folder / "whole")
    whole.train()
    stopped = make(folder / "stopped")
    apply = stopped.governed.apply

    def stopping(lr):
        if stopped.state.global_step == 4:
            raise KeyboardInterrupt
        apply(lr)

    stopped.governed.apply = stopping
    with suppress(KeyboardInterrupt):
        stopped.train()
    again = make(folder / "stopped")
    again.train(resume_from_checkpoint=str(folder / "stopped/out/checkpoint-3"))
    return {
        "mechanism": whole.governed.router.mechanism,
        "weights": fingerprints(whole.model),
        "resumed": fingerprints(again.model),
        "heads": [whole.governed.head.size, again.governed.head.size],
    }
