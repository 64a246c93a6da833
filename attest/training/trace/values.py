"""What a trace says, and what binds its files to a manifest. Free of torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.canonical import canonical
from attest.digests import digest

__all__ = [
    "DELTAS",
    "SKETCHES",
    "EventScore",
    "PrincipleShare",
    "Trace",
    "trace_digests",
]

DELTAS = "deltas*.safetensors"
SKETCHES = "sketches.safetensors"


@dataclass(frozen=True, slots=True)
class PrincipleShare:
    """What the steps of one principle gave to an answer.

    Attributes:
        nats: their part of the gain in log-likelihood; parts of all principles add up
            to the gain, up to the residual.
        layers: the same by unit (`L00`, ...), in the order of the model.
    """

    principle: str
    nats: float
    layers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EventScore:
    """One step of the ledger, ranked by how far it moved the model to an answer.

    Attributes:
        seq: its number in the ledger.
        score: estimate from the sketch, in nats; good for the order alone.
        z: how many robust standard deviations it lies above the median of all events
            of its principle.
    """

    seq: int
    principle: str
    score: float
    z: float
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """From one answer to principles, layers and events.

    Attributes:
        gain: log p(answer) under the model minus that under its parent, in nats.
        threshold: a gain below it is not put down to governed training.
        principles: largest share first.
        events: highest score first; empty where the trace abstains.
    """

    tokens: int
    gain: float
    threshold: float
    principles: Sequence[PrincipleShare]
    events: Sequence[EventScore]

    @property
    def governed(self) -> bool:
        """Whether the answer is put down to governed training at all."""
        return self.gain >= self.threshold

    @property
    def residual(self) -> float:
        """The part of the gain that the shares miss, as a fraction of its size."""
        explained = sum(share.nats for share in self.principles)
        return abs(explained - self.gain) / max(abs(self.gain), 1e-9)

    def to_json(self) -> dict[str, Any]:
        """The trace for machines, rounded to four digits."""
        return {
            "governed": self.governed,
            "tokens": self.tokens,
            "gain": round(self.gain, 4),
            "threshold": round(self.threshold, 4),
            "residual": round(self.residual, 4),
            "principles": [
                {
                    "principle": share.principle,
                    "nats": round(share.nats, 4),
                    "layers": {u: round(n, 4) for u, n in share.layers.items()},
                }
                for share in self.principles
            ],
            "events": [
                {
                    "seq": event.seq,
                    "principle": event.principle,
                    "score": round(event.score, 4),
                    "z": round(event.z, 2, 4),
                    "samples": list(event.samples),
                }
                for event in self.events
            ],
        }


def trace_digests(folder: Path) -> dict[str, str]:
    """What `training.trace` of a statement says about the files of a trace.

    `sketches` is the digest of the file; `deltas` that of the RFC 8785 form of
    [[name, digest], ...] over the delta files, sorted by name.

    Raises:
        OSError: a file cannot be read.
    """
    deltas = [[p.name, digest(p.read_bytes())] for p in sorted(folder.glob(DELTAS))]
    return {
        "deltas": digest(canonical(deltas)),
        "sketches": digest((folder / SKETCHES).read_bytes()),
    }
