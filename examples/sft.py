"""Governed supervised fine-tuning with TRL's SFTTrainer.

python examples/sft.py --out RUN
"""

import argparse
from pathlib import Path

from toy import COMMON, ToyRun, answer, as_dataset, show, train_rows
from trl import SFTConfig, SFTTrainer

from attest.training.hf import Governance, Governed


class GovernedSFT(Governed, SFTTrainer):
    """The mixin stands first: that is all."""


def sft(run: ToyRun, *, steps: int = 180) -> None:
    """Teach what the constitution asks, one principle per step, in its band."""
    rows = [
        {
            "id": row.id,
            "principle": row.principle,
            "prompt": row.messages(),
            "completion": answer(row.answer),
        }
        for row in train_rows()
    ]

    def make(governance: Governance) -> GovernedSFT:
        return GovernedSFT(
            model=run.model,
            args=SFTConfig(
                **COMMON, max_steps=steps, output_dir=str(run.root / "trainer")
            ),
            train_dataset=as_dataset(rows),
            processing_class=run.tokenizer,
            governance=governance,
        )

    show({"sft": run.govern("sft", make, rows)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("run-sft"))
    run = ToyRun.begin(parser.parse_args().out)
    sft(run)
    run.finish()


if __name__ == "__main__":
    main()
