"""What the RFC 8785 form is held against the library with, whoever writes it."""

import rfc8785
from hypothesis import strategies as st

from attest.errors import FormatError

__all__ = ["EDGES", "VALUES", "form", "form_of_the_library"]

_ASCII = st.text(st.characters(max_codepoint=127))
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
_SIMPLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(_ASCII, inner),
    max_leaves=20,
)
_MIXED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(_ASCII, inner)
    ),
    max_leaves=20,
)
VALUES = _ANYTHING | _SIMPLE | _MIXED
EDGES = [
    "".join(map(chr, range(0x250))),
    "\u2028\u2029\ufeff\U0001f600</script>",
    {chr(i): i for i in range(128)},
    {"\ue000": 1, "\U0001f600": 2, "a": 3},
    {"\xe9": 1, "e": 2},
    [2**53 - 1, -(2**53) + 1, True, False, None, [], {}, "", {"": ""}],
    [2**53],
    [-(2**53)],
    ["\ud800"],
    {"\ud800": 1},
    {1: 2},
    (1, 2),
    [1.0, 1e21, -0.0],
    [float("nan")],
    b"bytes",
]


def form_of_the_library(value):
    """The form, None where rfc8785 writes none."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return None


def form(write, value):
    """What one of ours writes, None where it says that there is no such form."""
    try:
        return write(value)
    except FormatError:
        return None
