import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.cli._show import heat
from attest.cli._text import clean, moment, shortened


@given(st.text())
def test_clean_text_is_one_printable_line(text):
    assert clean(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_printable_text_stays(text):
    assert clean(text) == text


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists), st.integers(1, 9))
def test_shortened_keeps_its_limit_of_characters(value, limit):
    # Spelling out makes a character ten at most.
    assert len(shortened(value, limit)) <= 10 * limit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (1_800_000_000, "2027-01-15 08:00:00 UTC"),
        (2**53, str(2**53)),
    ],
)
def test_moment(seconds, text):
    assert moment(seconds) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["0.120", "0", "0.27", "0.32"], "▃·▇█"),
        (["1"], "█"),
        (["-0.5", "1"], "·█"),
        (["0", "0"], ""),
        (["much"], ""),
        (["nan", "nan"], ""),
        (["inf", "1"], ""),
        ([], ""),
        (None, ""),
        (7, ""),
        ("0.5", ""),
    ],
)
def test_heat_is_relative_to_the_hottest_layer(values, text):
    assert heat(values) == text
