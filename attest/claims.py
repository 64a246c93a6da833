"""The claims of every token: one table each, for the strict reader and for `explain`.

Names come from RFC 7519 (JWT), RFC 9711 (EAT), RFC 7800 (`cnf`), RFC 8417 (`toe`) and
the OpenTelemetry GenAI conventions. Times are integer seconds since the epoch, UTC.
No claim is a float: float text differs between languages.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attest.errors import FormatError, UnsupportedVersionError
from attest.fields import (
    Claim,
    Schema,
    are_texts_by_name,
    is_any,
    is_boolean,
    is_digest,
    is_integer,
    is_jwk,
    is_sha256_b64,
    is_text,
    list_of,
    members,
    one_of,
    or_null,
)

__all__ = [
    "ATTESTATION",
    "BOOT",
    "EAT_PROFILE",
    "KEY_CERTIFICATE",
    "REFUSAL",
    "SALTED",
    "STATUS_LIST",
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


_WEIGHTS = {
    "root": is_digest,
    "measured": one_of(Measured),
    "verified_at": is_integer,
}
_RESULT = {
    "status": is_integer,
    "content_digest": is_digest,
    "content_bytes": is_integer,
    "stream": is_boolean,
    "outcome": one_of(Outcome),
    "choices": is_integer,
}
_CONSTITUTION = {"id": is_text, "version": is_text, "digest": is_digest}
_MANIFEST = {"digest": is_digest}


_ISS = Claim("iss", is_text, "the gateway that speaks: its id in the key certificate")
_IAT = Claim(
    "iat",
    is_integer,
    "when it was signed, by the gateway's clock",
    "the true time: without a witnessed log a key holder can back-date",
)
_JTI = Claim("jti", is_text, "unique id of this statement, made by the gateway")

KEY_CERTIFICATE: Schema = (
    Claim("iss", is_text, "thumbprint URI of the key that certifies"),
    Claim("sub", is_text, "id of the gateway that the key belongs to"),
    _JTI,
    Claim("iat", is_integer, "when the certificate was made"),
    Claim("nbf", is_integer, "the key may sign from here on"),
    Claim("exp", is_integer, "the key may sign until here"),
    Claim(
        "cnf",
        members({"jwk": is_jwk}),
        "the session key (RFC 7800)",
        "that nobody else holds the private half",
    ),
    Claim(
        "manifests",
        list_of(is_digest),
        "manifests that the key may speak for; with none it may only sign refusals",
    ),
    Claim(
        "status",
        members({"status_list": members({"idx": is_integer, "uri": is_text})}),
        "the key's entry in a status list (Token Status List): there it is said "
        "whether the key was revoked",
        "that it was not: that takes the list, as of a time",
        required=False,
    ),
)

STATUS_LIST: Schema = (
    Claim("sub", is_text, "URI of the list; manifests and key certificates name it"),
    Claim(
        "iat",
        is_integer,
        "as of when it speaks",
        "that nothing was revoked since: ask for a current list",
    ),
    Claim(
        "status_list",
        members({"bits": is_integer, "lst": lambda value: isinstance(value, str)}),
        "the entries, packed: 0 is good, all else is revoked",
        "that its issuer knows of every theft",
    ),
    Claim(
        "revoked_at",
        lambda value: isinstance(value, dict) and all(map(is_integer, value.values())),
        "since when an entry is revoked; one without a time is void from the beginning",
        required=False,
    ),
)

BOOT: Schema = (
    _ISS,
    _IAT,
    _JTI,
    Claim("eat_profile", is_text, "format and version of the statement"),
    Claim("manifest", members(_MANIFEST), "the training manifest that was checked"),
    Claim(
        "weights",
        members({**_WEIGHTS, "count": is_integer}),
        "the weights that were loaded and how that was measured; `protection` says "
        "what kept the checked files from changing: fs-verity or memfd (the kernel), "
        "dm-verity (the kernel, while the device stays as it was set up), "
        "memfd-small (the same, but for the weights' own files), stat (they were "
        "only looked at again) or cached (likewise, and an earlier start had read "
        "them, not this one)",
        "that the engine's memory was not changed afterwards",
    ),
    Claim(
        "engine",
        members({"name": is_text, "version": is_text, "dtype": is_text}),
        "the engine and its number format; `mode` says whether the gateway started it "
        "(managed) or somebody else did (external)",
        "in external mode: with which environment and code it was started; `unknown` "
        "stands for what could not be seen",
    ),
    Claim(
        "serving_state",
        members({"digest": is_digest}),
        "every setting of the engine that can change answers, read back from it; "
        "`reported: false` where it has no plug-in and only the names that it serves "
        "were seen",
        "settings that the engine did not report truthfully",
    ),
    Claim("software", are_texts_by_name, "versions of the software that was running"),
    Claim(
        "canary",
        members({"prompts": is_digest, "outputs": is_digest}),
        "digests of fixed questions and of the greedy answers right after the start; "
        "equal weights, settings, code and hardware give equal ones",
        "how other questions are answered",
        required=False,
    ),
    Claim(
        "live_weights",
        is_digest,
        "digest of all parameters in the engine's memory right after loading, to "
        "compare with later ones; absent where parameters are not what serves",
        "that they are the manifest's: engines fuse and pack what they load",
        required=False,
    ),
    Claim(
        "follows",
        members({"boot": is_digest, "count": is_integer}),
        "the record of the same boot under the session key before this one, and how "
        "many attestations that key made",
        required=False,
    ),
)

REFUSAL: Schema = (
    _ISS,
    _IAT,
    _JTI,
    Claim("eat_profile", is_text, "format and version of the statement"),
    Claim("manifest", or_null(members(_MANIFEST)), "the manifest, if it was readable"),
    Claim("code", is_text, "machine-readable reason"),
    Claim("reason", is_any, "what was expected and what was found"),
)

ATTESTATION: Schema = (
    _ISS,
    _IAT,
    _JTI,
    Claim("toe", is_integer, "when the response ended", required=False),
    Claim(
        "sub",
        is_text,
        "id of the response as the engine gave it",
        "uniqueness: the client can choose it through X-Request-Id",
        required=False,
    ),
    Claim("aud", is_text, "for whom the answer was made", required=False),
    Claim("eat_profile", is_text, "format and version of the statement"),
    Claim(
        "eat_nonce",
        is_text,
        "the client's own nonce: the answer was made after it was sent",
        required=False,
    ),
    Claim("boot", is_digest, "the boot record: what was loaded, and how it is served"),
    Claim("manifest", members(_MANIFEST), "the training manifest that governs it"),
    Claim(
        "constitution",
        or_null(members(_CONSTITUTION)),
        "the constitution that the model was trained on",
        "that the answer obeys it",
    ),
    Claim(
        "weights",
        members(_WEIGHTS),
        "the weights in the engine, and how they were measured; at `verified_at` it "
        "was still the process that loaded them, once, with the same settings, and "
        "nobody had written to the files",
        "that the engine used them, where the operator controls the machine (tier T1); "
        "that they were read again at `verified_at`; 0 there means never",
    ),
    Claim(
        "stale",
        members({"since": is_integer, "reason": is_text}),
        "something changed after `verified_at`; the gateway was set to go on and say "
        "so, and claims no measurement any more",
        "which weights answered",
        required=False,
    ),
    Claim(
        "gen_ai.request.model", is_text, "the model that was asked for", required=False
    ),
    Claim("gen_ai.response.model", is_text, "the model that answered", required=False),
    Claim(
        "gen_ai.response.finish_reasons",
        list_of(lambda value: value is None or is_text(value)),
        "why each choice ended",
        required=False,
    ),
    Claim("gen_ai.usage.input_tokens", is_integer, "tokens read", required=False),
    Claim("gen_ai.usage.output_tokens", is_integer, "tokens written", required=False),
    Claim(
        "system_prompt",
        one_of(SystemPrompt),
        "whether the request's system prompt is one that the manifest lists",
        "prompts that reached the model without passing the gateway, and that no text "
        "of a user posed as one",
    ),
    Claim(
        "altered",
        is_boolean,
        "the engine was sent another body than the client's: the gateway put the "
        "governed system prompt first",
        "that nothing else was changed; request.forwarded_digest says what was sent",
        required=False,
    ),
    Claim(
        "overrides",
        list_of(is_text),
        "members of the request that can change how the prompt is built or go round "
        "the weights, and members that this gateway does not know; it was set to mark "
        "them and not to refuse them",
        "how the manifest's chat template and weights would have answered",
        required=False,
    ),
    Claim(
        "res",
        members(_RESULT),
        "status, outcome and digest of the exact bytes that the client was sent",
        "that the answer is true, safe or useful",
    ),
    Claim("seq", is_integer, "position among the statements of this boot, from 0"),
    Claim(
        "prev",
        or_null(is_digest),
        "the statement before it: a gap or a fork is visible to who has both",
        "that nothing is missing, until the log is checked",
    ),
    Claim("_sd", list_of(is_sha256_b64), "salted digests of the private claims"),
    Claim("_sd_alg", one_of(["sha-256"]), "how those digests were made"),
)

# Claims that travel as disclosures. `out.N` stands for each choice.
SALTED: Schema = (
    Claim("request.digest", is_digest, "the exact bytes of the request"),
    Claim(
        "request.forwarded_digest",
        is_digest,
        "the bytes that the engine was sent, where the gateway changed them",
        required=False,
    ),
    Claim(
        "request.semantic_digest",
        is_digest,
        "messages and tools of the request, whatever their spelling",
        required=False,
    ),
    Claim(
        "system_prompt.digest", is_digest, "text of the system prompt", required=False
    ),
    Claim(
        "request.sampling",
        are_texts_by_name,
        "sampling parameters asked for",
        required=False,
    ),
    Claim(
        "out.N",
        is_digest,
        "one choice: text, tool calls, finish reason",
        required=False,
    ),
)

TOKENS: Mapping[str, Schema] = {
    "gateway-key+jwt": KEY_CERTIFICATE,
    "eat+jwt": BOOT,
    "inference-attestation+jwt": ATTESTATION,
    "startup-refusal+jwt": REFUSAL,
    "statuslist+jwt": STATUS_LIST,
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
        check = checks.get("out.N" if name.startswith("out.") else name, is_any)
        if not check(value):
            # The name may be anybody's, and must not forge a line of a log.
            raise FormatError(f"disclosures: {name!a} has the wrong type or form")
