"""`attest profile`: where in its depth a model took up its principles."""

from pathlib import Path
from typing import Annotated

import typer

from attest.cli._profile import Source, read_source
from attest.cli._run import Answer, command, new_app
from attest.cli._text import clean, rendered
from attest.cli._unverified import NOT_VERIFIED
from attest.errors import ConfigurationError
from attest.training.profile.summary import Row, rows

__all__ = ["app"]

app = new_app("Show where training was absorbed, and what undid it.")

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
