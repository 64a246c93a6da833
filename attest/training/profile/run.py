"""The diagnosis of a later model against a training run's directory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import AutoTokenizer

from attest.errors import ConfigurationError, EvidenceUnavailableError
from attest.training.batches import encode
from attest.training.constitution import Constitution, load_constitution
from attest.training.evaluation import evaluate
from attest.training.layout import read_layout
from attest.training.principles import Principle
from attest.training.profile.blame import rank_steps, step_records
from attest.training.profile.diagnose import diagnose
from attest.training.profile.diagnosis import Diagnosis, Steps
from attest.training.profile.document import load_profile
from attest.training.profile.patching import Weights, mixing
from attest.training.profile.probe import make_probe
from attest.training.resistance.rows import FileRow, read_rows
from attest.training.weights import load_model, load_tensors

__all__ = ["diagnose_run"]

Progress = Callable[[str, int, int], None]


def diagnose_run(
    run: Path,
    later: Path,
    *,
    principles: Sequence[str] = (),
    ledger: Path | None = None,
    progress: Progress | None = None,
) -> list[Diagnosis]:
    """Diagnose the model directory `later` against `run/model`, in float32 on the CPU.

    Rows are those that the principles' evaluations name in `run/data`. Steps of the run
    are ranked by `run/profile.json`; those of the later ledger by the profile.json that
    lies beside it. Without such a file, or without events in it, by their energies.

    Raises:
        ConfigurationError: a file of the run is unusable, or a principle has no
            evaluation.
        ConstitutionError: an unknown principle, or a constitution that cannot be read.
        LedgerError: a ledger cannot be read.
        TrainingError: no model, too few rows, or a later one of another architecture.
    """
    work = _Work(run, later, load_constitution(run / "constitution.yaml"))
    chosen = [work.constitution.principle(name) for name in principles]
    chosen = chosen or [p for p in work.constitution.routed if p.evaluation]
    found = []
    for number, principle in enumerate(chosen):
        if progress is not None:
            progress(f"diagnose {principle.id}", number, len(chosen))
        result = work.diagnosis(principle)
        if result.responsible:
            result = _with_steps(result, run / "ledger.jsonl", ledger)
        found.append(result)
    return found


class _Work:
    """Both models, loaded once."""

    def __init__(self, run: Path, later: Path, constitution: Constitution) -> None:
        self.run, self.constitution = run, constitution
        self._model = load_model(run / "model").float()
        self._tokenizer = AutoTokenizer.from_pretrained(run / "model")
        self._layout = read_layout(self._model)
        self._later: Weights = {
            name: tensor.float() for name, tensor in load_tensors(later).items()
        }

    def diagnosis(self, principle: Principle) -> Diagnosis:
        rows = self._rows(principle)
        probe = make_probe(
            principle.id,
            [encode(self._tokenizer, row) for row in rows],
            pad=int(self._tokenizer.pad_token_id),
            chunks=len(rows),
        )
        found = diagnose(self._model, self._later, probe, self._layout)
        return replace(found, kept=self._kept(rows))

    def _rows(self, principle: Principle) -> list[FileRow]:
        if principle.evaluation is None:
            raise ConfigurationError(
                f"principle {principle.id!r}: expected an evaluation, whose held-out "
                "rows tell what it should answer",
                hint="give it one in the constitution, or diagnose another principle",
            )
        path = self.run / "data" / principle.evaluation.heldout
        return [row for row in read_rows(path) if row.principle == principle.id]

    def _kept(self, rows: Sequence[FileRow]) -> tuple[int, int]:
        units = tuple(set(self._layout.units.values()))
        with mixing(self._model, self._later, self._layout) as mix:
            governed = self._passed(rows)
            mix(units)
            return governed, self._passed(rows)

    def _passed(self, rows: Sequence[FileRow]) -> int:
        scores = evaluate(
            self._model, self._tokenizer, rows=rows, constitution=self.constitution
        )
        return sum(score.passed for score in scores.values())


def _with_steps(found: Diagnosis, run: Path, later: Path | None) -> Diagnosis:
    notes: list[str] = []
    built = _ranked(run, found, 1, notes)
    broke = None if later is None else _ranked(later, found, -1, notes)
    return replace(found, built=built, broke=broke, notes=tuple(notes))


def _ranked(
    ledger: Path, found: Diagnosis, sign: int, notes: list[str]
) -> Steps | None:
    beside = ledger.with_name("profile.json")
    measured = load_profile(beside) if beside.is_file() else None
    try:
        return rank_steps(
            step_records(ledger),
            measured,
            found.principle,
            units=found.responsible,
            sign=sign,
        )
    except EvidenceUnavailableError as error:
        notes.append(str(error))
        return None
