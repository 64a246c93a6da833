"""The claims of every token: one table each, for the strict reader and for `explain`.

Names come from RFC 7519 (JWT), RFC 9711 (EAT), RFC 7800 (`cnf`), RFC 8417 (`toe`) and
the OpenTelemetry GenAI conventions. Times are integer seconds since the epoch, UTC.
No claim is a float: float text differs between languages.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attest.digests import parse_digest
from attest.errors import FormatError, UnsupportedVersionError
from attest.keys import PublicKey, b64url_decode

__all__ = [
    "ATTESTATION",
    "BOOT",
    "EAT_PROFILE",
    "KEY_CERTIFICATE",
    "REFUSAL",
    "SALTED",
    "TOKENS",
    "Claim",
    "Measured",
    "Outcome",
    "Schema",
    "SystemPrompt",
    "check_claims",
    "check_salted",
]

EAT_PROFILE = "tag:attest-gateway,2026:inference-attestation:1"
_MAX_TEXT = 1024
_MAX_LIST = 256


class Measured(StrEnum):
    """How the weights were measured, weakest first."""

    ASSERTED = "asserted"
    FILES = "files"
    ENGINE = "engine"

    @property
    def rank(self) -> int:
        """Position in the order of strength, 0 is weakest."""
        return list(Measured).index(self)


class Outcome(StrEnum):
    """How a response ended, as the gateway saw it."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    TRUNCATED = "truncated"
    CLIENT_DISCONNECTED = "client_disconnected"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_MALFORMED = "upstream_malformed"
    REFUSED = "refused"


class SystemPrompt(StrEnum):
    """Whether a request's system prompt is one that the manifest lists."""

    GOVERNED = "governed"
    UNLISTED = "unlisted"
    ABSENT = "absent"


Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def _integer(value: Any) -> bool:
    # bool is an int in Python and not in JSON. 2^53 is the last integer that every
    # JSON reader keeps exactly (RFC 8259 §6).
    return type(value) is int and 0 <= value < 2**53


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _digest(value: Any) -> bool:
    try:
        return bool(parse_digest(value))
    except FormatError:
        return False


def _jwk(value: Any) -> bool:
    try:
        return bool(PublicKey.from_jwk(value).jwk == value)
    except FormatError:
        return False


def _sha256_b64(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(b64url_decode(value)) == 32
    except FormatError:
        return False


def _any(_: Any) -> bool:
    return True


def _one_of(values: Iterable[str]) -> Check:
    allowed = frozenset(values)
    return lambda value: isinstance(value, str) and value in allowed


def _list_of(check: Check) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) <= _MAX_LIST and all(map(check, value))
    )


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _members(required: Mapping[str, Check]) -> Check:
    """An object with at least these members; others are allowed and mean nothing."""
    return lambda value: (
        isinstance(value, dict)
        and all(
            name in value and check(value[name]) for name, check in required.items()
        )
    )


def _texts_by_name(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MAX_LIST
        and all(_text(key) and isinstance(item, str) for key, item in value.items())
    )


_WEIGHTS = {
    "root": _digest,
    "measured": _one_of(Measured),
    "verified_at": _integer,
}
_RESULT = {
    "status": _integer,
    "content_digest": _digest,
    "content_bytes": _integer,
    "stream": _boolean,
    "outcome": _one_of(Outcome),
    "choices": _integer,
}
_CONSTITUTION = {"id": _text, "version": _text, "digest": _digest}
_MANIFEST = {"digest": _digest}


@dataclass(frozen=True, slots=True)
class Claim:
    """One row: what a claim holds, what it means and what it does not prove."""

    name: str
    check: Check
    meaning: str
    not_proven: str = ""
    required: bool = True


Schema = tuple[Claim, ...]

_ISS = Claim("iss", _text, "the gateway that speaks: its id in the key certificate")
_IAT = Claim(
    "iat",
    _integer,
    "when it was signed, by the gateway's clock",
    "the true time: without a witnessed log a key holder can back-date",
)
_JTI = Claim("jti", _text, "unique id of this statement, made by the gateway")

KEY_CERTIFICATE: Schema = (
    Claim("iss", _text, "thumbprint URI of the key that certifies"),
    Claim("sub", _text, "id of the gateway that the key belongs to"),
    _JTI,
    Claim("iat", _integer, "when the certificate was made"),
    Claim("nbf", _integer, "the key may sign from here on"),
    Claim("exp", _integer, "the key may sign until here"),
    Claim(
        "cnf",
        _members({"jwk": _jwk}),
        "the session key (RFC 7800)",
        "that nobody else holds the private half",
    ),
    Claim(
        "manifests",
        _list_of(_digest),
        "manifests that the key may speak for; with none it may only sign refusals",
    ),
)

BOOT: Schema = (
    _ISS,
    _IAT,
    _JTI,
    Claim("eat_profile", _text, "format and version of the statement"),
    Claim("manifest", _members(_MANIFEST), "the training manifest that was checked"),
    Claim(
        "weights",
        _members({**_WEIGHTS, "count": _integer}),
        "the weights that were loaded and how that was measured; `protection` says "
        "what kept the checked files from changing: fs-verity or memfd (the kernel), "
        "memfd-small (the same, but for the weights' own files) or stat (they were "
        "only looked at again)",
        "that the engine's memory was not changed afterwards",
    ),
    Claim(
        "engine",
        _members({"name": _text, "version": _text, "dtype": _text}),
        "the engine and its number format; `mode` says whether the gateway started it "
        "(managed) or somebody else did (external)",
        "in external mode: with which environment and code it was started; `unknown` "
        "stands for what could not be seen",
    ),
    Claim(
        "serving_state",
        _members({"digest": _digest}),
        "every setting of the engine that can change answers, read back from it; "
        "`reported: false` where it has no plug-in and only the names that it serves "
        "were seen",
        "settings that the engine did not report truthfully",
    ),
    Claim("software", _texts_by_name, "versions of the software that was running"),
    Claim(
        "canary",
        _members({"prompts": _digest, "outputs": _digest}),
        "digests of fixed questions and of the greedy answers right after the start; "
        "equal weights, settings, code and hardware give equal ones",
        "how other questions are answered",
        required=False,
    ),
    Claim(
        "live_weights",
        _digest,
        "digest of all parameters in the engine's memory right after loading, to "
        "compare with later ones; absent where parameters are not what serves",
        "that they are the manifest's: engines fuse and pack what they load",
        required=False,
    ),
    Claim(
        "follows",
        _members({"boot": _digest, "count": _integer}),
        "the record of the same boot under the session key before this one, and how "
        "many attestations that key made",
        required=False,
    ),
)

REFUSAL: Schema = (
    _ISS,
    _IAT,
    _JTI,
    Claim("eat_profile", _text, "format and version of the statement"),
    Claim(
        "manifest", _or_null(_members(_MANIFEST)), "the manifest, if it was readable"
    ),
    Claim("code", _text, "machine-readable reason"),
    Claim("reason", _any, "what was expected and what was found"),
)

ATTESTATION: Schema = (
    _ISS,
    _IAT,
    _JTI,
    Claim("toe", _integer, "when the response ended", required=False),
    Claim(
        "sub",
        _text,
        "id of the response as the engine gave it",
        "uniqueness: the client can choose it through X-Request-Id",
        required=False,
    ),
    Claim("aud", _text, "for whom the answer was made", required=False),
    Claim("eat_profile", _text, "format and version of the statement"),
    Claim(
        "eat_nonce",
        _text,
        "the client's own nonce: the answer was made after it was sent",
        required=False,
    ),
    Claim("boot", _digest, "the boot record: what was loaded, and how it is served"),
    Claim("manifest", _members(_MANIFEST), "the training manifest that governs it"),
    Claim(
        "constitution",
        _or_null(_members(_CONSTITUTION)),
        "the constitution that the model was trained on",
        "that the answer obeys it",
    ),
    Claim(
        "weights",
        _members(_WEIGHTS),
        "the weights in the engine, and how they were measured; at `verified_at` it "
        "was still the process that loaded them, once, with the same settings, and "
        "nobody had written to the files",
        "that the engine used them, where the operator controls the machine (tier T1); "
        "that they were read again at `verified_at`; 0 there means never",
    ),
    Claim(
        "stale",
        _members({"since": _integer, "reason": _text}),
        "something changed after `verified_at`; the gateway was set to go on and say "
        "so, and claims no measurement any more",
        "which weights answered",
        required=False,
    ),
    Claim(
        "gen_ai.request.model", _text, "the model that was asked for", required=False
    ),
    Claim("gen_ai.response.model", _text, "the model that answered", required=False),
    Claim(
        "gen_ai.response.finish_reasons",
        _list_of(lambda value: value is None or _text(value)),
        "why each choice ended",
        required=False,
    ),
    Claim("gen_ai.usage.input_tokens", _integer, "tokens read", required=False),
    Claim("gen_ai.usage.output_tokens", _integer, "tokens written", required=False),
    Claim(
        "system_prompt",
        _one_of(SystemPrompt),
        "whether the request's system prompt is one that the manifest lists",
        "prompts that reached the model without passing the gateway, and that no text "
        "of a user posed as one",
    ),
    Claim(
        "altered",
        _boolean,
        "the engine was sent another body than the client's: the gateway put the "
        "governed system prompt first",
        "that nothing else was changed; request.forwarded_digest says what was sent",
        required=False,
    ),
    Claim(
        "overrides",
        _list_of(_text),
        "members of the request that can change how the prompt is built or go round "
        "the weights, and members that this gateway does not know; it was set to mark "
        "them and not to refuse them",
        "how the manifest's chat template and weights would have answered",
        required=False,
    ),
    Claim(
        "res",
        _members(_RESULT),
        "status, outcome and digest of the exact bytes that the client was sent",
        "that the answer is true, safe or useful",
    ),
    Claim("seq", _integer, "position among the statements of this boot, from 0"),
    Claim(
        "prev",
        _or_null(_digest),
        "the statement before it: a gap or a fork is visible to who has both",
        "that nothing is missing, until the log is checked",
    ),
    Claim("_sd", _list_of(_sha256_b64), "salted digests of the private claims"),
    Claim("_sd_alg", _one_of(["sha-256"]), "how those digests were made"),
)

# Claims that travel as disclosures. `out.N` stands for each choice.
SALTED: Schema = (
    Claim("request.digest", _digest, "the exact bytes of the request"),
    Claim(
        "request.forwarded_digest",
        _digest,
        "the bytes that the engine was sent, where the gateway changed them",
        required=False,
    ),
    Claim(
        "request.semantic_digest",
        _digest,
        "messages and tools of the request, whatever their spelling",
        required=False,
    ),
    Claim("system_prompt.digest", _digest, "text of the system prompt", required=False),
    Claim(
        "request.sampling",
        _texts_by_name,
        "sampling parameters asked for",
        required=False,
    ),
    Claim(
        "out.N", _digest, "one choice: text, tool calls, finish reason", required=False
    ),
)

TOKENS: Mapping[str, Schema] = {
    "gateway-key+jwt": KEY_CERTIFICATE,
    "eat+jwt": BOOT,
    "inference-attestation+jwt": ATTESTATION,
    "startup-refusal+jwt": REFUSAL,
}


def check_claims(claims: Mapping[str, Any], typ: str) -> tuple[str, ...]:
    """Check presence and type of the claims of one kind of token.

    Returns:
        Names of claims that this version does not know. They never relax anything.

    Raises:
        FormatError: a required claim is missing, or one has the wrong type; the message
            names the claim.
        UnsupportedVersionError: `eat_profile` is not the one of this version, or the
            token lists claims that must be understood (`crit`).
    """
    schema = TOKENS[typ]
    for claim in schema:
        if claim.name not in claims:
            if claim.required:
                raise FormatError(f"claims: {claim.name} is missing")
        elif not claim.check(claims[claim.name]):
            raise FormatError(f"claims: {claim.name} has the wrong type or form")
    profile = claims.get("eat_profile", EAT_PROFILE)
    if profile != EAT_PROFILE or "crit" in claims:
        raise UnsupportedVersionError(
            f"claims: profile {profile!r}, this verifier reads {EAT_PROFILE!r}",
            hint="upgrade: pip install --upgrade attest-gateway",
        )
    return tuple(sorted(claims.keys() - {claim.name for claim in schema}))


def check_salted(claims: Mapping[str, Any]) -> None:
    """Check the type of the disclosed claims; unknown ones are left alone.

    Raises:
        FormatError: one has the wrong type; the message names it.
    """
    checks = {claim.name: claim.check for claim in SALTED}
    for name, value in claims.items():
        check = checks.get("out.N" if name.startswith("out.") else name, _any)
        if not check(value):
            # The name may be anybody's, and must not forge a line of a log.
            raise FormatError(f"disclosures: {name!a} has the wrong type or form")
