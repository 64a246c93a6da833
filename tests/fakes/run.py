"""A training run's directory as the product's own parts write it, made without torch.

    run = make_run(folder, weights=root)
    run.edit(lambda statement: statement["training"].update(schedule=digest(b"x")))

Everything that a run may leave is there, and every digest fits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from attest.canonical import canonical
from attest.digests import digest
from attest.training.constitution import load_constitution
from attest.training.ledger import Ledger, float_hex
from attest.training.trace.values import trace_digests

__all__ = ["CONSTITUTION", "Run", "make_run"]

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
class Run:
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


def _step(stage, step, principle):
    return {
        "kind": "step",
        "stage": stage,
        "step": step,
        "principle": principle,
        "principles": ["refuse", "tone"],
        "samples": ["refuse-00", "tone-00"],
        "loss": float_hex(1 / (step + 1)),
    }


def _ledger(path, constitution, schedule):
    heads = {}
    with Ledger.create(path) as ledger:
        for stage, principles in {"sft": [None], "dpo": ["refuse", "tone"]}.items():
            opening = {"kind": "stage", "stage": stage, "schedule": schedule}
            ledger.append({**opening, "constitution": constitution.digest})
            for step in range(4):
                principle = principles[step % len(principles)]
                ledger.append(_step(stage, step, principle))
            summary = ledger.summary()
            heads[stage] = {"treeSize": summary.size, "root": summary.root}
    return heads


def _stages(data, heads, result):
    ends = {"sft": digest(b"after sft"), "dpo": result or digest(b"after dpo")}
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
    """A profile of two layers that adds up."""
    return {
        "method": "lca-trapezoid/1",
        "layers": ["0.1000", "0.9000"],
        "inBand": "0.9000",
        "residual": "0.0300",
        "valid": True,
        **members,
    }


def _files(path, constitution, weights):
    rows = {
        name: b'{"id":"' + name.encode() + b'"}\n'
        for name in ("sft.jsonl", "dpo.jsonl", "heldout.jsonl")
    }
    files = {f"data/{name}": content for name, content in rows.items()}
    files["schedule.json"] = b'{"routes": [["refuse", "sha256:x"]]}\n'
    files["profile.json"] = b'{"schema":"profile/1"}\n'
    found = {"constitution": constitution.digest, "weights": weights, "runs": []}
    files["resistance.json"] = canonical(found) + b"\n"
    for name in ("deltas-refuse", "deltas-tone", "sketches"):
        files[f"trace/{name}.safetensors"] = name.encode()
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)
    data = {n: {"name": n, "digest": digest(c), "count": 1} for n, c in rows.items()}
    return files, data


def make_run(path, *, weights="", on_miss="fail", steps=12):
    """A run whose model has the tensor root `weights`, attacked for so many steps."""
    path.mkdir()
    weights = weights or digest(b"weights")
    source = CONSTITUTION.replace("ON_MISS", on_miss)
    (path / "constitution.yaml").write_text(source)
    constitution = load_constitution(path / "constitution.yaml")
    files, data = _files(path, constitution, weights)
    schedule = digest(canonical(json.loads(files["schedule.json"])))
    heads = _ledger(path / "ledger.jsonl", constitution, schedule)
    worst = {"attack": "full", "stepsBelowHalf": steps, "censored": False, "seeds": 3}
    resistance = {
        "suite": "std-1",
        "suiteDigest": digest(b"std-1"),
        "required": {"suite": "std-1", "minStepsBelowHalf": 10, "onMiss": on_miss},
        "measured": {"worst": worst, "curves": digest(files["resistance.json"])},
        "met": steps >= 10,
    }
    evaluation = {"data": data["heldout.jsonl"]["digest"], "after": "0.9200"}
    entries = {
        p.id: {"id": p.id, "title": p.title, "class": p.kind, "digest": p.digest}
        for p in constitution.principles
    }
    entries["refuse"] |= {"profile": profile(), "resistance": resistance}
    entries["refuse"] |= {"evaluation": evaluation}
    statement = {
        "model": {"name": "toy", "version": "2"},
        "constitution": {
            "id": constitution.id,
            "version": constitution.version,
            "digest": constitution.digest,
        },
        "principles": list(entries.values()),
        "training": {
            "schedule": schedule,
            "stages": _stages(data, heads, weights),
            "profile": digest(files["profile.json"]),
            "trace": trace_digests(path / "trace"),
        },
        "limits": ["one seed"],
    }
    (path / "training.json").write_text(json.dumps(statement))
    return Run(path)
