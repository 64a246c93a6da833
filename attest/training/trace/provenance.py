"""Whether a run is the one that a manifest speaks of, and proofs that it logged a step.

Free of torch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.digests import digests_equal, parse_digest
from attest.errors import ConfigurationError, EvidenceUnavailableError, RunMismatchError
from attest.log.merkle import MerkleTree, leaf_hash, verify_inclusion
from attest.manifest import Manifest, check_path
from attest.training.ledger import LedgerSummary, verify_ledger
from attest.training.trace.values import trace_digests

__all__ = [
    "Inclusion",
    "SignedLedger",
    "StatedFile",
    "check_data",
    "check_trace",
    "stated_data",
]

_HINT = "give the run that this model was signed from"


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That a record is leaf `index` of the tree of `size` leaves and `root`.

    `leaf` is its leaf hash (RFC 9162 §2.1.1), `path` the hashes beside the way up, leaf
    first; all in hex.
    """

    index: int
    size: int
    root: str
    leaf: str
    path: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The proof for machines."""
        return {
            "index": self.index,
            "size": self.size,
            "root": self.root,
            "leaf": self.leaf,
            "path": list(self.path),
        }


@dataclass(frozen=True, slots=True)
class StatedFile:
    """A data file as a statement names it."""

    name: str
    digest: str


class SignedLedger:
    """A ledger that was found to be the one whose roots a manifest states.

    Raises:
        LedgerError: it is not, in the classes of `verify_ledger`.
        EvidenceUnavailableError: the manifest states no ledger.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        heads = _heads(manifest.predicate)
        if not heads:
            raise EvidenceUnavailableError(
                "trace: the manifest states no event log",
                hint="sign the run: attest manifest sign DIR --run RUN",
            )
        self.head = max(heads, key=lambda head: head.size)
        verify_ledger(path, *heads)
        self._lines = path.read_bytes().splitlines()
        self._tree = MerkleTree()
        for line in self._lines:
            self._tree.append(line)

    def prove(self, seq: int) -> Inclusion:
        """The proof for record `seq`, checked against the root that was signed.

        Raises:
            VerificationError: the file changed since it was verified.
        """
        size, root = self.head.size, parse_digest(self.head.root)
        path = self._tree.inclusion_proof(seq, size)
        leaf = leaf_hash(self._lines[seq])
        verify_inclusion(leaf, index=seq, size=size, proof=path, root=root)
        hashes = tuple(item.hex() for item in path)
        return Inclusion(seq, size, self.head.root, leaf.hex(), hashes)


def check_trace(folder: Path, manifest: Manifest) -> None:
    """Return when the files of a trace are those that the manifest states.

    Raises:
        RunMismatchError: one of them is another.
        EvidenceUnavailableError: the manifest states none.
        ConfigurationError: one can't be read.
    """
    stated = _member(manifest.predicate, "training", "trace")
    if not stated:
        raise EvidenceUnavailableError(
            "trace: the manifest states no trace",
            hint="record the run with a TraceRecorder, and sign it anew",
        )
    try:
        found = trace_digests(folder)
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: cannot be read: {error.strerror}", hint="check the path"
        ) from error
    for name, value in found.items():
        expected = str(stated.get(name))
        if not digests_equal(expected, value):
            raise RunMismatchError(
                f"trace: {name}: expected {expected:.80}, found {value}", hint=_HINT
            )


def check_data(folder: Path, manifest: Manifest) -> None:
    """Return when every data file in `folder` that the manifest names is the one meant.

    Files that are not at hand are not missed.

    Raises:
        RunMismatchError: one of them is another.
        FormatError: a name is no plain path.
    """
    for item in stated_data(manifest.predicate):
        path = folder / item.name
        if path.is_file():
            with path.open("rb") as file:
                found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            if not digests_equal(item.digest, found):
                raise RunMismatchError(
                    f"data/{item.name}: expected {item.digest:.80}, found {found}",
                    hint=_HINT,
                )


def stated_data(
    predicate: Mapping[str, Any], stage: str | None = None
) -> tuple[StatedFile, ...]:
    """The data files of a stage, or of all stages.

    Raises:
        FormatError: a name is no plain path.
    """
    found = []
    for entry in _stages(predicate):
        if stage in (None, entry.get("name")) and isinstance(entry.get("data"), list):
            for item in entry["data"]:
                match item:
                    case {"name": str(name), "digest": str(value)}:
                        found.append(StatedFile(check_path(name), value))
    return tuple(found)


def _heads(predicate: Mapping[str, Any]) -> list[LedgerSummary]:
    found = []
    for stage in _stages(predicate):
        match stage:
            case {"eventLog": {"treeSize": int(size), "root": str(root)}}:
                found.append(LedgerSummary(size, root))
    return found


def _stages(predicate: Mapping[str, Any]) -> list[dict[str, Any]]:
    stages = _member(predicate, "training").get("stages")
    items = stages if isinstance(stages, list) else []
    return [stage for stage in items if isinstance(stage, dict)]


def _member(value: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
