"""What a trace says, and what binds its files to a manifest. Free of torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attest.canonical import canonical
from attest.digests import digest

__all__ = [
    "DELTAS",
    "LEAST_NATS",
    "SKETCHES",
    "EventScore",
    "PrincipleShare",
    "RowScore",
    "Threshold",
    "Trace",
    "is_governed",
    "trace_digests",
]

DELTAS = "deltas*.safetensors"
SKETCHES = "sketches.safetensors"

# Twenty times likelier: less is what any training does to any answer.
LEAST_NATS = 3.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least gain that is put down to governed training, as chosen after a run.

    Attributes:
        nats: the gain; by itself, that which makes an answer twenty times likelier.
        false_alarms: share of the training rows of principles without a route whose
            gain reaches it; None where there were no such rows.
        missed: share of the training rows of routed principles that stay below it.
        rows: on how many rows it was chosen; 0 for none.
    """

    nats: float = LEAST_NATS
    false_alarms: float | None = None
    missed: float | None = None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class PrincipleShare:
    """What the steps of one principle gave to an answer.

    Attributes:
        nats: their part of the gain in log-likelihood; the parts of all principles add
            up to the gain, up to the residual. A part can be negative or exceed the
            gain: one principle's steps undo and repair what another's did.
        layers: the same by unit (`L00`, ...), in the order of the model.
        tokens: the same by token of the answer.
        support: in which share of resampled answers (tokens drawn with replacement)
            this principle has the largest part.
    """

    principle: str
    nats: float
    layers: Mapping[str, float]
    tokens: Sequence[float]
    support: float


@dataclass(frozen=True, slots=True)
class RowScore:
    """A training row, and the cosine of its gradient with that of the answer."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class EventScore:
    """One step of the ledger, ranked by how alike it is to what taught the answer.

    Attributes:
        seq: its number in the ledger.
        principle: the one that it was made for, "" for an unrouted step.
        score: what the order goes by; it has no unit and never adds up.
        step: cosine of the step's sketch with that of the answer's gradient.
        rows: the most alike of its rows, best first; empty where rows were not scored.
        samples: ids of all its rows.
    """

    seq: int
    principle: str
    score: float
    step: float
    rows: Sequence[RowScore]
    samples: Sequence[str]


@dataclass(frozen=True, slots=True)
class Trace:
    """From one answer to principles, layers and events.

    Attributes:
        tokens: how many tokens the answer has, its end included where it ended.
        gain: log p(answer) under the model minus that under its parent, in nats.
        residual: the part of the gain that the shares miss, as a fraction of it.
        points: places on the line at which the gradient was taken.
        principles: largest share first.
        events: highest score first.

    Where the trace abstains (`governed` is false), there are no principles and events.
    """

    tokens: int
    gain: float
    threshold: Threshold
    residual: float | None = None
    points: int = 0
    principles: Sequence[PrincipleShare] = ()
    events: Sequence[EventScore] = ()

    @property
    def governed(self) -> bool:
        """Whether the answer is put down to governed training at all."""
        return is_governed(self.gain, self.threshold)

    @property
    def lead(self) -> float | None:
        """How far the first principle leads the second, as a fraction of the gain."""
        if not self.principles:
            return None
        first, *rest = (share.nats for share in self.principles)
        return (first - (rest[0] if rest else 0.0)) / self.gain

    def to_json(self) -> dict[str, Any]:
        """The trace for machines, rounded to four digits."""
        value: dict[str, Any] = _rounded(asdict(self))
        return {"governed": self.governed, "lead": _rounded(self.lead), **value}


def is_governed(gain: float, threshold: Threshold) -> bool:
    """Whether a gain is put down to governed training."""
    return gain >= threshold.nats


def trace_digests(folder: Path) -> dict[str, str]:
    """What `training.trace` of a statement says about the files of a trace.

    `sketches` is the digest of the file; `deltas` that of the RFC 8785 form of
    [[name, digest], ...] over the delta files, sorted by name.

    Raises:
        OSError: a file cannot be read.
    """
    deltas = [[path.name, _digest(path)] for path in sorted(folder.glob(DELTAS))]
    return {
        "deltas": digest(canonical(deltas)),
        "sketches": _digest(folder / SKETCHES),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
