"""Signed notes (C2SP signed-note v1): a text, and lines by those who signed it.

A key of a note is told by its name and by four bytes of a hash over name, kind and key.
Two kinds are read: a log's Ed25519 key, and a witness's, which signs with a time
(C2SP tlog-cosignature v1). Signatures by unknown keys are ignored, as the format asks.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from attest.errors import FormatError, SignatureError
from attest.keys import Algorithm, PublicKey, Signer, b64url_decode, b64url_encode

__all__ = [
    "MAX_NOTE",
    "KeyKind",
    "Note",
    "NoteKey",
    "NoteSigner",
    "Signature",
    "decode_base64",
    "parse_note",
    "parse_signatures",
]

# The format asks for room for 16 signatures; ours have 76 bytes, post-quantum ones of
# unknown keys up to 5 kB.
MAX_NOTE = 128 * 1024
_MAX_SIGNATURES = 64
_MAX_NAME = 256
_DASH = "—"
# One space, which no name can hold, and base64, which holds none: nothing to retry.
_LINE = re.compile(rf"{_DASH} (\S+) ([A-Za-z0-9+/]+={{0,2}})\Z")
_VKEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})\Z")


class KeyKind(IntEnum):
    """Signature type identifier of a note key."""

    LOG = 0x01
    WITNESS = 0x04


def decode_base64(text: str) -> bytes:
    """The bytes of padded standard base64, in its one canonical spelling.

    Raises:
        FormatError: any other spelling.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("note: not base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise FormatError("note: base64 with stray bits at its end")
    return data


def _check_name(name: str) -> str:
    # isspace and isprintable cover every Unicode space and every control character.
    if (
        not 0 < len(name) <= _MAX_NAME
        or "+" in name
        or any(char.isspace() or not char.isprintable() for char in name)
    ):
        raise FormatError(
            "note: a key name must have 1 to 256 characters, no space and no +",
            hint="take the log's address without its scheme, such as example.com/log",
        )
    return name


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, unverified."""

    name: str
    key_id: bytes
    data: bytes

    def __str__(self) -> str:
        encoded = base64.b64encode(self.key_id + self.data).decode("ascii")
        return f"{_DASH} {self.name} {encoded}\n"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key of a note; its text form is a C2SP verifier key (vkey).

    `str(NoteKey.parse(text)) == text` for every text that is accepted.
    """

    name: str
    kind: KeyKind
    key: bytes

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `<name>+<8 hex digits>+<base64 of kind and key>`.

        Raises:
            FormatError: another form, another kind of key, a key that is not 32 bytes,
                or digits that are not the key's id.
        """
        match = _VKEY.match(text) if isinstance(text, str) else None
        if match is None:
            raise FormatError("vkey: expected name+hash+key")
        data = decode_base64(match[3])
        if len(data) != 33 or data[0] not in set(KeyKind):
            raise FormatError("vkey: expected an Ed25519 key of a log or a witness")
        key = cls(_check_name(match[1]), KeyKind(data[0]), data[1:])
        if key.key_id.hex() != match[2]:
            raise FormatError("vkey: the hash in its middle is not the key's")
        return key

    @classmethod
    def of(cls, name: str, kind: KeyKind, public: PublicKey) -> Self:
        """The key under a name.

        Raises:
            FormatError: not Ed25519, or a name that notes can't hold.
        """
        if public.alg is not Algorithm.EDDSA:
            raise FormatError(
                "note: expected an Ed25519 key",
                hint="make one: attest keys new log.key.pem",
            )
        return cls(_check_name(name), kind, b64url_decode(public.jwk["x"]))

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([self.kind]) + self.key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart; no security rests on them."""
        named = self.name.encode() + b"\n" + bytes([self.kind]) + self.key
        return hashlib.sha256(named).digest()[:4]

    def made(self, signature: Signature) -> bool:
        """Whether a line says that it is by this key. Nothing is verified."""
        return (signature.name, signature.key_id) == (self.name, self.key_id)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return when this key made the Ed25519 `signature` over `message`.

        Raises:
            SignatureError: it did not.
        """
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(self.key)}
        if len(signature) != 64:
            raise SignatureError("note: an Ed25519 signature has 64 bytes")
        PublicKey.from_jwk(jwk).verify(signature, message)


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A key that signs notes under a name."""

    name: str
    kind: KeyKind
    signer: Signer

    @property
    def key(self) -> NoteKey:
        """The public half.

        Raises:
            FormatError: as `NoteKey.of`.
        """
        return NoteKey.of(self.name, self.kind, self.signer.public)


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, none of them verified.

    Attributes:
        text: what is signed, its last newline included.
    """

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(map(str, self.signatures))

    def by(self, key: NoteKey) -> Iterable[Signature]:
        """The lines that say they are by `key`."""
        return (line for line in self.signatures if key.made(line))


def _decode(data: bytes | str) -> str:
    if len(data) > MAX_NOTE:
        raise FormatError(f"note: more than {MAX_NOTE} bytes")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        text.encode("utf-8")  # a str may hold lone surrogates, which have no UTF-8 form
    except UnicodeError:
        raise FormatError("note: not UTF-8") from None
    if any(char < " " and char != "\n" for char in text):
        raise FormatError("note: holds a control character")
    return text


def parse_signatures(data: bytes | str) -> tuple[Signature, ...]:
    """The signature lines of a note, or of a witness's answer.

    Raises:
        FormatError: none, more than 64, or one that breaks the form.
    """
    text = _decode(data)
    if not text.endswith("\n"):
        raise FormatError("note: the last line has no newline")
    lines = text[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise FormatError(f"note: more than {_MAX_SIGNATURES} signatures")
    return tuple(map(_signature, lines))


def _signature(line: str) -> Signature:
    match = _LINE.match(line)
    if match is None:
        raise FormatError("note: a signature line must be: — name base64")
    data = decode_base64(match[2])
    if len(data) <= 4:
        raise FormatError("note: a signature is too short")
    return Signature(_check_name(match[1]), data[:4], data[4:])


def parse_note(data: bytes | str) -> Note:
    """Read a signed note. No signature is verified.

    Raises:
        FormatError: too large, not UTF-8, a control character, no blank line before
            the signatures, or a signature line that breaks the form.
    """
    text = _decode(data)
    head, separator, tail = text.rpartition("\n\n")
    if not separator or not head:
        raise FormatError("note: no blank line between text and signatures")
    return Note(head + "\n", parse_signatures(tail))
