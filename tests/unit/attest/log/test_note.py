import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError, SignatureError
from attest.keys import Algorithm, PrivateKey
from attest.log.note import (
    MAX_NOTE,
    KeyKind,
    Note,
    NoteKey,
    NoteSigner,
    Signature,
    parse_note,
    parse_signatures,
)

VECTORS = json.loads(
    (Path(__file__).parents[3] / "vectors/c2sp/notes.json").read_text("utf-8")
)
LINE = "— a.example/log AAAABAAAAA==\n"


@pytest.mark.parametrize("vector", VECTORS["go"]["notes"])
def test_go_notes_verify(vector):
    key, note = NoteKey.parse(vector["vkey"]), parse_note(vector["note"])
    (line,) = note.by(key)
    key.verify(line.data, note.text.encode())
    with pytest.raises(SignatureError):
        key.verify(line.data, note.text.encode() + b" ")


@pytest.mark.parametrize("vector", VECTORS["go"]["notes"])
def test_go_notes_are_written_as_they_were_read(vector):
    assert str(parse_note(vector["note"])) == vector["note"]
    assert str(NoteKey.parse(vector["vkey"])) == vector["vkey"]


@pytest.mark.parametrize("name", VECTORS["vkeys"])
def test_vkey_equals_the_independent_implementations(name):
    text = VECTORS["vkeys"][name]
    assert str(NoteKey.parse(text)) == text


GOOD = VECTORS["vkeys"]["log.example/one"]
NAME, HASH, KEY = GOOD.split("+", 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        GOOD + "\n",
        GOOD.upper(),
        f"{NAME}+{HASH}",
        f"{NAME}+00000000+{KEY}",
        f"other.example+{HASH}+{KEY}",
        f"a b+{HASH}+{KEY}",
        f"{NAME}+{HASH}+{KEY[:-4]}",
        f"{NAME}+{HASH}+{KEY}AAAA",
        f"{NAME}+{HASH}+{'B' + KEY[1:]}",
    ],
)
def test_broken_vkey_is_refused(text):
    with pytest.raises(FormatError):
        NoteKey.parse(text)


def test_key_of_another_algorithm_is_refused():
    public = PrivateKey.generate(Algorithm.ES256).public
    with pytest.raises(FormatError, match="Ed25519"):
        NoteKey.of("log.example", KeyKind.LOG, public)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a+b", "a\tb", "a\nb", "a\u2003b", "a\u00a0b", "a\x7fb", "x" * 257],
)
def test_name_that_notes_cannot_hold_is_refused(name):
    public = PrivateKey.generate().public
    with pytest.raises(FormatError, match="name"):
        NoteKey.of(name, KeyKind.LOG, public)


def test_same_key_and_name_of_two_kinds_have_two_ids():
    key = PrivateKey.generate()
    log, witness = (NoteSigner("a.example", kind, key).key for kind in KeyKind)
    assert log.key_id != witness.key_id
    line = Signature("a.example", log.key_id, b"x" * 64)
    assert log.made(line)
    assert not witness.made(line)


def test_text_is_split_at_the_last_blank_line():
    note = parse_note("one\n\ntwo\n\n" + LINE)
    assert note.text == "one\n\ntwo\n"
    assert str(note) == "one\n\ntwo\n\n" + LINE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n",
        "text\n" + LINE,
        "\n\n" + LINE,
        "text\n\n",
        "text\n\n" + LINE.rstrip("\n"),
        "text\n\n" + LINE + "\n",
        "text\n\n" + LINE.replace("— ", "- "),
        "text\n\n" + LINE.replace("— ", "—"),
        "text\n\n" + LINE.replace(" AAAA", "  AAAA"),
        "text\n\n" + LINE.replace("AAAABAAAAA==", "AAAABAAAAB=="),
        "text\n\n" + LINE.replace("AAAABAAAAA==", "AAAABA=="),
        "text\n\n" + LINE.replace("AAAABAAAAA==", "AAAA"),
        "text\n\n" + LINE.replace("\n", "\r\n"),
        "te\x00xt\n\n" + LINE,
        "te\txt\n\n" + LINE,
        "te\ud800xt\n\n" + LINE,
        "text\n\n" + LINE * 65,
        "x" * MAX_NOTE + "\n\n" + LINE,
    ],
)
def test_broken_note_is_refused(text):
    with pytest.raises(FormatError):
        parse_note(text)


def test_bytes_that_are_no_utf8_are_refused():
    with pytest.raises(FormatError, match="UTF-8"):
        parse_note(b"\xff\n\n" + LINE.encode())


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_input_is_read_or_refused(data):
    try:
        note = parse_note(data)
    except FormatError:
        return
    text = data if isinstance(data, str) else data.decode()
    assert str(note) == text


_NAMES = st.text("abz0./-", min_size=1, max_size=30)


@given(
    st.text("abc é\n", min_size=1).filter(lambda t: "\n\n" not in t[-1:] and t.strip()),
    st.lists(st.tuples(_NAMES, st.binary(min_size=5, max_size=80)), min_size=1),
)
def test_what_is_written_is_read(text, lines):
    text = text.strip("\n") + "\n"
    signatures = tuple(Signature(n, data[:4], data[4:]) for n, data in lines[:64])
    note = Note(text, signatures)
    assert parse_note(str(note)) == note
    assert parse_signatures("".join(map(str, signatures))) == signatures
