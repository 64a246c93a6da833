"""A whole log for tests: tree, log key and witnesses, all of them real.

log = SignedLog()
world = make_world(predicate={"trustAnchors": log.anchors})
bundle = log.prove(world.bundle())          # logged, cosigned by every witness
"""

from dataclasses import replace

from fakes.world import NOW

from attest import disclosures
from attest.digests import parse_digest
from attest.keys import PrivateKey
from attest.log.checkpoint import Checkpoint, cosign, sign_checkpoint
from attest.log.merkle import MerkleTree
from attest.log.note import KeyKind, Note, NoteSigner
from attest.log.proof import LogProof
from attest.tokens import signing_digest

__all__ = ["SignedLog", "leaf_of"]


def leaf_of(token):
    """What the leaf of a token holds."""
    return parse_digest(signing_digest(disclosures.split(token)[0]))


class SignedLog:
    """A log in memory that signs whatever it is told to."""

    def __init__(self, origin="log.test", *, witnesses=3):
        self.key = NoteSigner(origin, KeyKind.LOG, PrivateKey.generate())
        self.witnesses = [
            NoteSigner(f"witness.test/{i}", KeyKind.WITNESS, PrivateKey.generate())
            for i in range(witnesses)
        ]
        self.tree = MerkleTree()

    @property
    def anchors(self):
        """The manifest's trustAnchors."""
        return {
            "logs": [str(self.key.key)],
            "witnesses": [str(witness.key) for witness in self.witnesses],
        }

    def add(self, token):
        """Log a token, with or without its disclosures; returns the index."""
        return self.tree.append(leaf_of(token))

    def checkpoint(self, *, by=None, at=NOW, root=None, size=None):
        """A signed head. `by`: the witnesses that cosign, all of them by default."""
        size = self.tree.size if size is None else size
        head = Checkpoint(self.key.name, size, root or self.tree.root(size))
        note = sign_checkpoint(head, self.key)
        lines = tuple(
            cosign(note.text, witness, at=at)
            for witness in (self.witnesses if by is None else by)
        )
        return str(Note(note.text, note.signatures + lines))

    def prove(self, bundle, **head):
        """The bundle with a log proof; its token is logged among others."""
        for other in (b"a", b"b"):
            self.tree.append(other * 32)
        index = self.add(bundle.token)
        self.tree.append(b"c" * 32)
        proof = LogProof(
            index, self.checkpoint(**head), tuple(self.tree.inclusion_proof(index))
        )
        return replace(bundle, log=proof)
