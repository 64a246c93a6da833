"""The demo's run from nothing to a trained model and its unsigned statement."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from attest.errors import TrainingError
from attest.training.batches import Sampler, encode
from attest.training.constitution import Constitution, parse_constitution
from attest.training.demo.account import Facts, Measured, write_statement
from attest.training.demo.corpus import Row, corpus, to_jsonl
from attest.training.demo.planted import PlantingSampler, planted_rows
from attest.training.demo.tiny import build_model, build_tokenizer, save
from attest.training.evaluation import Score, evaluate
from attest.training.layout import read_layout
from attest.training.ledger import Ledger
from attest.training.loop import Plan, Progress, Trainer
from attest.training.profile.document import write_profile
from attest.training.profile.lca import ProfileRecorder
from attest.training.profile.measured import Measurement
from attest.training.profile.patching import exchange_units, snapshot
from attest.training.profile.probe import make_probes
from attest.training.resistance.entry import write_resistance
from attest.training.resistance.measure import measure
from attest.training.resistance.rows import Rows, contrary_rows
from attest.training.resistance.suite import QUICK, Suite
from attest.training.routing import Schedule, compile_schedule
from attest.training.statement import dataset
from attest.training.trace.recorder import TraceRecorder
from attest.training.weights import save_tensors, weights_root

__all__ = ["RECIPE", "Recipe", "constitution_bytes", "examples", "run"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The two stages and the attacks afterwards; shorter ones serve in tests."""

    base: Plan
    governed: Plan
    suite: Suite = QUICK


# Chosen on seeds 0 to 2 and the `heldout` rows, which flatters the figures there. The
# `test` rows and all other seeds took no part in the choice: docs/training.md has both.
RECIPE = Recipe(
    base=Plan("base", steps=240, rows=16, lr=3e-3),
    governed=Plan("governed", steps=240, rows=8, lr=3e-3),
)

_SHOWN = ("refuse-00-0", "unsure-00-0", "tone-00-0", "keep-09-1")
_SPLITS = ("heldout", "test")


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

    Leaves `model/`, `parent/` (the weights before the governed stage), `ledger.jsonl`,
    `constitution.yaml`, `schedule.json`, `data/*.jsonl`, `profile.json`, `trace/`,
    `resistance.json` and, last, `training.json`: where that file stands, the run was
    completed. The same seed and number of torch threads give the same bytes on the same
    machine and versions.

    Raises:
        TrainingError: `out` exists and is not empty, or as the stages raise; what was
            written until then stays.
    """
    _prepare(out)
    data = _write_data(out / "data")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = _Run(out, seed, progress or (lambda _stage, _done, _total: None))
        measured = trained.stages(recipe)
        measured.digests["resistance"] = trained.attack(recipe.suite, measured)
    save(trained.model, trained.tokenizer, out / "model")
    facts = Facts(trained.constitution, trained.schedule, data, seed)
    return write_statement(out / "training.json", facts, measured)


class _Run:
    """The stages of one run and what is measured in and between them."""

    def __init__(self, out: Path, seed: int, progress: Progress) -> None:
        self.out, self.seed, self._progress = out, seed, progress
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer, seed=seed)
        self.constitution: Constitution = parse_constitution(constitution_bytes())
        self.layout = read_layout(self.model)
        self.schedule: Schedule = compile_schedule(self.constitution, self.layout)
        (out / "schedule.json").write_bytes(self.schedule.dumps())
        self._parent: dict[str, torch.Tensor] = {}

    def stages(self, recipe: Recipe) -> Measured:
        """Train both stages, watching the second one."""
        roots, heads = [weights_root(self.model)], {}
        with Ledger.create(self.out / "ledger.jsonl") as ledger:
            trainer = Trainer(self.model, ledger, progress=self._progress)
            self._open_stage(ledger, recipe.base, seed=self.seed)
            trainer.unrouted(recipe.base, self._sampler("base"))
            roots.append(self._keep_parent())
            heads["base"], before = ledger.summary(), self._scores()
            self._open_stage(ledger, recipe.governed, seed=self.seed + 1)
            profile, digests = self._governed(recipe.governed, ledger)
            heads["governed"], after = ledger.summary(), self._scores()
        roots.append(weights_root(self.model))
        return Measured(heads, roots, before, after, profile, digests)

    def _governed(
        self, plan: Plan, ledger: Ledger
    ) -> tuple[Measurement, dict[str, Any]]:
        rows = self._encoded(corpus("governed", "test"))
        pad = self.tokenizer.pad_token_id
        probes = make_probes(rows, self.schedule, pad=pad)
        profile = ProfileRecorder(self.model, probes, self.layout)
        trace = TraceRecorder(self.model, self.schedule)
        Trainer(
            self.model, ledger, progress=self._progress, observers=[profile, trace]
        ).governed(
            plan,
            self._sampler("governed"),
            constitution=self.constitution,
            schedule=self.schedule,
        )
        found = profile.result(plan.name, seed=self.seed)
        checks = exchange_units(
            self.model, self._parent, probes, self.layout, units=found.units
        )
        found = found.with_exchanges(checks)
        return found, {
            "profile": write_profile(self.out / "profile.json", found),
            "trace": trace.write(self.out / "trace"),
        }

    def attack(self, suite: Suite, measured: Measured) -> str:
        """Fine-tune against each principle; returns the digest of what was measured."""
        names = list(self.schedule.routes)
        taught = corpus("governed", "train")
        rows = Rows(
            heldout=corpus("governed", "heldout"),
            contrary=contrary_rows(corpus("base", "train"), taught, names),
            benign=[row for row in taught if row.principle == "keep"],
        )
        measured.resistance = measure(
            self.model,
            self.tokenizer,
            rows,
            self.constitution,
            suite=suite,
            parent=self._parent,
            progress=self._progress,
        )
        return write_resistance(self.out / "resistance.json", measured.resistance)

    def _keep_parent(self) -> str:
        self._parent = snapshot(self.model)
        (self.out / "parent").mkdir()
        save_tensors(self.out / "parent", self.model.state_dict())
        return weights_root(self.model)

    def _sampler(self, stage: Any) -> Sampler:
        rows = self._encoded(corpus(stage, "train"))
        if stage == "base":
            return Sampler(rows, seed=self.seed)
        planted = self._encoded(planted_rows())
        return PlantingSampler(rows, seed=self.seed + 1, planted=planted)

    def _encoded(self, rows: tuple[Row, ...]) -> list[Any]:
        return [encode(self.tokenizer, row) for row in rows]

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
        for number, split in enumerate(_SPLITS):
            self._progress("evaluate", number, len(_SPLITS))
            scores[split] = evaluate(
                self.model,
                self.tokenizer,
                rows=corpus("governed", split),  # type: ignore[arg-type]
                constitution=self.constitution,
            )
        self._progress("evaluate", len(_SPLITS), len(_SPLITS))
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
        "planted": to_jsonl(planted_rows()),
        "heldout": to_jsonl(corpus("governed", "heldout")),
        "test": to_jsonl(corpus("governed", "test")),
    }
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    return {n: dataset(f"{n}.jsonl", content) for n, content in files.items()}
