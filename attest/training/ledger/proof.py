"""Proofs that one record stands in a signed ledger, without the ledger (RFC 9162 §2.1).

Whoever has the proof and the signed head needs no other record: a regulator can be
shown one training step and nothing of the data around it.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from attest._reader import Reader
from attest.canonical import read_object
from attest.digests import digest_text, parse_digest
from attest.errors import FormatError, UnsupportedVersionError, VerificationError
from attest.log.merkle import (
    MerkleTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from attest.training.ledger.form import (
    MAX_RECORD_BYTES,
    LedgerCutError,
    LedgerSummary,
    lines,
    open_ledger,
    parse_record,
    record_seq,
)

__all__ = ["MAX_PROOF_BYTES", "SCHEMA", "LedgerProof", "parse_proof", "prove_record"]

SCHEMA = "ledger-proof/1"
# A record as base64, and 63 hashes for it and between each two heads.
MAX_PROOF_BYTES = 4 * MAX_RECORD_BYTES
_MAX_HEADS = 256


@dataclass(frozen=True, slots=True)
class LedgerProof:
    """One record, and how it leads to the last of some states of its ledger.

    Attributes:
        line: the record as it stands in the ledger, without its newline.
        heads: states of the ledger, by size; the last one holds the record.
        path: the inclusion proof of the record in the last one, leaf first.
        steps: between each two heads, the proof that the later one extends the earlier.
    """

    line: bytes
    seq: int
    heads: tuple[LedgerSummary, ...]
    path: tuple[bytes, ...]
    steps: tuple[tuple[bytes, ...], ...]

    def check(self, heads: Sequence[LedgerSummary]) -> dict[str, Any]:
        """The record, when it stands in a ledger that had all of these states.

        Args:
            heads: of a manifest's stages, in any order.

        Raises:
            FormatError: the proof is none, or its line is no record of that number.
            VerificationError: it is of other states, or does not lead to them.
        """
        expected = sorted(heads, key=_size)
        if not expected or expected != list(self.heads):
            raise VerificationError(
                f"ledger proof: expected heads {_said(expected)}, found "
                f"{_said(self.heads)}",
                hint="ask for a proof against the heads that the manifest states",
            )
        place = Path("proof")
        record = parse_record(self.line, self.seq, place)
        if record_seq(record, self.seq, place) != self.seq:
            raise FormatError("ledger proof: the record has another number")
        roots = [parse_digest(head.root) for head in self.heads]
        last = self.heads[-1]
        verify_inclusion(
            leaf_hash(self.line),
            index=self.seq,
            size=last.size,
            proof=self.path,
            root=roots[-1],
        )
        for number, step in enumerate(self.steps):
            verify_consistency(
                roots[number],
                roots[number + 1],
                first=self.heads[number].size,
                second=self.heads[number + 1].size,
                proof=step,
            )
        return record

    def dumps(self) -> bytes:
        """The proof as a JSON text."""
        value = {
            "schema": SCHEMA,
            "seq": self.seq,
            "record": _text(self.line),
            "heads": [{"treeSize": h.size, "root": h.root} for h in self.heads],
            "inclusion": list(map(_text, self.path)),
            "consistency": [list(map(_text, step)) for step in self.steps],
        }
        return json.dumps(value, indent=2).encode() + b"\n"


def prove_record(path: Path, seq: int, *heads: LedgerSummary) -> LedgerProof:
    """The proof for record `seq` against states of the ledger, or the last one alone.

    Raises:
        LedgerCutError: there is no such record, or the ledger never was so large.
        VerificationError: the ledger is not the one of these heads.
        LedgerError: the file cannot be read.
    """
    tree, found = MerkleTree(), b""
    with open_ledger(path) as file:
        for line in lines(file, path):
            found = line if tree.size == seq else found
            tree.append(line)
    stated = sorted(heads, key=_size) or [_head(tree)]
    size = stated[-1].size
    if not 0 <= seq < size <= tree.size:
        raise LedgerCutError(
            f"ledger {path}: expected record {seq} below {size}, found {tree.size}",
            hint="count from 0; the last record is one below the size",
        )
    proof = LedgerProof(
        found,
        seq,
        tuple(stated),
        tuple(tree.inclusion_proof(seq, size)),
        tuple(
            tuple(tree.consistency_proof(one.size, two.size))
            for one, two in pairwise(stated)
        ),
    )
    proof.check(stated)
    return proof


def parse_proof(data: bytes) -> LedgerProof:
    """The proof that `dumps` wrote; nothing is checked but its form.

    Raises:
        FormatError: it is none.
        UnsupportedVersionError: another version.
    """
    value = read_object(data, max_bytes=MAX_PROOF_BYTES, max_depth=4)
    reader = Reader(value, document="ledger proof")
    if (schema := reader.text("schema")) != SCHEMA:
        raise UnsupportedVersionError(
            f"ledger proof: expected {SCHEMA}, found {schema!r}",
            hint="upgrade to the version that wrote it",
        )
    heads = tuple(
        LedgerSummary(head.integer("treeSize", least=0), head.digest("root"))
        for head in reader.children("heads")
    )
    steps = value.get("consistency")
    if (
        not isinstance(steps, list)
        or not 0 < len(heads) == len(steps) + 1 <= _MAX_HEADS
    ):
        raise reader.refuse("consistency", "must lead from each head to the next")
    return LedgerProof(
        _bytes(value.get("record")),
        reader.integer("seq", least=0),
        heads,
        _hashes(value.get("inclusion")),
        tuple(map(_hashes, steps)),
    )


def _size(head: LedgerSummary) -> int:
    return head.size


def _said(heads: Sequence[LedgerSummary]) -> str:
    return ", ".join(f"{head.size} {head.root}" for head in heads) or "none"


def _head(tree: MerkleTree) -> LedgerSummary:
    return LedgerSummary(tree.size, digest_text(tree.root()))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise FormatError("ledger proof: expected base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise FormatError("ledger proof: expected base64") from None


def _hashes(items: Any) -> tuple[bytes, ...]:
    if not isinstance(items, list) or len(items) > 64:
        raise FormatError("ledger proof: expected a list of at most 64 hashes")
    return tuple(map(_bytes, items))
