"""A constitution that people, or other readers, take for another one than we sign."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import AttestError, ConstitutionError
from attest.training.constitution import MAX_BYTES, parse_constitution

GOOD = """\
schema: constitution/1
id: acme
version: 1.0.0
principles:
  - id: refuse
    title: Refuse
    class: safety-critical
    text: Decline.
    band: all
"""


def refused(text):
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with pytest.raises(ConstitutionError) as caught:
        parse_constitution(data)
    assert caught.value.hint
    return str(caught.value)


# YAML 1.1 ends a line, and so a comment, at each of these; YAML 1.2 does not.
@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_line_that_ends_for_half_of_all_readers(end):
    hidden = GOOD + f"    # a comment{end}    anchors: {{}}\n"
    assert "requirement" not in hidden
    assert f"line 10: character U+{ord(end):04X}" in refused(hidden)


@pytest.mark.parametrize(
    "mark", [*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
)
@pytest.mark.parametrize("place", ["text", "comment", "escape", "key"])
def test_turned_direction_of_writing(mark, place):
    spoiled = {
        "text": GOOD.replace("Decline", f"Dec{mark}line"),
        "comment": GOOD + f"# {mark}\n",
        "escape": GOOD.replace("Decline.", f'"Decline\\u{ord(mark):04x}"'),
        "key": GOOD.replace("title:", f'"title{mark}":'),
    }[place]
    assert f"U+{ord(mark):04X}" in refused(spoiled)


@pytest.mark.parametrize("code", [0, 7, 8, 0x1B, 0x7F, 0x9B, 0xFEFF, 0xFFFE, 0xD800])
def test_controls_and_halves_of_characters(code):
    for written in (f'"x\\u{code:04x}"', f'"x{chr(code)}"'):
        refused(GOOD.replace("Decline.", written))


def test_lone_carriage_return():
    # A terminal shows what follows it over what stands before it.
    assert "U+000D" in refused(GOOD.replace("Decline.", "Decline.\r    text: Accept."))


def test_windows_line_ends_and_byte_order_mark_change_nothing():
    plain = parse_constitution(GOOD.encode())
    windows = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert parse_constitution(windows).digest == plain.digest


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings(codec):
    refused(GOOD.replace("Decline", "Dëcline").encode(codec))


@pytest.mark.parametrize(
    "merge",
    [
        "    <<: {text: Accept.}\n",
        "    ? text\n    : Accept.\n",
        "    'text': Accept.\n",
        '    "t\\x65xt": Accept.\n',
        "    !!str text: Accept.\n",
    ],
)
def test_second_text(merge):
    refused(GOOD + merge)


@pytest.mark.parametrize("directive", ["%YAML 1.2\n---\n", "%TAG ! x\n---\n"])
def test_directive_that_changes_how_words_are_read(directive):
    try:
        found = parse_constitution((directive + GOOD).encode())
    except ConstitutionError:
        return
    assert found.digest == parse_constitution(GOOD.encode()).digest


@pytest.mark.parametrize(
    "name", ["\uff41cme", "\u0430cme", "acmé", "acme\u200b", "ACME", "a_b"]
)
def test_id_that_looks_like_another(name):
    refused(GOOD.replace("id: acme", f"id: {name}"))


@pytest.mark.parametrize(
    "number",
    [
        "9" * 16,
        "9" * 5000,
        "-1",
        "+1",
        "1e3",
        "0x10",
        "1_0",
        "\u0663",
        "\uff11",
        "1.0",
        ".inf",
    ],
)
def test_numbers_that_readers_disagree_on_or_cannot_hold(number):
    refused(GOOD.replace("band: all", f"band: {{from: {number}, to: 1000}}"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{" * 200_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: " * 80_000,
        "!" * 200_000,
        "'" * 200_001,
        '"' + "\\" * 200_000,
        "|" + "\n " * 100_000,
        "# " + "x" * 200_000,
        "&a " * 80_000,
        "a: &a [*a,*a]\n" * 10_000,
        "\n".join(f"k{n}: v" for n in range(20_000)),
        GOOD.replace("all", "{layers: [" + ",".join(map(str, range(30_000))) + "]}"),
        GOOD.replace("Decline.", "x" * 200_000),
    ],
    ids=lambda text: text[:8],
)
def test_size_does_not_become_time(text):
    # What is quadratic in 200,000 takes minutes, which nobody overlooks.
    assert len(text) <= MAX_BYTES
    refused(text)


def test_larger_files_are_not_read():
    assert "at most" in refused(GOOD + "#" * MAX_BYTES)


@given(st.text(max_size=40))
def test_any_text_reads_as_other_readers_read_it(text):
    written = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
    document = GOOD.replace("Decline.", written)
    try:
        data = document.encode()
        found = parse_constitution(data)
    except (AttestError, UnicodeEncodeError):
        return
    assert found.principles[0].text == text
    assert yaml.safe_load(document)["principles"][0]["text"] == text
