"""Checkpoints: what a log says its tree is, signed by it and cosigned by witnesses.

C2SP tlog-checkpoint v1 and tlog-cosignature v1. A checkpoint has no time of its own; a
cosignature has one: the witness saw this tree, and nothing larger, at that time.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from attest.errors import FormatError, SignatureError
from attest.log.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE
from attest.log.note import (
    KeyKind,
    Note,
    NoteKey,
    NoteSigner,
    Signature,
    decode_base64,
    parse_note,
)

__all__ = [
    "Checkpoint",
    "Cosignature",
    "cosign",
    "cosignatures",
    "open_checkpoint",
    "parse_checkpoint",
    "sign_checkpoint",
]

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_TIME_SIZE = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: which log, how many leaves, and the root over them."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        root = base64.b64encode(self.root).decode("ascii")
        return f"{self.origin}\n{self.size}\n{root}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a note.

        Extension lines are allowed, as the format asks, and mean nothing here.

        Raises:
            FormatError: fewer than three lines, an empty one, a size in another
                spelling or beyond 2^63, a root that is not 32 bytes, or an empty tree
                with another root than the empty one's.
        """
        lines = text.removesuffix("\n").split("\n")
        if len(lines) < 3 or not all(lines):
            raise FormatError("checkpoint: expected origin, size and root, a line each")
        origin, size, root = lines[0], _size(lines[1]), decode_base64(lines[2])
        if len(root) != HASH_SIZE:
            raise FormatError(f"checkpoint: the root must be {HASH_SIZE} bytes")
        if size == 0 and root != EMPTY_ROOT:
            raise FormatError("checkpoint: no leaves, and not the root of no leaves")
        return cls(origin, size, root)


def _size(text: str) -> int:
    if not _DECIMAL.match(text) or int(text) > MAX_SIZE:
        raise FormatError("checkpoint: the size must be a plain decimal number")
    return int(text)


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> Note:
    """The log's own signature on a tree head.

    Raises:
        SignerError: the key store can't sign.
        FormatError: the key's name is not the log's, or the key is not Ed25519.
    """
    key = signer.key
    if (key.name, key.kind) != (checkpoint.origin, KeyKind.LOG):
        raise FormatError(f"checkpoint: {key.name} is not the log's key")
    text = str(checkpoint)
    data = signer.signer.sign(text.encode())
    return Note(text, (Signature(key.name, key.key_id, data),))


def parse_checkpoint(data: bytes | str) -> tuple[Checkpoint, Note]:
    """A tree head that nobody has verified.

    Raises:
        FormatError: no note, or its text is no checkpoint.
    """
    note = parse_note(data)
    return Checkpoint.parse(note.text), note


def open_checkpoint(
    data: bytes | str, logs: Iterable[NoteKey]
) -> tuple[Checkpoint, Note, NoteKey]:
    """A tree head that one of `logs` signed, its note, and that log's key.

    A log's key must bear the name in the checkpoint, so that a head of one log is
    never taken for another's.

    Raises:
        FormatError: as `parse_checkpoint`.
        SignatureError: no log of that name is known, or none of its keys signed. One
            bad signature in the name of a known key is enough, as the format advises.
    """
    checkpoint, note = parse_checkpoint(data)
    known = [
        key for key in logs if key.kind is KeyKind.LOG and key.name == checkpoint.origin
    ]
    if not known:
        raise SignatureError(
            "checkpoint: it is of a log that nobody vouches for",
            hint="the manifest's trustAnchors, or a policy, names the logs",
        )
    signed = None
    for key in known:
        for line in note.by(key):
            key.verify(line.data, note.text.encode())
            signed = key
    if signed is None:
        raise SignatureError("checkpoint: not signed by the log that it names")
    return checkpoint, note, signed


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's verified word that it saw this tree at this time (seconds, UTC)."""

    witness: NoteKey
    at: int


def cosign(text: str, signer: NoteSigner, *, at: int) -> Signature:
    """A witness's signature on the text of a checkpoint.

    Whether the tree extends what the witness saw before is for the caller to know.

    Raises:
        SignerError: the key store can't sign.
        FormatError: the key is not Ed25519 or not a witness's.
    """
    key = signer.key
    if key.kind is not KeyKind.WITNESS:
        raise FormatError(f"cosignature: {key.name} is not a witness's key")
    data = signer.signer.sign(_cosigned(text, at))
    return Signature(key.name, key.key_id, at.to_bytes(_TIME_SIZE, "big") + data)


def cosignatures(note: Note, witnesses: Sequence[NoteKey]) -> tuple[Cosignature, ...]:
    """The witnesses that cosigned, earliest first; each key counts once.

    Two names for one key are one witness, and its earliest time counts.

    Raises:
        SignatureError: a line in the name of a known witness is not by it.
    """
    found: dict[bytes, Cosignature] = {}
    for witness in witnesses:
        if witness.kind is not KeyKind.WITNESS:
            continue
        for line in note.by(witness):
            at = int.from_bytes(line.data[:_TIME_SIZE], "big")
            # An Ed25519 cosignature does not cover the name, so the key is what counts.
            witness.verify(line.data[_TIME_SIZE:], _cosigned(note.text, at))
            earlier = found.get(witness.key)
            if earlier is None or at < earlier.at:
                found[witness.key] = Cosignature(witness, at)
    return tuple(sorted(found.values(), key=lambda item: item.at))


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()
