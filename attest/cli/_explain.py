"""What each kind of evidence says, claim by claim, in the words of `attest.claims`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attest import disclosures, tokens
from attest.bundle import MAX_BUNDLE, Bundle, Endorsements
from attest.canonical import read_object
from attest.claims import SALTED, TOKENS, Claim
from attest.cli._unverified import unverified_manifest
from attest.errors import FormatError
from attest.keys import b64url_decode
from attest.refusal import read_refusal

__all__ = ["MANIFEST_MEMBERS", "TITLES", "Document", "Row", "explained"]

TITLES: Mapping[str, str] = {
    "inference-attestation+jwt": "response attestation: a gateway about one answer",
    "gateway-key+jwt": "key certificate: who vouches for a gateway's session key",
    "eat+jwt": "boot record: what a gateway loaded, and how it serves it",
    "startup-refusal+jwt": "startup refusal: why a gateway would not serve",
    "statuslist+jwt": "status list: which manifests or keys were recalled",
}

MANIFEST_MEMBERS: Mapping[str, tuple[str, str]] = {
    "subject": ("every file of the model directory, and its digest", ""),
    "model": ("name and version that the authority gave the model", ""),
    "weights": (
        "root over the digests of all tensors, however they are sharded",
        "that a server loads them: the response attestation speaks to that",
    ),
    "constitution": (
        "the constitution that the model was trained on",
        "that the model obeys it",
    ),
    "principles": (
        "which principle was routed to which layers, and where it was absorbed",
        "that a principle resists later training, beyond the attacks that were tried",
    ),
    "training": (
        "stages, data and the Merkle root of the event log",
        "that the trainer did what it logged",
    ),
    "evaluation": (
        "what was measured on held-out questions",
        "how the model does on other questions",
    ),
    "runtime": ("how the weights may be served; nothing else is allowed", ""),
    "delegations": (
        "keys that may certify the session keys of gateways",
        "that their holders are careful",
    ),
    "validity": ("from when until when answers may refer to it", ""),
    "trustAnchors": (
        "keys of the transparency logs, and of their witnesses, that count",
        "that a log holds every answer: each answer brings its own proof",
    ),
    "limits": ("what the trainer itself says is not shown", ""),
    "derivation": (
        "which model it was made from, and how",
        "that what was measured on that model holds for this one, unless it is carried",
    ),
    "supersedes": ("the manifest that it replaces, by digest", ""),
    "status": ("where to see whether it was revoked", "that nobody revoked it"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One claim. `known` is false where this version has no words for it."""

    name: str
    value: Any
    meaning: str
    not_proven: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """One signed document, unverified."""

    title: str
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """The document for machines."""
        return {"title": self.title, "claims": [asdict(row) for row in self.rows]}


def explained(data: bytes) -> list[Document]:
    """The documents in a file of evidence.

    Raises:
        FormatError, AlgorithmError, UnsupportedVersionError: it is no such file, or
            breaks the rules of its form.
    """
    text = data.strip()
    if text.startswith(b"{"):
        value = read_object(data, max_bytes=MAX_BUNDLE)
        for member, read in _FILES.items():
            if member in value:
                return read(data, value)
    elif b"." in text and text.isascii():
        return _token_documents(text.decode("ascii"))
    raise FormatError(
        "evidence: expected a bundle, token, certificate, boot record, refusal or "
        "manifest",
        hint="keys are shown by: attest keys show FILE",
    )


def _bundle(data: bytes, value: Mapping[str, Any]) -> list[Document]:
    bundle = Bundle.loads(data)
    lists = [item for text in bundle.status_lists for item in _token_documents(text)]
    return [*_token_documents(bundle.token), *_endorsements(data, value), *lists]


def _refusal(data: bytes, _: Mapping[str, Any]) -> list[Document]:
    record = read_refusal(data)
    documents = _token_documents(record.token)
    if record.key_certificate is not None:
        documents += _token_documents(record.key_certificate)
    if record.manifest is not None:
        documents += _manifest(record.manifest, {})
    return documents


def _endorsements(_: bytes, value: Mapping[str, Any]) -> list[Document]:
    found = Endorsements.from_json(value)
    texts = [found.boot_record, *found.key_certificates]
    documents = [document for text in texts for document in _token_documents(text)]
    return [*documents, *_manifest(found.manifest, {})]


def _manifest(data: bytes, _: Mapping[str, Any]) -> list[Document]:
    manifest, keyids = unverified_manifest(data)
    members = {"subject": dict(manifest.subjects), **manifest.predicate}
    claims = [
        Claim(name, lambda _: True, *words) for name, words in MANIFEST_MEMBERS.items()
    ]
    title = (
        f"training manifest {manifest.digest}, said to be signed by {', '.join(keyids)}"
    )
    return [Document(title, _rows(members, claims))]


# The member that tells what a JSON file is, in the order in which to look.
_FILES: Mapping[str, Callable[[bytes, Mapping[str, Any]], list[Document]]] = {
    "mediaType": _bundle,
    "refusal": _refusal,
    "bootRecord": _endorsements,
    "payload": _manifest,
}


def _token_documents(text: str) -> list[Document]:
    compact, given = disclosures.split(text)
    typ = _typ(compact)
    token = tokens.parse(compact, typ=typ)
    documents = [Document(f"{TITLES[typ]} ({typ})", _rows(token.claims, TOKENS[typ]))]
    if given:
        revealed = disclosures.reveal(token.claims, given)
        title = "disclosed to whoever has this file; others see salted digests"
        documents.append(Document(title, _rows(revealed, SALTED)))
    return documents


def _typ(compact: str) -> str:
    """The kind that a token says it is, for the strict reader to check."""
    if len(compact) > tokens.MAX_TOKEN:
        raise FormatError(f"token: more than {tokens.MAX_TOKEN} bytes")
    header = read_object(b64url_decode(compact.partition(".")[0]), max_bytes=1024)
    typ = header.get("typ")
    if not isinstance(typ, str) or typ not in TOKENS:
        raise FormatError(f"token: typ is not one of {', '.join(sorted(TOKENS))}")
    return typ


def _rows(claims: Mapping[str, Any], table: Iterable[Claim]) -> tuple[Row, ...]:
    known = {claim.name: claim for claim in table}
    return tuple(
        _row(name, value, known.get("out.N" if name.startswith("out.") else name))
        for name, value in claims.items()
    )


def _row(name: str, value: Any, claim: Claim | None) -> Row:
    if claim is None:
        words = "unknown to this version, which ignores it"
        return Row(name, value, words, "anything", known=False)
    if not claim.check(value):
        words = f"WRONG TYPE OR FORM; it should say: {claim.meaning}"
        return Row(name, value, words, "anything", known=False)
    return Row(name, value, claim.meaning, claim.not_proven)
