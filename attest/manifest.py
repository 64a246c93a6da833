"""The training manifest: what the training authority signs about a model.

An in-toto Statement v1 in a DSSE envelope. `subject` lists every file of the model
directory; the predicate says which constitution and principles governed the training,
what was measured, and under which conditions the weights may be served. Field names are
lowerCamelCase (in-toto's habit). The digest of a manifest is that of its payload, so
adding a signature does not make another manifest.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from attest._reader import Reader
from attest.canonical import read_object, reject_floats
from attest.digests import digest, from_hex, to_hex
from attest.envelope import MAX_ENVELOPE, open_envelope, seal
from attest.errors import (
    ExpiredError,
    FormatError,
    ManifestMismatchError,
    SignatureError,
    UnsupportedVersionError,
)
from attest.keys import PublicKey, Signer
from attest.log.note import NoteKey
from attest.recall import Reference, read_reference
from attest.weights import TensorDigest, tensor_root

__all__ = [
    "ISSUER_ROLE",
    "MANIFEST_TYPE",
    "PREDICATE_TYPE",
    "Delegation",
    "Manifest",
    "Runtime",
    "check_files",
    "check_path",
    "check_tensors",
    "is_weight_file",
    "open_manifest",
    "parse_statement",
    "sign_statement",
]

MANIFEST_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:attest-gateway:training-governance:v1"
TREE_ALG = "rfc6962-sha256"
ISSUER_ROLE = "gateway-key-issuer"
_MAX_FILES = 20_000
_WEIGHT_FILES = re.compile(r"[^/]+\.safetensors(\.index\.json)?\Z")


def check_path(name: object) -> str:
    """`name`, when it is a safe relative POSIX path.

    Raises:
        FormatError: empty, absolute, longer than 1,024 bytes, a backslash, a NUL, or a
            segment that is empty, `.` or `..`.
    """
    if (
        not isinstance(name, str)
        or not 0 < len(name.encode(errors="surrogatepass")) <= 1024
        or "\\" in name
        or "\0" in name
        or {"", ".", ".."} & set(name.split("/"))
    ):
        raise FormatError("manifest: a subject name is not a plain relative path")
    return name


@dataclass(frozen=True, slots=True)
class Delegation:
    """A key that the authority lets certify gateway session keys.

    The manifest carries the whole key, so that a verifier needs nothing but the
    authority's own public key.
    """

    key: PublicKey
    role: str
    not_after: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """How the weights may be served. An empty tuple allows nothing of its kind."""

    engines: tuple[str, ...]
    dtypes: tuple[str, ...]
    quantizations: tuple[str, ...]
    adapters: tuple[str, ...]
    system_prompts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose form was checked. Only `open_manifest` checks signatures.

    Attributes:
        digest: of the payload; how tokens refer to this manifest.
        subjects: file name to text digest, every file of the model directory.
        tensors: one entry per tensor, or empty when the manifest holds the root alone.
        free_sharding: the same tensors may lie in other safetensors files.
        constitution: {id, version, digest}; None for weights-only evidence.
        logs: keys of the transparency logs that gateways may use (trustAnchors.logs).
        witnesses: keys of those who cosign them (trustAnchors.witnesses).
        status: its place in a status list (attest.recall), None where it has none.
        supersedes: digest of the manifest that it replaces, None where it is the first.
        parent: digest of the manifest of the model that it was made from, if any.
        transformation: what was done to that model, in the trainer's words.
        predicate: the whole predicate as parsed, for display.
    """

    digest: str
    model_name: str
    model_version: str
    subjects: Mapping[str, str]
    tensor_root: str
    tensor_count: int
    tensors: tuple[TensorDigest, ...]
    free_sharding: bool
    constitution: Mapping[str, str] | None
    runtime: Runtime
    delegations: tuple[Delegation, ...]
    not_before: int
    not_after: int
    logs: tuple[NoteKey, ...]
    witnesses: tuple[NoteKey, ...]
    status: Reference | None
    supersedes: str | None
    parent: str | None
    transformation: str
    predicate: Mapping[str, Any]
    signed_by: tuple[str, ...] = field(default=())

    def check_validity(self, at: int) -> None:
        """Raise ExpiredError when `at` (seconds, UTC) lies outside the validity."""
        if not self.not_before <= at <= self.not_after:
            raise ExpiredError(
                f"manifest: valid from {_moment(self.not_before)} to "
                f"{_moment(self.not_after)}, judged at {_moment(at)}",
                hint="ask the training authority for a current manifest",
            )

    def issuers(self, at: int) -> tuple[PublicKey, ...]:
        """Keys, beside the authority's own, that could certify gateways at `at`."""
        return tuple(
            item.key
            for item in self.delegations
            if item.role == ISSUER_ROLE and at <= item.not_after
        )


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # no calendar reaches it
        return f"second {seconds}"


def _subjects(statement: Mapping[str, Any]) -> dict[str, str]:
    items = statement.get("subject")
    if not isinstance(items, list) or not 0 < len(items) <= _MAX_FILES:
        raise FormatError(f"manifest: expected 1 to {_MAX_FILES} subjects")
    subjects: dict[str, str] = {}
    for item in items:
        digests = item.get("digest") if isinstance(item, dict) else None
        if not isinstance(digests, dict):
            raise FormatError("manifest: a subject has no digest object")
        name = check_path(item.get("name"))
        if name in subjects:
            raise FormatError(f"manifest: subject {name!r} is listed twice")
        # in-toto lets any one matching digest pass; here sha256 must be there.
        subjects[name] = from_hex(digests.get("sha256"))
    return subjects


def _tensor(reader: Reader) -> TensorDigest:
    shape = reader.value.get("shape")
    if not isinstance(shape, list) or not all(
        type(size) is int and size >= 0 for size in shape
    ):
        raise FormatError(f"manifest: {reader.path}.shape must hold sizes")
    return TensorDigest(
        name=reader.text("name"),
        dtype=reader.text("dtype"),
        shape=tuple(shape),
        sha256=from_hex(reader.value.get("sha256")),
    )


def _runtime(reader: Reader) -> Runtime:
    return Runtime(
        engines=reader.texts("engines"),
        dtypes=reader.texts("dtypes"),
        quantizations=reader.texts("quantizations"),
        adapters=reader.texts("adapters"),
        system_prompts={
            item.digest("digest"): item.text("name")
            for item in reader.children("systemPrompts")
        },
    )


# A client meets the same manifest with every answer, and reading one of a thousand
# tensors takes 70 ms. The bytes are the key, so nothing else can be found under them.
@lru_cache(maxsize=4)
def parse_statement(payload: bytes) -> Manifest:
    """Read the payload of a manifest. Signatures and validity are NOT checked here.

    Raises:
        FormatError: the form is broken: duplicate keys, floats, unsafe or repeated
            names, a missing or mistyped field, a tensor list that does not give the
            stated root.
        UnsupportedVersionError: another statement or predicate type.
    """
    statement = read_object(payload, max_bytes=MAX_ENVELOPE)
    kinds = statement.get("_type"), statement.get("predicateType")
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise UnsupportedVersionError(
            f"manifest: expected {STATEMENT_TYPE} with {PREDICATE_TYPE}",
            hint="upgrade: pip install --upgrade attest-gateway",
        )
    reject_floats(statement)
    predicate = Reader(statement).child("predicate")
    model, weights = predicate.child("model"), predicate.child("weights")
    tree, validity = weights.child("tensorTree"), predicate.child("validity")
    anchors = predicate.child("trustAnchors", optional=True)
    derivation = predicate.child("derivation", optional=True)
    if tree.text("alg") != TREE_ALG:
        raise UnsupportedVersionError(f"manifest: tensorTree.alg is not {TREE_ALG}")
    tensors = tuple(map(_tensor, weights.children("tensors")))
    root, count = tree.digest("root"), tree.integer("count")
    if tensors and (len(tensors), tensor_root(tensors)) != (count, root):
        raise FormatError("manifest: weights.tensors do not give tensorTree.root")
    constitution = None
    if predicate.value.get("constitution") is not None:
        reader = predicate.child("constitution")
        constitution = {
            "id": reader.text("id"),
            "version": reader.text("version"),
            "digest": reader.digest("digest"),
        }
    return Manifest(
        digest=digest(payload),
        model_name=model.text("name"),
        model_version=model.text("version"),
        subjects=_subjects(statement),
        tensor_root=root,
        tensor_count=count,
        tensors=tensors,
        # Anything but the one known word means fixed: unknown values never relax.
        free_sharding=weights.value.get("sharding") == "free",
        constitution=constitution,
        runtime=_runtime(predicate.child("runtime")),
        delegations=tuple(
            Delegation(
                key=PublicKey.from_jwk(item.value.get("jwk")),
                role=item.text("role"),
                not_after=item.time("notAfter"),
            )
            for item in predicate.children("delegations")
        ),
        not_before=validity.time("notBefore"),
        not_after=validity.time("notAfter"),
        logs=tuple(map(NoteKey.parse, anchors.texts("logs"))),
        witnesses=tuple(map(NoteKey.parse, anchors.texts("witnesses"))),
        status=read_reference(predicate.value.get("status")),
        supersedes=predicate.optional_digest("supersedes"),
        parent=derivation.optional_digest("parent"),
        transformation=derivation.text("transformation", "not stated"),
        predicate=predicate.value,
    )


def sign_statement(
    subjects: Mapping[str, str],
    predicate: Mapping[str, Any],
    signers: Sequence[Signer],
) -> bytes:
    """The signed envelope of a new manifest.

    The result is read back before it is returned, so nothing is signed that a verifier
    would refuse.

    Raises:
        FormatError: as `parse_statement`.
        SignerError: a key store can't sign.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": to_hex(value)}}
            for name, value in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    payload = json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()
    parse_statement(payload)
    return seal(payload, MANIFEST_TYPE, signers)


def open_manifest(
    envelope: bytes, authorities: Sequence[PublicKey], *, threshold: int = 1
) -> Manifest:
    """The manifest, when enough of the authorities signed these very bytes.

    Verifies first and parses after. Validity is NOT checked: the caller knows the time
    to judge at (`Manifest.check_validity`).

    Raises:
        SignatureError: not signed by `threshold` of `authorities`.
        FormatError, UnsupportedVersionError: as `parse_statement`.
    """
    if not authorities:
        raise SignatureError(
            "manifest: no authority is trusted, so none can have signed"
        )
    opened = open_envelope(envelope, MANIFEST_TYPE, authorities, threshold=threshold)
    return replace(parse_statement(opened.payload), signed_by=opened.signed_by)


def _refuse(
    manifest_names: set[str], found_names: set[str], changed: list[str]
) -> None:
    missing = sorted(manifest_names - found_names)
    extra = sorted(found_names - manifest_names)
    if changed or missing or extra:
        parts = [
            f"{word}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
            for word, names in (
                ("changed", sorted(changed)),
                ("missing", missing),
                ("not listed", extra),
            )
            if names
        ]
        raise ManifestMismatchError(
            "weights: the model directory is not the manifest's; " + "; ".join(parts),
            hint="compare with: attest weights digest DIR",
            changed=tuple(sorted(changed)),
            missing=tuple(missing),
            extra=tuple(extra),
        )


def is_weight_file(name: str) -> bool:
    """Whether a file holds nothing but tensors, or tells in which file each lies.

    True for safetensors files at the top level and their index alone.
    """
    return _WEIGHT_FILES.match(name) is not None


def check_files(manifest: Manifest, found: Mapping[str, str]) -> None:
    """Return when the files found are exactly the manifest's.

    Where the manifest allows free sharding, safetensors files at the top level and
    their index are left out: `check_tensors` covers their content.

    Raises:
        ManifestMismatchError: files changed, missing or not listed.
    """
    listed = dict(manifest.subjects)
    found = dict(found)
    if manifest.free_sharding:
        for names in (listed, found):
            for name in [name for name in names if is_weight_file(name)]:
                del names[name]
    changed = [name for name in listed if name in found and found[name] != listed[name]]
    _refuse(set(listed), set(found), changed)


def check_tensors(manifest: Manifest, found: Sequence[TensorDigest]) -> None:
    """Return when the tensors found are exactly the manifest's.

    Raises:
        ManifestMismatchError: tensors changed, missing or not listed, or (when the
            manifest holds the root alone) another root.
    """
    if manifest.tensors:
        listed = {tensor.name: tensor for tensor in manifest.tensors}
        names = {tensor.name for tensor in found}
        changed = [t.name for t in found if t.name in listed and t != listed[t.name]]
        _refuse(set(listed), names, changed)
    if tensor_root(found) != manifest.tensor_root:
        raise ManifestMismatchError(
            f"weights: tensor root {tensor_root(found)}, "
            f"the manifest says {manifest.tensor_root}",
            hint="compare with: attest weights digest DIR",
        )
