"""A witness: cosigns a log's head when it extends what the witness saw before.

The decisions of C2SP tlog-witness, without socket or file. A witness never cosigns two
heads of one log of which neither extends the other; so a log that shows two people two
trees is left without cosignatures for one of them.
"""

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attest.errors import FormatError, SignatureError, VerificationError
from attest.log.checkpoint import (
    Checkpoint,
    cosign,
    open_checkpoint,
    parse_checkpoint,
)
from attest.log.merkle import EMPTY_ROOT, MAX_SIZE, verify_consistency
from attest.log.note import MAX_NOTE, Note, NoteKey, NoteSigner, decode_base64

__all__ = [
    "MAX_REQUEST",
    "Submission",
    "Witness",
    "WitnessAnswer",
    "format_submission",
    "parse_submission",
]

_MAX_PROOF = 63
MAX_REQUEST = MAX_NOTE + 4096
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Submission:
    """A request to cosign, as it was read: nothing in it is verified."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: str


def format_submission(old_size: int, proof: Sequence[bytes], note: Note) -> bytes:
    """The body of an add-checkpoint request."""
    lines = [f"old {old_size}"]
    lines += [base64.b64encode(item).decode("ascii") for item in proof]
    return ("\n".join(lines) + "\n\n" + str(note)).encode()


def parse_submission(body: bytes) -> Submission:
    """Read the body of an add-checkpoint request.

    Raises:
        FormatError: too large, not UTF-8, no old size, more than 63 hashes, or one
            that is not base64.
    """
    if len(body) > MAX_REQUEST:
        raise FormatError(f"submission: more than {MAX_REQUEST} bytes")
    try:
        head, separator, checkpoint = body.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise FormatError("submission: not UTF-8") from None
    first, *lines = head.split("\n")
    match = _OLD.match(first)
    if not separator or match is None or int(match[1]) > MAX_SIZE:
        raise FormatError("submission: expected old SIZE, a proof and a checkpoint")
    if len(lines) > _MAX_PROOF:
        raise FormatError(f"submission: more than {_MAX_PROOF} hashes")
    return Submission(int(match[1]), tuple(map(decode_base64, lines)), checkpoint)


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What to answer, as HTTP.

    Attributes:
        seen: must be on disk before the answer goes out; None where nothing changes.
    """

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    seen: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness and the logs that it watches."""

    signer: NoteSigner
    logs: tuple[NoteKey, ...]

    def add_checkpoint(
        self, body: bytes, seen: Mapping[str, Checkpoint], *, at: int
    ) -> WitnessAnswer:
        """Decide on one request.

        The caller must not let two decisions on one log overlap.

        Args:
            body: of the request.
            seen: the last head that was cosigned, by origin.
            at: seconds since the epoch, UTC.

        Raises:
            SignerError: the key store can't sign.
        """
        try:
            submission = parse_submission(body)
            head, _ = parse_checkpoint(submission.checkpoint)
        except FormatError as error:
            return _no(400, str(error))
        if not any(key.name == head.origin for key in self.logs):
            return _no(404, "this log is not watched here")
        try:
            head, note, _ = open_checkpoint(submission.checkpoint, self.logs)
        except SignatureError as error:
            return _no(403, str(error))
        known = seen.get(head.origin, Checkpoint(head.origin, 0, EMPTY_ROOT))
        refused = _refusal(submission, head, known)
        if refused is not None:
            return refused
        line = cosign(note.text, self.signer, at=at)
        return WitnessAnswer(200, str(line).encode(), seen=head)


def _refusal(
    submission: Submission, head: Checkpoint, known: Checkpoint
) -> WitnessAnswer | None:
    old_size = submission.old_size
    if old_size > head.size:
        return _no(400, "the old size is above the checkpoint's")
    if old_size != known.size:
        size = f"{known.size}\n".encode()
        return WitnessAnswer(409, size, "text/x.tlog.size")
    if old_size == head.size and not hmac.compare_digest(known.root, head.root):
        return _no(409, "another root was cosigned for this size")
    try:
        verify_consistency(
            known.root,
            head.root,
            first=old_size,
            second=head.size,
            proof=submission.proof,
        )
    except (FormatError, VerificationError) as error:
        return _no(422, str(error))
    return None


def _no(status: int, reason: str) -> WitnessAnswer:
    return WitnessAnswer(status, f"{reason}\n".encode())
