"""How a run that is not what its statement says is refused."""

from attest.errors import RunMismatchError

__all__ = ["HINT", "expect_equal", "mismatch"]

HINT = "sign the statement that this run wrote, or make the statement anew"
_MAX_SHOWN = 200


def mismatch(place: str, expected: object, found: object) -> RunMismatchError:
    """The error that names a place in a run, what was expected and what was found."""
    return RunMismatchError(
        f"run: {place}: expected {_shown(expected)}, found {_shown(found)}", hint=HINT
    )


def expect_equal(place: str, expected: object, found: object) -> None:
    """Raise RunMismatchError when the two differ, in value or in type."""
    if type(expected) is not type(found) or expected != found:
        raise mismatch(place, expected, found)


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
