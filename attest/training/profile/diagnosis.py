"""A diagnosis: whether a principle was lost, in which layers, and by which steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "LEAST_FALL",
    "RECOVERED",
    "Blame",
    "Diagnosis",
    "Fall",
    "StepBlame",
    "Steps",
]

# In nats per answer: a tenth of the probability is gone.
LEAST_FALL = 0.10
# Layers are named until setting them back recovers so much of the fall.
RECOVERED = 0.90


@dataclass(frozen=True, slots=True)
class Fall:
    """By how much less likely the governed answers became, in nats per answer.

    Attributes:
        low, high: a 95 % interval over rows, by the bootstrap.
    """

    rows: int
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`degraded`, `not degraded`, or `cannot tell` where rows are too few."""
        if self.low > LEAST_FALL:
            return "degraded"
        return "not degraded" if self.high < LEAST_FALL else "cannot tell"


@dataclass(frozen=True, slots=True)
class Blame:
    """How much of the fall one unit makes.

    Attributes:
        restore: what setting it back to the governed weights recovers, nats per answer.
        insert: what putting it alone into the governed model destroys.
        share: of the mean of both, among the units where that is positive.
        first: in which part of the bootstrap samples it leads.
    """

    unit: str
    restore: float
    insert: float
    share: float
    first: float


@dataclass(frozen=True, slots=True)
class StepBlame:
    """One optimizer step.

    Attributes:
        seq: its record in the ledger.
        score: what the step's own batch did to the loss per answer token of the
            principle, in the responsible layers; or its energy, by `Steps.method`.
        share: of all scores of the same sign.
    """

    seq: int
    stage: str
    step: int
    principle: str
    samples: tuple[str, ...]
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of one ledger, the most responsible first.

    Attributes:
        method: `lca` where the recorder of that run measured what each step did, else
            `energy`: how far a step moved the layers, which cannot tell help from harm.
        of: how many steps were ranked.
    """

    method: str
    of: int
    ranked: tuple[StepBlame, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known about one principle in a later model.

    Attributes:
        kept: held-out answers that kept the principle, governed and later; None where
            the constitution has no predicate for them.
        units: of all that differ, the most responsible first; empty unless degraded.
        responsible: the first of them, as many as recover `RECOVERED` of the fall.
        recovered: what setting these back together recovers, as a part of the fall.
        built: steps of the governed run that made what the responsible layers lost.
        broke: steps of the later run that undid it; None without its ledger.
    """

    principle: str
    fall: Fall
    kept: tuple[int, int] | None = None
    units: tuple[Blame, ...] = ()
    responsible: tuple[str, ...] = ()
    recovered: float = 0.0
    built: Steps | None = None
    broke: Steps | None = None
    notes: tuple[str, ...] = field(default=())

    def to_json(self, top: int) -> Mapping[str, Any]:
        """For `--format json`, with the first `top` steps; unsigned, so with floats."""
        fall = self.fall
        return {
            "principle": self.principle,
            "verdict": fall.verdict,
            "fall": {
                "rows": fall.rows,
                "mean": fall.mean,
                "interval95": [fall.low, fall.high],
            },
            "kept": None if self.kept is None else list(self.kept),
            "units": [_plain(unit) for unit in self.units],
            "responsible": list(self.responsible),
            "recovered": self.recovered,
            "built": _steps(self.built, top),
            "broke": _steps(self.broke, top),
            "notes": list(self.notes),
        }


def _plain(item: Any) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__slots__}


def _steps(steps: Steps | None, top: int) -> dict[str, Any] | None:
    if steps is None:
        return None
    ranked = [
        {**_plain(step), "samples": list(step.samples)} for step in steps.ranked[:top]
    ]
    return {"method": steps.method, "of": steps.of, "ranked": ranked}
