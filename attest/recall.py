"""Recall: status lists, and what a revoked manifest or key means for a statement.

A Token Status List (draft-ietf-oauth-status-list) is a signed list of bits; a manifest,
and a key certificate, may name their place in one. The list is signed by the authority
or by whoever certified the key, and travels in the bundle. Beside the bits ours holds
`revoked_at`: a list without times could only say that everything is void.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from attest import tokens
from attest.errors import AlgorithmError, FormatError, SignatureError
from attest.keys import PublicKey, Signer, b64url_decode, b64url_encode

__all__ = ["MAX_ENTRIES", "Reference", "StatusList", "find_list", "read_reference"]

_TYP = "statuslist+jwt"
# 2^20 one-bit entries are 128 kB, and a hundred bytes while few are set.
MAX_ENTRIES = 2**20
_MAX_LIST_BYTES = MAX_ENTRIES
_MAX_URI = 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a status list: the list's URI, and the entry's number."""

    uri: str
    index: int

    def to_json(self) -> dict[str, Any]:
        """The member `status` of a manifest or a certificate."""
        return {"status_list": {"idx": self.index, "uri": self.uri}}


def read_reference(status: object) -> Reference | None:
    """The place that a member `status` names, None where there is none.

    Raises:
        FormatError: it is there, and is not a reference to a status list. An unknown
            kind of status could be a revocation, so it is no reason to go on.
    """
    if status is None:
        return None
    match status:
        case {"status_list": {"idx": int(index), "uri": str(uri)}} if (
            not isinstance(index, bool)
            and 0 <= index < MAX_ENTRIES
            and 0 < len(uri) <= _MAX_URI
        ):
            return Reference(uri, index)
    raise FormatError("status: expected status_list with idx and uri")


@dataclass(frozen=True, slots=True)
class StatusList:
    """A list as it was read or is about to be signed.

    Attributes:
        uri: its identity; references name it.
        issued_at: when it was signed: what it says holds as of then.
        bits: bits per entry; 1, 2, 4 or 8.
        statuses: the entries, packed, lowest bits first.
        revoked_at: since when an entry is void, by index; no time means since ever.
    """

    uri: str
    issued_at: int
    bits: int
    statuses: bytes
    revoked_at: Mapping[int, int]

    @classmethod
    def new(cls, uri: str, size: int) -> Self:
        """A list in which nothing is revoked.

        Raises:
            FormatError: no URI, or more than 2^20 entries.
        """
        if not 0 < len(uri) <= _MAX_URI or not 0 < size <= MAX_ENTRIES:
            raise FormatError(f"status list: a URI, and 1 to {MAX_ENTRIES} entries")
        return cls(uri, 0, 1, bytes(-(-size // 8)), {})

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.statuses) * 8 // self.bits

    def status(self, index: int) -> int:
        """What stands at an entry: 0 is valid, all else is not.

        Raises:
            FormatError: there is no such entry.
        """
        if not 0 <= index < self.size:
            raise FormatError(f"status list: no entry {index} among {self.size}")
        at = index * self.bits
        return self.statuses[at // 8] >> (at % 8) & ((1 << self.bits) - 1)

    def revoked(self, index: int, since: int) -> Self:
        """The list with one more entry void, from a time on (seconds, UTC).

        Raises:
            FormatError: there is no such entry.
        """
        self.status(index)
        statuses, at = bytearray(self.statuses), index * self.bits
        statuses[at // 8] |= 1 << (at % 8)
        earlier = self.revoked_at.get(index, since)
        times = {**self.revoked_at, index: min(since, earlier)}
        return replace(self, statuses=bytes(statuses), revoked_at=times)

    def sign(self, signer: Signer, *, now: int) -> str:
        """The signed list (draft §5.1), as of now.

        Raises:
            SignerError: the key store can't sign.
            FormatError: too many entries are revoked for one token of 16 KiB.
        """
        packed = b64url_encode(zlib.compress(self.statuses, 9))
        claims = {
            "sub": self.uri,
            "iat": now,
            "status_list": {"bits": self.bits, "lst": packed},
            "revoked_at": {str(k): v for k, v in sorted(self.revoked_at.items())},
        }
        compact = tokens.mint(_TYP, claims, signer)
        if len(compact) > tokens.MAX_TOKEN:
            raise FormatError(
                "status list: too large for one token; begin another list"
            )
        return compact

    @classmethod
    def read(cls, compact: str, keys: Iterable[PublicKey]) -> Self:
        """A list that one of `keys` signed.

        Raises:
            SignatureError, AlgorithmError: none of them did.
            FormatError: it breaks the form, or unpacks to more than 1 MiB.
        """
        token = tokens.parse(compact, typ=_TYP)
        signer = next((key for key in keys if key.thumbprint == token.kid), None)
        if signer is None:
            raise SignatureError(f"status list: {token.kid} may not issue it")
        tokens.verify(token, signer)
        match token.claims:
            case {
                "sub": str(uri),
                "iat": int(issued_at),
                "status_list": {"bits": (1 | 2 | 4 | 8) as bits, "lst": str(packed)},
            } if uri and issued_at >= 0:
                times = _times(token.claims.get("revoked_at", {}))
                return cls(uri, issued_at, bits, _unpacked(packed), times)
        raise FormatError("status list: expected sub, iat and status_list")


def _unpacked(text: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(b64url_decode(text), _MAX_LIST_BYTES)
    except zlib.error:
        raise FormatError("status list: lst is not in ZLIB form") from None
    if not unpacker.eof or unpacker.unused_data or not data:
        raise FormatError("status list: lst is cut, empty or too large")
    return data


def _times(value: object) -> dict[int, int]:
    if not isinstance(value, dict) or not all(
        key.isascii() and key.isdigit() and len(key) < 8 and type(at) is int and at >= 0
        for key, at in value.items()
    ):
        raise FormatError("status list: revoked_at must hold times by entry")
    return {int(key): at for key, at in value.items()}


def find_list(
    reference: Reference, lists: Sequence[str], keys: Sequence[PublicKey]
) -> StatusList | None:
    """The latest list with the reference's URI that one of `keys` signed.

    Lists of other URIs, or by others, are passed over: a bundle may hold several.

    Raises:
        FormatError: a list by one of `keys` breaks its form.
    """
    found: StatusList | None = None
    for compact in lists:
        try:
            item = StatusList.read(compact, keys)
        except (SignatureError, AlgorithmError):
            continue
        if item.uri == reference.uri and (
            found is None or item.issued_at > found.issued_at
        ):
            found = item
    return found
