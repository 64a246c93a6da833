"""What the examples share: one run directory, its stages, and the statement at the end.

A stage is any governed trainer of TRL. Each one begins with the weights that the one
before left, writes to the same ledger, and is listed in the statement with its ends.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console

from attest.training.batches import Sampler, encode
from attest.training.constitution import parse_constitution
from attest.training.demo import RECIPE, Row, constitution_bytes, corpus
from attest.training.demo.corpus import to_jsonl
from attest.training.demo.tiny import build_model, build_tokenizer, save
from attest.training.evaluation import Score, evaluate
from attest.training.hf import Governance
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.loop import Trainer
from attest.training.routing import compile_schedule
from attest.training.statement import (
    LIMITS,
    dataset,
    environment,
    evaluation_entry,
    principle_entry,
    stage_entry,
)
from attest.training.weights import weights_root

# TRL tells its makers of every trainer unless it runs in CI, and warns of a vLLM that
# is newer than it knows; generation here needs none.
os.environ.setdefault("CI", "1")
warnings.filterwarnings("ignore", module="trl")

COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 20,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 5,
    "weight_decay": 0.01,
    "adam_beta2": 0.95,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "logging_steps": 10,
    "seed": 0,
}
console = Console(stderr=True)


@dataclass
class ToyRun:
    """The toy assistant of the demo, stage after stage."""

    root: Path
    model: Any
    tokenizer: Any
    ledger: Ledger
    stages: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Score] = field(default_factory=dict)

    @classmethod
    def begin(cls, root: Path, *, seed: int = 0) -> "ToyRun":
        """A new run: an ungoverned base model, trained in about half a minute."""
        torch.set_num_threads(1)
        if root.exists():
            sys.exit(f"{root} exists; choose another directory: --out DIR")
        (root / "data").mkdir(parents=True)
        (root / "constitution.yaml").write_bytes(constitution_bytes())
        (root / "data" / "heldout.jsonl").write_bytes(
            to_jsonl(corpus("governed", "test"))
        )
        tokenizer = build_tokenizer()
        model = build_model(tokenizer, seed=seed)
        run = cls(root, model, tokenizer, Ledger.create(root / "ledger.jsonl"))
        (root / "schedule.json").write_bytes(run.schedule.dumps())
        run._train_base(seed)
        run.before = run.scores()
        return run

    @property
    def constitution(self) -> Any:
        return parse_constitution(constitution_bytes())

    @property
    def schedule(self) -> Any:
        return compile_schedule(self.constitution, read_layout(self.model))

    def _train_base(self, seed: int) -> None:
        rows = corpus("base", "train")
        base = weights_root(self.model)
        self.ledger.append({"kind": "stage", "stage": "base", "method": "sft"})
        with console.status("base: an ungoverned model") as status:
            Trainer(
                self.model,
                self.ledger,
                progress=lambda _, done, of: status.update(
                    f"base: step {done} of {of}"
                ),
            ).unrouted(
                RECIPE.base,
                Sampler([encode(self.tokenizer, row) for row in rows], seed=seed),
            )
        self._list("base", "sft", self._write("base", to_jsonl(rows)), base)

    def govern(
        self,
        name: str,
        make: Callable[[Governance], Any],
        rows: Sequence[dict[str, Any]],
    ) -> dict[str, Score]:
        """Train a stage with a governed trainer; returns the held-out scores after it.

        `make` gets what governs the stage and returns the trainer, with this run's
        model. `rows` are what it trains on; they are kept beside the ledger.
        """
        content = b"".join(
            json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows
        )
        base, data = weights_root(self.model), self._write(name, content)
        trainer = make(Governance(self.constitution, self.ledger, stage=name))
        trainer.train()
        self.model = trainer.model
        self._list(name, trainer.governed.method, data, base)
        return self.scores()

    def scores(self) -> dict[str, Score]:
        """How many of the held-out answers keep each principle."""
        self.model.eval()
        return evaluate(
            self.model,
            self.tokenizer,
            rows=corpus("governed", "test"),
            constitution=self.constitution,
        )

    def finish(self) -> None:
        """Save the model, write the statement, and say what to type next."""
        after, constitution = self.scores(), self.constitution
        self.ledger.close()
        save(self.model, self.tokenizer, self.root / "model")
        heldout = dataset(
            "heldout.jsonl", (self.root / "data" / "heldout.jsonl").read_bytes()
        )
        principles = [
            {
                **principle_entry(p, constitution=constitution, schedule=self.schedule),
                "evaluation": evaluation_entry(
                    p, data=heldout, before=self.before[p.id], after=after[p.id]
                ),
            }
            for p in constitution.principles
        ]
        statement = {
            "model": {"name": "toy-assistant", "version": "1.0.0"},
            "constitution": {
                "id": constitution.id,
                "version": constitution.version,
                "digest": constitution.digest,
            },
            "principles": principles,
            "training": {"schedule": self.schedule.digest, "stages": self.stages},
            "limits": list(LIMITS),
        }
        path = self.root / "training.json"
        path.write_text(json.dumps(statement, indent=2) + "\n")
        show({"before": self.before, "after": after})
        print(
            f"sign it: attest manifest sign {self.root / 'model'} --run {self.root} "
            "--key authority.key.pem"
        )

    def _write(self, name: str, content: bytes) -> dict[str, Any]:
        (self.root / "data" / f"{name}.jsonl").write_bytes(content)
        return dataset(f"{name}.jsonl", content)

    def _list(self, name: str, method: str, data: dict[str, Any], base: str) -> None:
        self.stages.append(
            stage_entry(
                name,
                self.ledger.summary(),
                data=[data],
                setting=environment(seed=0, threads=1),
                method=method,
                base=base,
                result=weights_root(self.model),
            )
        )


def show(scores: dict[str, dict[str, Score]]) -> None:
    """A line per moment: how many of a principle's held-out answers keep it."""
    for moment, found in scores.items():
        line = ", ".join(f"{k} {v.passed}/{v.count}" for k, v in found.items())
        print(f"{moment:<8} {line}")


def answer(text: str) -> list[dict[str, str]]:
    """A completion as chat messages."""
    return [{"role": "assistant", "content": text}]


def train_rows() -> tuple[Row, ...]:
    """The rows that governed stages train on."""
    return corpus("governed", "train")


def ungoverned_answers() -> dict[str, str]:
    """What the base model was taught to say, by row."""
    return {row.id: row.answer for row in corpus("base", "train")}


def as_dataset(rows: Sequence[dict[str, Any]]) -> Dataset:
    """The rows for a trainer."""
    return Dataset.from_list(list(rows))
