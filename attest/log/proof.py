"""That one statement stands in a log: what a bundle carries, and what it proves.

The leaf of a signed token holds the SHA-256 of its signing input, so a log says nothing
of what it lists to whoever does not have the token already.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from attest.errors import FormatError
from attest.log.checkpoint import Checkpoint, Cosignature, cosignatures, open_checkpoint
from attest.log.merkle import HASH_SIZE, leaf_hash, verify_inclusion
from attest.log.note import MAX_NOTE, NoteKey, decode_base64

__all__ = ["LogProof", "Logged", "majority"]

# A tree of 2^63 leaves is no higher.
_MAX_PROOF = 63


def majority(count: int) -> int:
    """How many of `count` witnesses no two halves of a split view can both have."""
    return count // 2 + 1


@dataclass(frozen=True, slots=True)
class Logged:
    """What a verified proof established.

    Attributes:
        checkpoint: the tree head that covers the statement, signed by the log.
        key: the log's key that signed it.
        cosignatures: of known witnesses, earliest first, each key once.
        witness_count: how many witnesses there are to cosign.
    """

    checkpoint: Checkpoint
    key: NoteKey
    cosignatures: tuple[Cosignature, ...]
    witness_count: int


@dataclass(frozen=True, slots=True)
class LogProof:
    """A claim that a statement is leaf `index` of a log. Nothing has been verified.

    Attributes:
        index: position of the leaf, from 0.
        checkpoint: a signed note (C2SP tlog-checkpoint), cosignatures included.
        proof: hashes from the leaf to the root (RFC 9162 §2.1.3), leaf first.
    """

    index: int
    checkpoint: str
    proof: tuple[bytes, ...]

    def to_json(self) -> dict[str, Any]:
        """The member `log` of a bundle."""
        hashes = [base64.b64encode(item).decode("ascii") for item in self.proof]
        return {"index": self.index, "checkpoint": self.checkpoint, "proof": hashes}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read the member `log` of a bundle; unknown members mean nothing.

        Raises:
            FormatError: a member is missing, of the wrong type or too large.
        """
        match value:
            case {
                "index": int(index),
                "checkpoint": str(text),
                "proof": list(proof),
            } if (
                not isinstance(index, bool)
                and index >= 0
                and len(text) <= MAX_NOTE
                and len(proof) <= _MAX_PROOF
                and all(isinstance(item, str) for item in proof)
            ):
                hashes = tuple(map(decode_base64, proof))
                if all(len(item) == HASH_SIZE for item in hashes):
                    return cls(index, text, hashes)
        raise FormatError("log: expected index, checkpoint and proof")

    def verify(
        self, leaf: bytes, *, logs: Sequence[NoteKey], witnesses: Sequence[NoteKey]
    ) -> Logged:
        """Check that the statement is in a log that is known.

        How many witnesses are enough, and whether the times fit, is for the caller.

        Args:
            leaf: SHA-256 of the statement's signing input, computed by the caller.
            logs: keys of the logs that are known.
            witnesses: keys of the witnesses. The key of the log itself never counts as
                one, since it could say nothing that the log does not say.

        Raises:
            FormatError: the checkpoint or the proof breaks its form.
            SignatureError: no known log signed the checkpoint, or a line in the name
                of a known witness is not by it.
            VerificationError: the statement does not lead to the checkpoint's root.
        """
        checkpoint, note, key = open_checkpoint(self.checkpoint, logs)
        verify_inclusion(
            leaf_hash(leaf),
            index=self.index,
            size=checkpoint.size,
            proof=self.proof,
            root=checkpoint.root,
        )
        own = {log.key for log in logs}
        independent = [item for item in witnesses if item.key not in own]
        return Logged(
            checkpoint,
            key,
            cosignatures(note, independent),
            len({item.key for item in independent}),
        )
