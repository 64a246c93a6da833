"""What the demo's run says of itself: every figure from what was measured in it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from attest.canonical import reject_floats
from attest.files import write_durably
from attest.training.constitution import Constitution
from attest.training.evaluation import Score
from attest.training.ledger import LedgerSummary
from attest.training.profile.entry import profile_entry
from attest.training.profile.measured import Measurement
from attest.training.resistance.entry import with_resistance
from attest.training.resistance.values import Resistance
from attest.training.routing import Schedule
from attest.training.statement import (
    LIMITS,
    environment,
    evaluation_entry,
    principle_entry,
    stage_entry,
)

__all__ = ["Facts", "Measured", "write_statement"]

_MODEL = {"name": "toy-assistant", "version": "1.0.0"}
# What each stage was trained on.
_DATA = {"base": ("base",), "governed": ("governed", "planted")}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was known before training: constitution, schedule, data files, seed."""

    constitution: Constitution
    schedule: Schedule
    data: Mapping[str, Mapping[str, Any]]
    seed: int


@dataclass(slots=True)
class Measured:
    """What training left behind.

    Attributes:
        heads: of the ledger, at the end of each stage.
        roots: of the weights, before the first stage and after each.
        before, after: scores around the governed stage, by split and principle.
        digests: of the files that the statement names.
    """

    heads: Mapping[str, LedgerSummary]
    roots: Sequence[str]
    before: Mapping[str, Mapping[str, Score]]
    after: Mapping[str, Mapping[str, Score]]
    profile: Measurement
    digests: dict[str, Any]
    resistance: Resistance | None = field(default=None)


def write_statement(path: Path, facts: Facts, measured: Measured) -> Path:
    """Write `training.json`, wholly or not at all; returns its path."""
    constitution = facts.constitution
    setting = environment(seed=facts.seed, threads=torch.get_num_threads())
    stages = [
        stage_entry(
            name,
            head,
            data=[facts.data[file] for file in _DATA[name]],
            setting=setting,
            base=base,
            result=result,
        )
        for (name, head), base, result in zip(
            measured.heads.items(), measured.roots, measured.roots[1:], strict=False
        )
    ]
    statement: dict[str, Any] = {
        "model": _MODEL,
        "constitution": {
            "id": constitution.id,
            "version": constitution.version,
            "digest": constitution.digest,
        },
        "principles": [
            _principle(p.id, facts, measured) for p in constitution.principles
        ],
        "training": {
            "schedule": facts.schedule.digest,
            "stages": stages,
            "profile": measured.digests["profile"],
            "trace": measured.digests["trace"],
        },
        "evaluation": [
            {
                "name": "test",
                "principle": p.id,
                **_scores(p.id, "test", facts, measured),
            }
            for p in constitution.principles
        ],
        "limits": list(LIMITS),
    }
    if measured.resistance is not None:
        statement = with_resistance(statement, constitution, measured.resistance)
    reject_floats(statement)
    write_durably(path, json.dumps(statement, indent=2).encode() + b"\n")
    return path


def _principle(name: str, facts: Facts, measured: Measured) -> dict[str, Any]:
    entry = principle_entry(
        facts.constitution.principle(name),
        constitution=facts.constitution,
        schedule=facts.schedule,
    )
    if name in measured.profile.allocations:
        entry["profile"] = profile_entry(measured.profile.profile(name))
    return {**entry, "evaluation": _scores(name, "heldout", facts, measured)}


def _scores(name: str, split: str, facts: Facts, measured: Measured) -> dict[str, Any]:
    return evaluation_entry(
        facts.constitution.principle(name),
        data=facts.data[split],
        before=measured.before[split][name],
        after=measured.after[split][name],
    )
