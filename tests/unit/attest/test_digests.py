import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.digests import (
    digest,
    digest_text,
    digests_equal,
    from_hex,
    parse_digest,
    to_hex,
)
from attest.errors import FormatError

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_text_form_is_that_of_oci():
    assert digest(b"") == EMPTY
    assert digest(bytearray(b"")) == digest(memoryview(b"")) == EMPTY


@given(st.binary())
def test_text_and_bytes_say_the_same(data):
    text = digest(data)
    assert parse_digest(text) == hashlib.sha256(data).digest()
    assert digest_text(parse_digest(text)) == text
    assert from_hex(to_hex(text)) == text
    assert to_hex(text) == parse_digest(text).hex()


@given(st.text())
def test_anything_else_is_refused(text):
    for read in (parse_digest, from_hex, to_hex):
        with pytest.raises(FormatError):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        EMPTY.upper(),
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        " " + EMPTY,
        EMPTY.replace("sha256", "sha512"),
        EMPTY[7:],
        None,
        7,
        EMPTY.encode(),
    ],
)
def test_near_misses_are_refused(text):
    with pytest.raises(FormatError):
        parse_digest(text)


@pytest.mark.parametrize("value", [EMPTY, EMPTY[7:].upper(), EMPTY[7:] + "\n", None])
def test_near_misses_of_the_hex_form_are_refused(value):
    with pytest.raises(FormatError):
        from_hex(value)


def test_equality():
    assert digests_equal(EMPTY, digest(b""))
    assert not digests_equal(EMPTY, digest(b"x"))
    assert not digests_equal(EMPTY, "")
