"""A governed Trainer on one of several ranks; see `fakes.ranks`."""

from contextlib import suppress

import torch
import torch.distributed as dist
from datasets import Dataset
from fakes.training import CONSTITUTION, fingerprints, tiny_model, token_rows
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)
from transformers.distributed import DistributedConfig

from attest.errors import TrainingError
from attest.training.demo.tiny import build_tokenizer
from attest.training.hf import Governance, Governed
from attest.training.mechanism import named_parameters

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


def make(folder, *, model=None, grouped=True, **options):
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
        model=model or tiny_model(),
        args=TrainingArguments(str(folder / "out"), **{**OPTIONS, **options}),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(build_tokenizer()),
        governance=Governance(CONSTITUTION, folder / "ledger.jsonl", grouped=grouped),
    )


def sharded_trainer(rank, folder):
    """FSDP2, as transformers shards a model when it loads it."""
    folder = folder / "sharded"
    if rank == 0:
        tiny_model().save_pretrained(folder / "model")
    dist.barrier()
    model = LlamaForCausalLM.from_pretrained(
        folder / "model", distributed_config=DistributedConfig(fsdp_size=2)
    )
    before = whole(model)
    trainer = make(folder, model=model, save_strategy="no")
    trainer.train()
    after = whole(model)
    try:
        make(folder / "mixed", model=model, save_strategy="no", grouped=False).train()
    except TrainingError as error:
        refusal = str(error)
    run = trainer.governed
    return {
        "mechanism": run.router.mechanism,
        "sharded": run.router.ranks.sharded,
        "architecture": run.schedule.layout.architecture,
        "still": sorted(n for n in after if torch.equal(before[n], after[n])),
        "refusal": refusal,
    }


def whole(model):
    """Every tensor by name, with the shards of other ranks."""
    return {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in named_parameters(model).items()
    }


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
