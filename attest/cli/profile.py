"""`attest profile`: where in its depth a model took up its principles."""

from pathlib import Path
from typing import Annotated

import typer

from attest.cli._profile import Source, read_source
from attest.cli._progress import counted_progress
from attest.cli._run import Answer, command, new_app
from attest.cli._text import clean, rendered
from attest.cli._unverified import NOT_VERIFIED
from attest.cli.exits import ExitCode
from attest.errors import ConfigurationError
from attest.training.profile.diagnosis import Diagnosis
from attest.training.profile.summary import Row, rows

__all__ = ["app"]

app = new_app("Show where training was absorbed, and what undid it.")

_CODES = {
    "degraded": ExitCode.FALSE,
    "cannot tell": ExitCode.UNKNOWN,
    "not degraded": ExitCode.OK,
}
_VERIFY = "To verify: attest manifest verify FILE --authority authority.pub.pem"


@command(app)
def show(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run directories, profile.json, training.json or manifests; or -. "
            "Several of one recipe are shown as mean and deviation.",
            show_default=False,
        ),
    ],
    *,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it as SVG too.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it as PNG too.")
    ] = None,
) -> Answer:
    """Draw the share that every layer took up, principle by principle.

    Every figure is derived again from the amounts beneath it; one that does not follow
    is an error. No signature is verified. Pictures need matplotlib.
    """
    found = [read_source(source) for source in sources]
    shown = rows([source.profiles for source in found])
    for path, suffix in ((svg, ".svg"), (png, ".png")):
        if path is not None:
            _draw(shown, path, suffix, found)
    return Answer(
        {"sources": [source.to_json() for source in found]},
        lambda: _text(shown, found),
    )


@command(app)
def diagnose(  # noqa: PLR0913  # one parameter per option
    context: typer.Context,
    *,
    run: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The run that made the governed model."),
    ],
    model: Annotated[
        Path, typer.Option(metavar="DIR", help="The later model: a directory.")
    ],
    principle: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this principle, not all; repeatable."),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ledger of the run that made the later model; a profile.json beside "
            "it tells what its steps did.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, max=1000, help="How many training steps to name.")
    ] = 10,
) -> Answer:
    """Say whether a later model lost a principle, in which layers, by which steps.

    Layers are exchanged between RUN/model and the later model while held-out rows are
    asked. The exit code is 0 when nothing was lost, 1 when something was, 3 when the
    rows are too few to tell. It names training rows by their ids.
    """
    # Imported here: torch takes seconds, and showing needs none.
    from attest.training.profile.run import diagnose_run  # noqa: PLC0415

    with counted_progress(context) as progress:
        found = diagnose_run(
            run, model, principles=principle or (), ledger=ledger, progress=progress
        )
    verdicts = {item.fall.verdict for item in found}
    code = next(code for verdict, code in _CODES.items() if verdict in verdicts)
    return Answer(
        {"principles": [item.to_json(top) for item in found]},
        lambda: _diagnosis(found, top),
        code,
    )


def _diagnosis(found: list[Diagnosis], top: int) -> str:
    from attest.cli._diagnosis import diagnosis_text  # noqa: PLC0415

    return diagnosis_text(found, top)


def _draw(shown: list[Row], path: Path, suffix: str, found: list[Source]) -> None:
    if path.suffix.lower() != suffix:
        raise ConfigurationError(f"{path}: expected a name that ends in {suffix}")
    from attest.training.profile.picture import draw  # noqa: PLC0415

    runs = f", {len(found)} runs" if len(found) > 1 else ""
    draw(shown, path, title=f"where training was absorbed{runs}")


def _text(shown: list[Row], found: list[Source]) -> str:
    # Imported here: JSON output needs no tables.
    from attest.cli._heatmap import heat_map  # noqa: PLC0415

    lines = [rendered(heat_map(shown))]
    if any(source.kind == "manifest" for source in found):
        lines = [NOT_VERIFIED, *lines, _VERIFY]
    names = ", ".join(clean(source.path) for source in found)
    return "\n".join([*lines, f"from {names}"])
