"""The evidence that a relying party keeps about one answer, as one JSON file.

It holds everything that an offline verifier needs besides the authority's public key.
Request and response are included when the holder had them; a gateway, which keeps no
bodies, leaves them out.
"""

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from attest import disclosures
from attest.canonical import read_object
from attest.errors import FormatError, UnsupportedVersionError
from attest.log.proof import LogProof

__all__ = ["MAX_BUNDLE", "MEDIA_TYPE", "Bundle", "Endorsements"]

MEDIA_TYPE = "application/vnd.attest-gateway.bundle.v1+json"
MAX_BUNDLE = 160 * 1024 * 1024
_MAX_CERTIFICATES = 64
_MAX_STATUS_LISTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What all tokens of one boot rest on, as a gateway serves it.

    Nothing in it has been verified. The attributes are those of `Bundle`.
    """

    key_certificates: tuple[str, ...]
    boot_record: str
    manifest: bytes

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Endorsements":
        """Read the members keyCertificates, bootRecord and manifest.

        Raises:
            FormatError: one is missing, of the wrong type, or there are too many keys.
        """
        match value:
            case {
                "keyCertificates": list(certificates),
                "bootRecord": str(boot_record),
                "manifest": dict(manifest),
            } if 0 < len(certificates) <= _MAX_CERTIFICATES and all(
                isinstance(item, str) for item in certificates
            ):
                return cls(
                    key_certificates=tuple(certificates),
                    boot_record=boot_record,
                    manifest=json.dumps(manifest).encode(),
                )
        raise FormatError("bundle: expected keyCertificates, bootRecord and manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Evidence about one answer. Nothing in it has been verified.

    Attributes:
        token: the response attestation with its disclosures (`jwt~disclosure~…~`).
        key_certificates: certificates of the session keys that signed.
        boot_record: what the gateway loaded and how it serves it.
        manifest: the DSSE envelope of the training manifest.
        request: the exact request body, if at hand.
        response: the exact response body as received, with or without the attestation
            comment of a stream, if at hand.
        response_digest: digest of the response without that comment, from a holder that
            hashed it as it passed and kept nothing. It is not written to the file.
        log: that the token is in a transparency log, if it was at hand.
        status_lists: signed lists of what was revoked; each says as of when.
    """

    token: str
    key_certificates: tuple[str, ...]
    boot_record: str
    manifest: bytes
    request: bytes | None = None
    response: bytes | None = None
    response_digest: str | None = None
    log: LogProof | None = None
    status_lists: tuple[str, ...] = ()

    @classmethod
    def of(cls, token: str, endorsements: Endorsements) -> "Bundle":
        """The evidence about one answer, without its content."""
        return cls(
            token=token,
            key_certificates=endorsements.key_certificates,
            boot_record=endorsements.boot_record,
            manifest=endorsements.manifest,
        )

    @property
    def endorsements(self) -> Endorsements:
        """All but token and content."""
        return Endorsements(
            key_certificates=self.key_certificates,
            boot_record=self.boot_record,
            manifest=self.manifest,
        )

    @property
    def disclosed_names(self) -> tuple[str, ...]:
        """Names of the claims that the token discloses, in their order.

        Raises:
            FormatError: the disclosures break their form.
        """
        return tuple(disclosures.named(disclosures.split(self.token)[1]))

    def redacted(self, keep: Collection[str]) -> "Bundle":
        """The same evidence, disclosing no other claims than these, without bodies.

        Raises:
            FormatError: the disclosures break their form.
        """
        compact, given = disclosures.split(self.token)
        named = disclosures.named(given)
        kept = [text for name, text in named.items() if name in keep]
        return replace(
            self,
            token=disclosures.join(compact, kept),
            request=None,
            response=None,
            response_digest=None,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        value: dict[str, Any] = {
            "mediaType": MEDIA_TYPE,
            "token": self.token,
            "keyCertificates": list(self.key_certificates),
            "bootRecord": self.boot_record,
            "manifest": json.loads(self.manifest),
        }
        if self.log is not None:
            value["log"] = self.log.to_json()
        if self.status_lists:
            value["statusLists"] = list(self.status_lists)
        for name, body in (("request", self.request), ("response", self.response)):
            if body is not None:
                value[name] = base64.b64encode(body).decode("ascii")
        return value

    def dumps(self) -> bytes:
        """The JSON file."""
        return json.dumps(self.to_json(), indent=1).encode() + b"\n"

    @classmethod
    def loads(cls, data: bytes) -> "Bundle":
        """Read a bundle file.

        Raises:
            FormatError: not a bundle, too large, or a member of the wrong type.
            UnsupportedVersionError: another media type.
        """
        value = read_object(data, max_bytes=MAX_BUNDLE)
        if value.get("mediaType") != MEDIA_TYPE:
            raise UnsupportedVersionError(
                f"bundle: mediaType is not {MEDIA_TYPE}",
                hint="upgrade: pip install --upgrade attest-gateway",
            )
        token = value.get("token")
        if not isinstance(token, str):
            raise FormatError("bundle: token must be a string")
        return replace(
            cls.of(token, Endorsements.from_json(value)),
            request=_body(value, "request"),
            response=_body(value, "response"),
            status_lists=_texts(value, "statusLists"),
            log=LogProof.from_json(value["log"]) if "log" in value else None,
        )


def _texts(value: dict[str, Any], name: str) -> tuple[str, ...]:
    items = value.get(name, [])
    if (
        not isinstance(items, list)
        or len(items) > _MAX_STATUS_LISTS
        or not all(isinstance(item, str) for item in items)
    ):
        raise FormatError(f"bundle: {name} must hold at most 16 texts")
    return tuple(items)


def _body(value: dict[str, Any], name: str) -> bytes | None:
    text = value.get(name)
    if text is None:
        return None
    try:
        if isinstance(text, str) and len(text) % 4 == 0:  # b64decode takes `AAAA=`
            return base64.b64decode(text, validate=True)
    except ValueError:  # also binascii.Error; text beyond ASCII gives the bare one
        pass
    raise FormatError(f"bundle: {name} is not base64")
