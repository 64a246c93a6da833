"""Which steps of a ledger are behind what some layers do for a principle.

Where a recorder measured the run, each step's amounts in these layers are known. With
momentum, most of what a step changes was asked for by earlier batches: of each amount
the part that the previous step of the same tensors still pushed is taken away. Without
a measurement only the energies of the ledger are left, and they mislead: under Adam
every step has about the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attest.errors import EvidenceUnavailableError, FormatError
from attest.training.ledger import counted, hex_float
from attest.training.profile.diagnosis import StepBlame, Steps
from attest.training.profile.measured import BILLION, Event, Measurement

__all__ = ["MOMENTUM", "rank_steps", "step_records"]

# The first beta of Adam, and the usual momentum of SGD.
MOMENTUM = 0.9

_Record = Mapping[str, Any]


def step_records(path: Path) -> list[_Record]:
    """The steps of a ledger that count, in order.

    Raises:
        LedgerError: it can't be read.
    """
    return [record for record in counted(path) if record.get("kind") == "step"]


def rank_steps(
    records: Sequence[_Record],
    measured: Measurement | None,
    principle: str,
    *,
    units: Sequence[str],
    sign: int,
) -> Steps:
    """The steps in order of what they did in these units.

    `sign` is 1 for steps that served the principle and -1 for those that harmed it.
    Without a measurement, or where it kept no events of this principle, all steps are
    ranked by energy.

    Raises:
        EvidenceUnavailableError: neither amounts nor energies are there, or the
            measurement is not of this ledger.
    """
    if measured is not None and any(principle in e.amounts for e in measured.events):
        of_stage = {
            record["step"]: record
            for record in records
            if record.get("stage") == measured.stage
        }
        if len(of_stage) != measured.steps:
            raise EvidenceUnavailableError(
                f"profile: expected the {measured.steps} steps of stage "
                f"{measured.stage!r} in the ledger, found {len(of_stage)}",
                hint="give the ledger and the profile.json of one run",
            )
        own = _own_amounts(measured.events, principle, units)
        scores = {step: sign * amount / BILLION for step, amount in own.items()}
        return _steps("lca", scores, of_stage)
    energies = {
        number: _energy(record, units)
        for number, record in enumerate(records)
        if isinstance(record.get("energy"), dict)
    }
    if not energies:
        raise EvidenceUnavailableError(
            "ledger: no step has energies, and there is no profile.json with events",
            hint="train with a ProfileRecorder as an observer; it measures every step",
        )
    return _steps("energy", energies, dict(enumerate(records)))


def _own_amounts(
    events: Iterable[Event], principle: str, units: Sequence[str]
) -> dict[int, float]:
    """What each step's own batch did; amounts of tensors that share an optimizer."""
    pushed: dict[frozenset[str], dict[str, float]] = {}
    own: dict[int, float] = {}
    for event in events:
        amounts = event.amounts.get(principle, {})
        before = pushed.setdefault(frozenset(amounts), {})
        own[event.step] = sum(
            amounts.get(unit, 0) - MOMENTUM * before.get(unit, 0.0) for unit in units
        )
        before.update(amounts)
    return own


def _energy(record: _Record, units: Sequence[str]) -> float:
    try:
        return sum(hex_float(record["energy"].get(unit, "00000000")) for unit in units)
    except (TypeError, FormatError) as error:
        raise EvidenceUnavailableError(
            f"ledger: record {record.get('seq')}: expected energies"
        ) from error


def _steps(
    method: str, scores: Mapping[int, float], records: Mapping[int, _Record]
) -> Steps:
    total = sum(max(score, 0.0) for score in scores.values())
    order = sorted(scores, key=lambda key: (-scores[key], key))
    return Steps(
        method,
        len(scores),
        tuple(
            _step(records[key], scores[key], scores[key] / total if total else 0.0)
            for key in order
            if scores[key] > 0 and key in records
        ),
    )


def _step(record: _Record, score: float, share: float) -> StepBlame:
    samples = record.get("samples")
    return StepBlame(
        seq=int(record["seq"]),
        stage=str(record.get("stage")),
        step=int(record["step"]),
        principle=str(record.get("principle") or "unrouted"),
        samples=tuple(map(str, samples)) if isinstance(samples, list) else (),
        score=score,
        share=share,
    )
