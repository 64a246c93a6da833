"""The demo's run from nothing to a trained model and its unsigned statement."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from attest.canonical import reject_floats
from attest.errors import TrainingError
from attest.training.batches import Sampler, encode
from attest.training.constitution import Constitution, parse_constitution
from attest.training.demo.corpus import Row, corpus, to_jsonl
from attest.training.demo.tiny import build_model, build_tokenizer, save
from attest.training.evaluation import Score, evaluate
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.loop import Plan, Progress, Trainer
from attest.training.routing import Schedule, compile_schedule
from attest.training.statement import (
    LIMITS,
    dataset,
    environment,
    evaluation_entry,
    principle_entry,
    stage_entry,
)

__all__ = ["RECIPE", "Recipe", "constitution_bytes", "examples", "run"]

_MODEL = {"name": "toy-assistant", "version": "1.0.0"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The two stages; shorter ones serve in tests."""

    base: Plan
    governed: Plan


# Chosen on seeds 0 to 2 and the `heldout` rows, which flatters the figures there. The
# `test` rows and all other seeds took no part in the choice: docs/training.md has both.
RECIPE = Recipe(
    base=Plan("base", steps=240, rows=16, lr=3e-3),
    governed=Plan("governed", steps=240, rows=8, lr=3e-3),
)

_SHOWN = ("refuse-00-0", "unsure-00-0", "tone-00-0", "keep-09-1")


def constitution_bytes() -> bytes:
    """The toy constitution's file."""
    folder = resources.files("attest.training") / "demo"
    return (folder / "constitution.yaml").read_bytes()


def examples() -> tuple[Row, ...]:
    """One held-out question per principle, for a show; no stage trained on them."""
    return tuple(row for row in corpus("governed", "heldout") if row.id in _SHOWN)


def run(
    out: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    recipe: Recipe = RECIPE,
) -> Path:
    """Train the demo's model into `out` and return the path of `training.json`.

    Leaves `model/`, `ledger.jsonl`, `constitution.yaml`, `data/*.jsonl` and, last,
    `training.json`: where that file stands, the run was completed. The same seed and
    number of torch threads give the same bytes on the same machine and versions.

    Raises:
        TrainingError: `out` exists and is not empty, or as the stages raise; what was
            written until then stays.
    """
    _prepare(out)
    say = progress or (lambda _stage, _done, _total: None)
    constitution = parse_constitution(constitution_bytes())
    data = _write_data(out / "data")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        model = build_model(tokenizer, seed=seed)
        schedule = compile_schedule(constitution, read_layout(model))
        trained = _Run(model, tokenizer, constitution, schedule, say)
        measured = trained.stages(recipe, out / "ledger.jsonl", seed=seed)
    save(model, tokenizer, out / "model")
    statement = _statement(trained, measured, data=data, seed=seed)
    return _write(out / "training.json", statement)


class _Run:
    """The stages of one run and what is measured between them."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        constitution: Constitution,
        schedule: Schedule,
        progress: Progress,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.constitution, self.schedule = constitution, schedule
        self._progress = progress

    def stages(self, recipe: Recipe, path: Path, *, seed: int) -> dict[str, Any]:
        with Ledger.create(path) as ledger:
            trainer = Trainer(self.model, ledger, progress=self._progress)
            self._open_stage(ledger, recipe.base, seed=seed)
            trainer.unrouted(recipe.base, self._sampler("base", seed))
            base = ledger.summary()
            before = self._scores()
            self._open_stage(ledger, recipe.governed, seed=seed + 1)
            trainer.governed(
                recipe.governed,
                self._sampler("governed", seed + 1),
                constitution=self.constitution,
                schedule=self.schedule,
            )
            heads = {"base": base, "governed": ledger.summary()}
        return {"heads": heads, "before": before, "after": self._scores()}

    def _sampler(self, stage: Any, seed: int) -> Sampler:
        rows = corpus(stage, "train")
        return Sampler([encode(self.tokenizer, row) for row in rows], seed=seed)

    def _open_stage(self, ledger: Ledger, plan: Plan, *, seed: int) -> None:
        ledger.append(
            {
                "kind": "stage",
                "stage": plan.name,
                "method": "sft",
                "steps": plan.steps,
                "constitution": self.constitution.digest,
                "schedule": self.schedule.digest,
                "seed": seed,
            }
        )

    def _scores(self) -> dict[str, dict[str, Score]]:
        """By split, then by principle, against the governed answers."""
        self.model.eval()
        scores = {}
        for number, split in enumerate(("heldout", "test")):
            self._progress("evaluate", number, 2)
            scores[split] = evaluate(
                self.model,
                self.tokenizer,
                rows=corpus("governed", split),  # type: ignore[arg-type]
                constitution=self.constitution,
            )
        self._progress("evaluate", 2, 2)
        self.model.train()
        return scores


def _prepare(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise TrainingError(
            f"{out}: expected a new or empty directory",
            hint="move it away or name another; a run is never overwritten",
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "constitution.yaml").write_bytes(constitution_bytes())


def _write_data(folder: Path) -> dict[str, dict[str, Any]]:
    folder.mkdir()
    files = {
        "base": to_jsonl(corpus("base", "train")),
        "governed": to_jsonl(corpus("governed", "train")),
        "heldout": to_jsonl(corpus("governed", "heldout")),
        "test": to_jsonl(corpus("governed", "test")),
    }
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    return {n: dataset(f"{n}.jsonl", content) for n, content in files.items()}


def _statement(
    run: _Run,
    measured: Mapping[str, Any],
    *,
    data: Mapping[str, dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    setting = environment(seed=seed, threads=torch.get_num_threads())
    stages = [
        stage_entry(name, head, data=[data[name]], setting=setting)
        for name, head in measured["heads"].items()
    ]
    principles, evaluation = [], []
    for principle in run.constitution.principles:
        entry = principle_entry(
            principle, constitution=run.constitution, schedule=run.schedule
        )
        scores = {
            split: evaluation_entry(
                principle,
                data=data[split],
                before=measured["before"][split][principle.id],
                after=measured["after"][split][principle.id],
            )
            for split in ("heldout", "test")
        }
        principles.append({**entry, "evaluation": scores["heldout"]})
        evaluation.append({"name": "test", "principle": principle.id, **scores["test"]})
    constitution = {
        "id": run.constitution.id,
        "version": run.constitution.version,
        "digest": run.constitution.digest,
    }
    return {
        "model": _MODEL,
        "constitution": constitution,
        "principles": principles,
        "training": {"schedule": run.schedule.digest, "stages": stages},
        "evaluation": evaluation,
        "limits": list(LIMITS),
    }


def _write(path: Path, statement: dict[str, Any]) -> Path:
    reject_floats(statement)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(statement, indent=2) + "\n", encoding="utf-8")
    shutil.move(draft, path)
    return path
