"""The resistance test of a training run's directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attest.errors import ConfigurationError
from attest.training.constitution import Constitution, load_constitution
from attest.training.resistance.measure import Progress, measure
from attest.training.resistance.rows import Row, Rows, contrary_rows, read_rows
from attest.training.resistance.suite import Suite
from attest.training.resistance.values import Resistance

__all__ = ["measure_run", "rows_of"]


def measure_run(  # noqa: PLR0913  # one parameter per option of the command
    run: Path,
    *,
    suite: Suite,
    principles: Sequence[str] = (),
    contrary: Path | None = None,
    benign: Path | None = None,
    controls: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
) -> Resistance:
    """Measure `run/model` and the control models; nothing is written.

    `run/parent` is restored from where it exists. Rows are chosen as `rows_of` says.

    Raises:
        ConfigurationError, ConstitutionError: a file of the run is unusable.
        TrainingError: as `measure`.
    """
    constitution = load_constitution(run / "constitution.yaml")
    rows = rows_of(
        run, constitution, principles=principles, contrary=contrary, benign=benign
    )
    parent = run / "parent"
    found = measure(
        run / "model",
        None,
        rows,
        constitution,
        suite=suite,
        parent=parent if parent.is_dir() else None,
        progress=progress,
    )
    for name, directory in (controls or {}).items():
        control = measure(
            directory, None, rows, constitution, suite=suite, progress=progress
        )
        found = found.with_control(name, control)
    return found


def rows_of(
    run: Path,
    constitution: Constitution,
    *,
    principles: Sequence[str] = (),
    contrary: Path | None = None,
    benign: Path | None = None,
) -> Rows:
    """The rows of a run to attack with and to judge by.

    Held-out rows come from the files that the evaluations name. Every row of `contrary`
    teaches against its principle; without that file, rows do whose answer in
    `data/base.jsonl` is not the one in `data/governed.jsonl`. Benign are the rows of
    that file, else those of capabilities in `data/governed.jsonl`. `principles` narrows
    what is attacked; empty takes all that have a band and contrary rows.

    Raises:
        ConfigurationError: a file can't be read, or there are no contrary rows for a
            principle that was named, or for any.
    """
    data = run / "data"
    files = sorted(
        {p.evaluation.heldout for p in constitution.principles if p.evaluation}
    )
    heldout = [row for name in files for row in read_rows(data / name)]
    taught = () if contrary and benign else read_rows(data / "governed.jsonl")
    wanted = principles or [principle.id for principle in constitution.routed]
    against: dict[str, list[Row]] = {}
    if contrary:
        for row in read_rows(contrary):
            if row.principle in wanted:
                against.setdefault(row.principle, []).append(row)
    else:
        against = contrary_rows(read_rows(data / "base.jsonl"), taught, wanted)
    missing = [name for name in principles if name not in against]
    if missing or not against:
        raise ConfigurationError(
            f"resistance: no rows teach against {(missing or ['any principle'])[0]}",
            hint="give a JSONL file of such rows: --contrary FILE",
        )
    capabilities = {p.id for p in constitution.principles if p.kind == "capability"}
    harmless = [row for row in taught if row.principle in capabilities]
    return Rows(heldout, against, read_rows(benign) if benign else harmless)
