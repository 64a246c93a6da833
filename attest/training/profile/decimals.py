"""Numbers as text: the one form in which statements carry them, and its strict reading.

An amount has six digits after the point and a figure four, always.
"""

import re
from typing import Any

from attest.errors import FormatError
from attest.training.profile.values import MILLION

__all__ = ["amount", "figure", "read_amount", "read_figure"]

_AMOUNT = re.compile(r"-?[0-9]{1,9}\.[0-9]{6}\Z", re.ASCII)
_FIGURE = re.compile(r"[0-9]{1,9}\.[0-9]{4}\Z", re.ASCII)
_LARGEST = 10**9 - 1


def amount(millionths: int) -> str:
    """An amount or a share, from its millionths."""
    size = abs(millionths)
    sign = "-" if millionths < 0 else ""
    return f"{sign}{size // MILLION}.{size % MILLION:06d}"


def figure(value: float) -> str:
    """A number that follows from others; what is beyond nine digits stays at that."""
    return f"{min(value, _LARGEST):.4f}"


def read_amount(value: Any, path: str) -> int:
    """The millionths of an amount.

    Raises:
        FormatError: another form; names the path.
    """
    if not isinstance(value, str) or not _AMOUNT.match(value) or value == "-0.000000":
        raise FormatError(f"{path}: expected a decimal with six digits after the point")
    return int(value.replace(".", ""))


def read_figure(value: Any, path: str) -> int:
    """The ten-thousandths of a figure.

    Raises:
        FormatError: another form; names the path.
    """
    if not isinstance(value, str) or not _FIGURE.match(value):
        raise FormatError(
            f"{path}: expected a decimal with four digits after the point"
        )
    return int(value.replace(".", ""))
