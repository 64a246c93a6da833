"""`attest resistance`: after how much fine-tuning a principle is lost."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attest.canonical import read_object
from attest.cli._progress import counted_progress
from attest.cli._read import read_input
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import TRAINING_FILE
from attest.cli._text import clean, rendered
from attest.cli._unverified import NOT_VERIFIED, unverified_manifest
from attest.envelope import MAX_ENVELOPE
from attest.errors import ConfigurationError, FormatError
from attest.files import write_durably

if TYPE_CHECKING:
    from attest.training.resistance.values import Resistance

__all__ = ["app"]

app = new_app("Measure and show after how much fine-tuning a principle is lost.")

_RunDirectory = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The run's directory.", show_default=False),
]


@command(app)
def measure(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    run: _RunDirectory,
    *,
    suite: Annotated[
        str, typer.Option(metavar="NAME", help="The attack grid: std-1 or quick-1.")
    ] = "std-1",
    principle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Attack only this principle, not all; repeatable."
        ),
    ] = None,
    contrary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSONL rows that teach against principles. [default: rows of "
            "data/base.jsonl with another answer in data/governed.jsonl]",
        ),
    ] = None,
    benign: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSONL rows that teach nothing about them. [default: rows of "
            "capabilities in data/governed.jsonl]",
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A model to compare with, such as unrouted=DIR; repeatable.",
        ),
    ] = None,
) -> Answer:
    """Attack a run's model and write resistance.json; the model stays as it is.

    Where the run has a training.json, the result goes into it, to be signed with it.
    Runs on the CPU with as many threads as torch takes; set OMP_NUM_THREADS=1 for
    figures that come out the same.
    """
    # Imported here: torch takes seconds, and showing needs none.
    from attest.training.constitution import load_constitution  # noqa: PLC0415
    from attest.training.resistance.entry import (  # noqa: PLC0415
        with_resistance,
        write_resistance,
    )
    from attest.training.resistance.run import measure_run  # noqa: PLC0415
    from attest.training.resistance.suite import suite_named  # noqa: PLC0415
    from attest.training.resistance.values import FILE_NAME  # noqa: PLC0415

    path, statement = run / FILE_NAME, run / TRAINING_FILE
    _refuse_existing(path)
    grid = suite_named(suite)
    controls = dict(_named_directory(text) for text in control or ())
    stated = _statement(statement) if statement.exists() else None
    with counted_progress(context) as progress:
        found = measure_run(
            run,
            suite=grid,
            principles=principle or (),
            contrary=contrary,
            benign=benign,
            controls=controls,
            progress=progress,
        )
    write_resistance(path, found)
    written = [str(path)]
    if stated is not None:
        constitution = load_constitution(run / "constitution.yaml")
        stated = with_resistance(stated, constitution, found)
        write_durably(statement, (json.dumps(stated, indent=2) + "\n").encode())
        written.append(str(statement))
    answer = _shown(found)
    words = f"written: {', '.join(map(clean, written))}"
    return Answer(
        {"paths": written, **answer.data}, lambda: f"{answer.text()}\n{words}"
    )


@command(app)
def show(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A run's directory, its resistance.json, or a manifest.",
            show_default=False,
        ),
    ],
    *,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves as SVG, too.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves as PNG, too.")
    ] = None,
) -> Answer:
    """Show survival curves, or what a manifest says of them. Nothing is verified.

    A manifest holds the worst figures and the digest of the curves, no curves.
    """
    from attest.training.resistance.values import FILE_NAME  # noqa: PLC0415

    path = file / FILE_NAME if file.is_dir() else file
    data = read_input(str(path), max_bytes=max(MAX_ENVELOPE, _max_bytes()))
    found = _curves(data, path)
    if found is None:
        if svg or png:
            raise typer.BadParameter("a manifest holds no curves to draw")
        return _stated(data)
    for picture, suffix in ((svg, ".svg"), (png, ".png")):
        if picture is not None:
            _draw(found, picture, suffix)
    return _shown(found)


def _curves(data: bytes, path: Path) -> "Resistance | None":
    from attest.training.resistance.reader import parse_resistance  # noqa: PLC0415
    from attest.training.resistance.values import SCHEMA  # noqa: PLC0415

    value = read_object(data, max_bytes=len(data))
    if "payload" in value:
        return None
    if "schema" not in value:
        raise ConfigurationError(
            f"{path}: expected {SCHEMA} or a manifest",
            hint="attest resistance measure RUN makes such a file",
        )
    return parse_resistance(data)


def _draw(found: "Resistance", path: Path, suffix: str) -> None:
    from attest.training.resistance.figure import draw  # noqa: PLC0415

    if path.suffix != suffix:
        raise typer.BadParameter(f"{path}: expected a name that ends in {suffix}")
    _refuse_existing(path)
    draw(found, path)


def _shown(found: "Resistance") -> Answer:
    # Imported here: only people need tables.
    from attest.cli._survival import (  # noqa: PLC0415
        resistance_json,
        resistance_tables,
    )

    def text() -> str:
        head = f"suite {found.suite.name}, weights {found.weights}"
        return f"{clean(head)}\n{rendered(resistance_tables(found))}"

    return Answer(resistance_json(found), text)


def _stated(data: bytes) -> Answer:
    from attest.cli._survival import stated_table  # noqa: PLC0415

    manifest, _ = unverified_manifest(data)
    principles = manifest.predicate.get("principles")
    listed = principles if isinstance(principles, list) else []
    return Answer(
        {
            "verified": False,
            "manifest": manifest.digest,
            "principles": {
                str(item.get("id")): item.get("resistance")
                for item in listed
                if isinstance(item, dict)
            },
        },
        lambda: f"{NOT_VERIFIED}\n{rendered(stated_table(listed))}",
    )


def _max_bytes() -> int:
    from attest.training.resistance.reader import MAX_BYTES  # noqa: PLC0415

    return MAX_BYTES


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigurationError(
            f"{path}: exists and is not overwritten",
            hint="move it away; a measurement that displeased should stay on record",
        )


def _named_directory(text: str) -> tuple[str, Path]:
    name, equals, directory = text.partition("=")
    if not (name and equals and directory):
        raise typer.BadParameter(f"{text!r}: expected NAME=DIR, as in unrouted=DIR")
    return name, Path(directory)


def _statement(path: Path) -> dict[str, Any]:
    data = read_input(str(path), max_bytes=MAX_ENVELOPE)
    try:
        return read_object(data, max_bytes=MAX_ENVELOPE)
    except FormatError as error:
        raise ConfigurationError(f"{path}: {error}") from error
