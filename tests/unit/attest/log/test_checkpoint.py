import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError, SignatureError
from attest.keys import PrivateKey
from attest.log.checkpoint import (
    Checkpoint,
    cosign,
    cosignatures,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from attest.log.merkle import EMPTY_ROOT
from attest.log.note import KeyKind, Note, NoteKey, NoteSigner

VECTORS = json.loads(
    (Path(__file__).parents[3] / "vectors/c2sp/notes.json").read_text("utf-8")
)
LOG = "log.example/one"
WITNESSES = tuple(VECTORS["times"])


def signer(name):
    kind = KeyKind.LOG if name == LOG else KeyKind.WITNESS
    seed = bytes.fromhex(VECTORS["seeds"][name])
    return NoteSigner(
        name, kind, PrivateKey(Ed25519PrivateKey.from_private_bytes(seed))
    )


def vkey(name):
    return NoteKey.parse(VECTORS["vkeys"][name])


@pytest.fixture
def opened():
    return open_checkpoint(VECTORS["checkpoint"], [vkey(LOG)])


def test_independent_checkpoint_is_read(opened):
    checkpoint, _, key = opened
    assert (checkpoint.origin, checkpoint.size, key) == (LOG, 600, vkey(LOG))


def test_independent_cosignatures_are_read(opened):
    found = cosignatures(opened[1], [vkey(name) for name in WITNESSES])
    assert {c.witness.name: c.at for c in found} == VECTORS["times"]


def test_ours_equals_the_independent_one_byte_for_byte(opened):
    note = sign_checkpoint(opened[0], signer(LOG))
    lines = tuple(
        cosign(note.text, signer(name), at=at) for name, at in VECTORS["times"].items()
    )
    whole = Note(note.text, note.signatures + lines)
    assert str(whole) == VECTORS["checkpoint"]
    assert [str(signer(n).key) for n in VECTORS["vkeys"]] == [
        *VECTORS["vkeys"].values()
    ]


def test_another_key_of_that_name_has_not_signed(opened):
    other = NoteSigner(LOG, KeyKind.LOG, PrivateKey.generate()).key
    with pytest.raises(SignatureError, match="not signed by the log"):
        open_checkpoint(VECTORS["checkpoint"], [other])


def test_rotated_key_signs_beside_the_old_one(opened):
    other = NoteSigner(LOG, KeyKind.LOG, PrivateKey.generate()).key
    assert open_checkpoint(VECTORS["checkpoint"], [other, vkey(LOG)])[2] == vkey(LOG)


def test_log_of_another_name_is_unknown(opened):
    key = NoteKey.of("log.example/two", KeyKind.LOG, signer(LOG).signer.public)
    with pytest.raises(SignatureError, match="nobody vouches"):
        open_checkpoint(VECTORS["checkpoint"], [key])


def test_witness_key_is_no_log_key():
    key = NoteKey.of(LOG, KeyKind.WITNESS, signer(LOG).signer.public)
    with pytest.raises(SignatureError, match="nobody vouches"):
        open_checkpoint(VECTORS["checkpoint"], [key])


@pytest.mark.parametrize("line", [0, 1, 2])
def test_each_changed_line_breaks_the_signature(line):
    lines = VECTORS["checkpoint"].split("\n")
    lines[line] = {0: LOG, 1: "601", 2: "B" + lines[2][1:]}[line]
    if line == 0:
        lines.insert(3, "extension")
    with pytest.raises(SignatureError):
        open_checkpoint("\n".join(lines), [vkey(LOG)])


def test_one_witness_under_two_names_counts_once(opened):
    note, at = opened[1], 1_800_000_001
    alias = replace(signer(WITNESSES[0]), name="alias.example")
    doubled = Note(note.text, (*note.signatures, cosign(note.text, alias, at=at)))
    (found,) = cosignatures(doubled, [vkey(WITNESSES[0]), alias.key])
    assert found.at == at


def test_cosignature_of_another_time_is_refused(opened):
    note = opened[1]
    line = cosign(note.text, signer(WITNESSES[0]), at=5)
    later = replace(line, data=(6).to_bytes(8, "big") + line.data[8:])
    with pytest.raises(SignatureError):
        cosignatures(Note(note.text, (later,)), [vkey(WITNESSES[0])])


def test_log_cannot_sign_as_a_witness(opened):
    with pytest.raises(FormatError, match="not a witness"):
        cosign(opened[1].text, signer(LOG), at=1)
    assert not cosignatures(opened[1], [vkey(LOG)])


def test_other_logs_key_cannot_sign(opened):
    with pytest.raises(FormatError, match="not the log's key"):
        sign_checkpoint(replace(opened[0], origin="other"), signer(LOG))


ROOT = "ACArAomIZlerpmgQqd4KUGGsLV4L6tDjuwqKG0Mhp0o="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n",
        "log\n1\n",
        f"\n1\n{ROOT}\n",
        f"log\n01\n{ROOT}\n",
        f"log\n-1\n{ROOT}\n",
        f"log\n+1\n{ROOT}\n",
        f"log\n1 \n{ROOT}\n",
        f"log\n\u0661\n{ROOT}\n",
        f"log\n{2**63}\n{ROOT}\n",
        f"log\n{'9' * 5000}\n{ROOT}\n",
        f"log\n1\n{ROOT[:-4]}\n",
        f"log\n1\n{ROOT}\n\nextension\n",
        f"log\n0\n{ROOT}\n",
    ],
)
def test_broken_checkpoint_is_refused(text):
    with pytest.raises(FormatError):
        Checkpoint.parse(text)


def test_extension_lines_are_signed_and_mean_nothing():
    checkpoint = Checkpoint.parse(f"log\n1\n{ROOT}\nextension\n")
    assert (checkpoint.origin, checkpoint.size) == ("log", 1)


def test_empty_log():
    checkpoint = Checkpoint("log", 0, EMPTY_ROOT)
    assert Checkpoint.parse(str(checkpoint)) == checkpoint


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_what_is_written_is_read(size, root):
    checkpoint = Checkpoint("log.example", size, root)
    assert Checkpoint.parse(str(checkpoint)) == checkpoint


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text):
    try:
        parse_checkpoint(text)
    except FormatError:
        return
