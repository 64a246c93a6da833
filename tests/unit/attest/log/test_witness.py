import base64
from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.world import NOW
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError
from attest.log.checkpoint import cosignatures, parse_checkpoint
from attest.log.merkle import EMPTY_ROOT
from attest.log.note import Note, parse_note, parse_signatures
from attest.log.witness import (
    MAX_REQUEST,
    Witness,
    format_submission,
    parse_submission,
)


class Book:
    """A witness that remembers in a dict, and a log that it watches."""

    def __init__(self):
        self.log = SignedLog(witnesses=1)
        self.witness = Witness(self.log.witnesses[0], (self.log.key.key,))
        self.seen = {}

    def grow(self, size):
        for index in range(self.log.tree.size, size):
            self.log.tree.append(b"%d" % index)
        return self

    def body(self, old, size=None, checkpoint=None):
        size = self.log.tree.size if size is None else size
        proof = self.log.tree.consistency_proof(min(old, size), size)
        text = checkpoint or self.log.checkpoint(size=size, by=[])
        return format_submission(old, proof, parse_note(text))

    def ask(self, old, size=None, checkpoint=None):
        return self.send(self.body(old, size, checkpoint))

    def send(self, body):
        answer = self.witness.add_checkpoint(body, self.seen, at=NOW)
        if answer.seen is not None:
            self.seen[answer.seen.origin] = answer.seen
        return answer


@pytest.fixture
def book():
    return Book()


def test_first_checkpoint_is_cosigned(book):
    body = book.grow(5).body(0)
    answer = book.send(body)
    assert answer.status == 200
    note = parse_note(parse_submission(body).checkpoint)
    lines = parse_signatures(answer.body)
    (found,) = cosignatures(Note(note.text, lines), [book.log.witnesses[0].key])
    assert found.at == NOW


def test_growth_is_cosigned(book):
    for size in (1, 2, 7, 8, 300):
        old = book.log.tree.size
        assert book.grow(size).ask(old).status == 200
    assert book.seen["log.test"].size == 300


def test_same_head_again_is_cosigned(book):
    book.grow(3).ask(0)
    assert book.ask(3).status == 200


def test_wrong_old_size_is_told_the_right_one(book):
    book.grow(3).ask(0)
    answer = book.grow(5).ask(2)
    assert (answer.status, answer.body) == (409, b"3\n")
    assert answer.content_type == "text/x.tlog.size"


def test_old_size_above_the_new(book):
    book.grow(3)
    assert book.ask(5, 3).status == 400


def test_shrunken_log(book):
    book.grow(5).ask(0)
    assert book.ask(5, 3).status == 400
    assert book.ask(3, 3).status == 409
    assert book.seen["log.test"].size == 5


def test_forked_log_of_the_same_size(book):
    book.grow(5).ask(0)
    forked = book.log.checkpoint(root=b"\x01" * 32, by=[])
    answer = book.ask(5, 5, forked)
    assert (answer.status, answer.seen) == (409, None)


def test_rewritten_history(book):
    book.grow(5).ask(0)
    other = Book()
    other.log.key = book.log.key
    other.log.tree.append(b"another")
    other.grow(9)
    answer = book.send(other.body(5))
    assert (answer.status, answer.seen) == (422, None)


def test_proof_for_a_log_never_seen_must_be_empty(book):
    note = parse_note(book.grow(5).log.checkpoint(by=[]))
    assert book.send(format_submission(0, [b"x" * 32], note)).status == 422


def test_unknown_log(book):
    other = SignedLog("other.test")
    other.tree.append(b"x")
    assert book.ask(0, 0, other.checkpoint()).status == 404


def test_checkpoint_by_another_key(book):
    forger = SignedLog()
    forger.tree.append(b"x")
    assert book.ask(0, 0, forger.checkpoint()).status == 403


def test_refusal_changes_nothing(book):
    book.grow(5).ask(0)
    before = dict(book.seen)
    for body in (b"", b"old 5\n\nnothing", book.body(2), book.body(5)[:-4]):
        answer = book.send(body)
        assert (answer.status >= 400, answer.seen) == (True, None)
    assert book.seen == before


HASH = base64.b64encode(EMPTY_ROOT).decode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1\n",
        b"old 01\n\nx",
        b"old -1\n\nx",
        b"old  1\n\nx",
        b"new 1\n\nx",
        b"\xff\n\nx",
        b"old 9999999999999999999\n\nx",
        f"old 1\n{HASH} \n\nx".encode(),
        b"old 1\n" + f"{HASH}\n".encode() * 64 + b"\nx",
        b"old 1\n\n" + b"x" * MAX_REQUEST,
    ],
)
def test_broken_submission(book, body):
    with pytest.raises(FormatError):
        parse_submission(body)
    assert book.send(body).status == 400


HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63)


@given(st.integers(0, 2**63 - 1), HASHES)
def test_what_is_written_is_read(old, proof):
    note = parse_note("log\n0\nx\n\n— a AAAABAAAAA==\n")
    found = parse_submission(format_submission(old, [*proof], note))
    assert (found.old_size, found.proof) == (old, tuple(proof))
    assert found.checkpoint == str(note)


@given(st.binary(max_size=200))
def test_any_body_is_answered(body):
    answer = Book().send(body)
    assert 400 <= answer.status < 500


def test_two_keys_of_one_log_are_both_watched(book):
    other = replace(book.log.key, signer=SignedLog().key.signer)
    book.witness = Witness(book.log.witnesses[0], (other.key, book.log.key.key))
    assert book.grow(2).ask(0).status == 200
    assert parse_checkpoint(book.log.checkpoint())[0].size == 2
