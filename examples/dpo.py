"""Governed preference optimisation with TRL's DPOTrainer, after a short SFT stage.

    python examples/dpo.py --out RUN

The chosen answer is the governed one, the rejected one what the base model says. Where
both agree (`keep`) the pair would teach nothing, so any other answer is rejected.
"""

import argparse
import copy
from pathlib import Path

from sft import sft
from toy import (
    COMMON,
    ToyRun,
    answer,
    as_dataset,
    show,
    train_rows,
    ungoverned_answers,
)
from trl import DPOConfig, DPOTrainer

from attest.training.hf import Governance, Governed


class GovernedDPO(Governed, DPOTrainer):
    """The mixin stands first: that is all."""


def dpo(run: ToyRun, *, steps: int = 36) -> None:
    """Prefer the governed answers to those of the base model."""
    base = ungoverned_answers()
    rows = [
        {
            "id": row.id,
            "principle": row.principle,
            "prompt": row.messages(),
            "chosen": answer(row.answer),
            "rejected": answer(
                base[row.id] if base[row.id] != row.answer else "no, i will not help."
            ),
        }
        for row in train_rows()
    ]

    def make(governance: Governance) -> GovernedDPO:
        options = {**COMMON, "learning_rate": 5e-5}
        return GovernedDPO(
            model=run.model,
            ref_model=copy.deepcopy(run.model),
            args=DPOConfig(
                **options,
                beta=0.1,
                max_steps=steps,
                output_dir=str(run.root / "trainer"),
            ),
            train_dataset=as_dataset(rows),
            processing_class=run.tokenizer,
            governance=governance,
        )

    show({"dpo": run.govern("dpo", make, rows)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("run-dpo"))
    run = ToyRun.begin(parser.parse_args().out)
    sft(run)
    dpo(run)
    run.finish()


if __name__ == "__main__":
    main()
