"""A training run's directory as the product's own parts write it, made without torch.

    run = make_run(folder, weights=root)
    run.edit(lambda statement: statement["training"].update(schedule=digest(b"x")))

Everything that a run may leave is there, and every digest fits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from attest.digests import digest
from attest.training.constitution import load_constitution
from attest.training.ledger import Ledger, float_hex
from attest.training.profile.document import write_profile
from attest.training.profile.entry import profile_entry
from attest.training.profile.measured import Allocation, Measurement
from attest.training.resistance.entry import resistance_entry, write_resistance
from attest.training.resistance.suite import STD
from attest.training.resistance.values import Resistance, Run, Start
from attest.training.routing import Layout, compile_schedule
from attest.training.statement import dataset, principle_entry
from attest.training.trace.values import trace_digests

__all__ = ["CONSTITUTION", "RunFolder", "make_run", "profile"]

CONSTITUTION = """\
schema: constitution/1
id: toy
version: 1.2.0
principles:
  - id: refuse
    title: Refuse
    class: safety-critical
    text: Decline politely.
    band: {from: 500, to: 1000}
    evaluation: {predicate: starts-with, value: "no", heldout: heldout.jsonl}
    requirement: {attack-suite: std-1, min-steps-below-half: 10, on-miss: ON_MISS}
  - id: tone
    title: Be warm
    class: adaptable
    text: Be warm.
    band: {from: 0, to: 500}
"""


@dataclass(frozen=True)
class RunFolder:
    """A run's directory and its statement."""

    path: Path

    @property
    def statement(self):
        return json.loads((self.path / "training.json").read_bytes())

    def edit(self, change):
        """Change the statement in place and write it back."""
        statement = self.statement
        change(statement)
        (self.path / "training.json").write_text(json.dumps(statement))

    def principle(self, **members):
        """Change members of the first principle; None takes one away."""

        def change(statement):
            entry = statement["principles"][0]
            for name, value in members.items():
                entry[name] = value
                if value is None:
                    del entry[name]

        self.edit(change)

    def resistance(self, **members):
        """Change members of the first principle's resistance."""
        found = self.statement["principles"][0]["resistance"]
        self.principle(resistance={**found, **members})


def _step(stage, step, route):
    record = {
        "kind": "step",
        "stage": stage,
        "step": step,
        "principle": None if route is None else route.principle,
        "principles": ["refuse", "tone"],
        "samples": ["refuse-00", "tone-00"],
        "loss": float_hex(1 / (step + 1)),
    }
    return record if route is None else record | {"route": route.digest}


def _ledger(path, constitution, schedule):
    heads = {}
    routes = list(schedule.routes.values())
    with Ledger.create(path) as ledger:
        for stage, made in {"sft": [None], "dpo": routes}.items():
            opening = {"kind": "stage", "stage": stage, "schedule": schedule.digest}
            ledger.append({**opening, "constitution": constitution.digest})
            for step in range(4):
                ledger.append(_step(stage, step, made[step % len(made)]))
            summary = ledger.summary()
            heads[stage] = {"treeSize": summary.size, "root": summary.root}
    return heads


def _stages(data, heads, result):
    ends = {"sft": digest(b"after sft"), "dpo": result}
    starts = {"sft": digest(b"before"), "dpo": ends["sft"]}
    return [
        {
            "name": name,
            "method": name,
            "base": starts[name],
            "result": ends[name],
            "eventLog": heads[name],
            "data": [data[f"{name}.jsonl"]],
        }
        for name in heads
    ]


def profile(**members):
    """A profile of two layers that adds up, with what `attest.figures` looks at."""
    return {
        "method": "lca-trapezoid/1",
        "layers": ["0.1000", "0.9000"],
        "inBand": "0.9000",
        "residual": "0.0300",
        "valid": True,
        **members,
    }


def _layout():
    names = ("stem.weight", "blocks.0.weight", "blocks.1.weight", "head.weight")
    units = dict(zip(names, ("stem", "L00", "L01", "head"), strict=True))
    return Layout("Toy", "blocks", 2, units)


def _measurement(schedule, *, missing):
    """Both principles, measured in two chunks; `missing` is left unexplained."""
    allocations = {
        name: Allocation(
            principle=name,
            band=route.layers,
            probe=digest(name.encode()),
            rows=8,
            weights=(3, 5),
            before=(2_000_000_000, 1_000_000_000),
            after=(1_000_000_000, 500_000_000),
            amounts={
                name: (
                    (1_000_000_000 - missing, 0),
                    (200_000_000, 300_000_000 - missing),
                )
            },
        )
        for name, route in schedule.routes.items()
    }
    return Measurement(
        stage="dpo",
        seed=0,
        every=2,
        steps=4,
        blocks=2,
        units=("L00", "L01"),
        allocations=allocations,
        curve={},
        events=(),
        exchanges={},
    )


def _resistance(constitution, weights, steps):
    """Every run of the full grid; the worst one lasts so many steps."""
    at = (0, *STD.at)
    curve = [(step, 10 if step < steps else 2) for step in at]
    fell = next(i for i, (_, kept) in enumerate(curve) if kept == 2)
    runs = [
        Run("refuse", attack.kind, rate, seed, 10, tuple(curve[: fell + 1]), "fell")
        for attack in STD.attacks
        for rate in attack.rates
        for seed in STD.seeds
    ]
    runs.append(Run("refuse", "restore", "0", 0, 10, ((0, 10), (0, 0)), "fell"))
    return Resistance(
        suite=STD,
        constitution=constitution.digest,
        weights=weights,
        environment={"torch": "2.13.0"},
        capabilities=(),
        before={"refuse": (10, 10)},
        starts={"refuse": Start(10, 10)},
        runs=tuple(runs),
    )


def make_run(path, *, weights="", on_miss="fail", steps=12, missing=0):
    """A run whose model has the tensor root `weights`, attacked for so many steps."""
    for folder in (path, path / "data", path / "trace"):
        folder.mkdir()
    weights = weights or digest(b"weights")
    (path / "constitution.yaml").write_text(CONSTITUTION.replace("ON_MISS", on_miss))
    constitution = load_constitution(path / "constitution.yaml")
    schedule = compile_schedule(constitution, _layout())
    (path / "schedule.json").write_bytes(schedule.dumps())
    measured = _measurement(schedule, missing=missing)
    profiles = write_profile(path / "profile.json", measured)
    attacked = _resistance(constitution, weights, steps)
    write_resistance(path / "resistance.json", attacked)
    for name in ("deltas-refuse", "deltas-tone", "sketches"):
        (path / "trace" / f"{name}.safetensors").write_bytes(name.encode())
    data = {}
    for name in ("sft.jsonl", "dpo.jsonl", "heldout.jsonl"):
        content = b'{"id":"' + name.encode() + b'"}\n'
        (path / "data" / name).write_bytes(content)
        data[name] = dataset(name, content)
    heads = _ledger(path / "ledger.jsonl", constitution, schedule)
    entries = [
        principle_entry(principle, constitution=constitution, schedule=schedule)
        | {"profile": profile_entry(measured.profile(principle.id))}
        for principle in constitution.principles
    ]
    entries[0] |= {
        "resistance": resistance_entry(constitution.principles[0], attacked),
        "evaluation": {"data": data["heldout.jsonl"]["digest"], "after": "0.9200"},
    }
    statement = {
        "model": {"name": "toy", "version": "2"},
        "constitution": {
            "id": constitution.id,
            "version": constitution.version,
            "digest": constitution.digest,
        },
        "principles": entries,
        "training": {
            "schedule": schedule.digest,
            "stages": _stages(data, heads, weights),
            "profile": profiles,
            "trace": trace_digests(path / "trace"),
        },
        "limits": ["one seed"],
    }
    (path / "training.json").write_text(json.dumps(statement))
    return RunFolder(path)
