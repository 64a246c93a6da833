"""The heat map as an SVG or PNG file: principles by layers."""

from collections.abc import Sequence
from pathlib import Path

from attest.errors import ConfigurationError
from attest.training.profile.summary import Row

__all__ = ["draw"]

# Beyond it numbers in the cells would touch each other.
_NUMBERED = 16


def draw(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Write the picture in the format that the file's name ends with.

    The same rows give the same SVG. Texts are drawn as they are, never as formulas.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file can't be written.
    """
    try:
        # Imported here: it belongs to the extra `training` and takes a second.
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.patches import Rectangle  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "a picture needs matplotlib, which is not installed",
            hint='pip install "attest-gateway[training]"; the terminal needs nothing',
        ) from error
    count = max(len(row.layers) for row in rows)
    numbered = count <= _NUMBERED
    figure = Figure(figsize=(4 + 0.5 * min(count, 40), 1.4 + 0.6 * len(rows)))
    axes = figure.add_subplot()
    shares = [[*row.layers, *[0.0] * (count - len(row.layers))] for row in rows]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for place, row in enumerate(rows):
        for layer in row.band:
            axes.add_patch(
                Rectangle(
                    (layer - 0.5, place - 0.5), 1, 1, fill=False, ec="#c03", lw=1.5
                )
            )
        for layer, share in enumerate(row.layers if numbered else ()):
            color = "white" if share > 0.5 else "black"
            axes.text(layer, place, f"{share:.2f}", ha="center", va="center",
                      color=color, fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], parse_math=False)
    step = 1 if count <= 40 else 10
    axes.set_xticks(range(0, count, step), [f"L{n:02d}" for n in range(0, count, step)])
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel("share of what the layers took up; red: the band it was routed to",
                    fontsize=8)  # fmt: skip
    figure.colorbar(image, ax=axes)
    kind = path.suffix.lower().removeprefix(".")
    # Neither a date nor random ids: the file can be compared with another.
    metadata = {"Date": None} if kind == "svg" else None
    with mpl.rc_context({"svg.hashsalt": "attest", "svg.fonttype": "none"}):
        try:
            figure.savefig(path, format=kind, metadata=metadata, bbox_inches="tight")
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error


def _label(row: Row) -> str:
    numbers = [f"H/log L {row.entropy_normalised}"]
    if row.in_band is not None:
        numbers.append(f"in band {row.in_band}")
    numbers.append(f"residual {row.residual.value:.1%}")
    return f"{row.principle}\n" + ", ".join(numbers)
