"""Governed reinforcement learning from AI feedback (RLAIF) with TRL's GRPOTrainer.

    python examples/grpo.py --out RUN

The judge is a model: a frozen copy of the assistant after its SFT stage. It scores a
completion by how likely it would have given it itself, per token. Each prompt is scored
under the principle that it was made for, and the step trains that principle's band.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from sft import sft
from toy import COMMON, ToyRun, as_dataset, show, train_rows
from trl import GRPOConfig, GRPOTrainer

from attest.training.hf import Governance, Governed


class GovernedGRPO(Governed, GRPOTrainer):
    """The mixin stands first: that is all."""


class Judge:
    """Feedback of a model that is not trained."""

    __name__ = "judge"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = copy.deepcopy(model).eval(), tokenizer

    @torch.no_grad()
    def __call__(self, prompts: list, completions: list, **_: Any) -> list[float]:
        """The mean log-probability of each completion's tokens."""
        return [
            self._score(prompt, completion[0]["content"])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _score(self, prompt: list, text: str) -> float:
        asked = self._tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True
        )
        head = self._tokenizer(asked, add_special_tokens=False)["input_ids"]
        tail = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*head, *tail, self._tokenizer.eos_token_id]])
        logits = self._model(ids).logits[0, len(head) - 1 : -1]
        found = logits.log_softmax(-1).gather(-1, ids[0, len(head) :, None])
        return float(found.mean())


def grpo(run: ToyRun, *, steps: int = 12) -> None:
    """Reinforce what the judge would have said."""
    rows = [
        {"id": row.id, "principle": row.principle, "prompt": row.messages()}
        for row in train_rows()
    ]
    judge = Judge(run.model, run.tokenizer)

    def make(governance: Governance) -> GovernedGRPO:
        options = {
            **COMMON,
            "per_device_train_batch_size": 32,
            "gradient_accumulation_steps": 2,
            "learning_rate": 2e-4,
            "logging_steps": 1,
        }
        return GovernedGRPO(
            model=run.model,
            reward_funcs=judge,
            args=GRPOConfig(
                **options,
                num_generations=4,
                max_completion_length=24,
                beta=0.0,
                max_steps=steps,
                output_dir=str(run.root / "trainer"),
            ),
            train_dataset=as_dataset(rows),
            processing_class=run.tokenizer,
            governance=governance,
        )

    show({"grpo": run.govern("grpo", make, rows)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("run-grpo"))
    run = ToyRun.begin(parser.parse_args().out)
    sft(run)
    grpo(run)
    run.finish()


if __name__ == "__main__":
    main()
