"""A verdict in the words of EAT attestation results (draft-ietf-rats-ear-04).

It is the claims-set alone, unsigned, so by the letter not an EAR: whoever hands it on
as their word signs it as a JWT. The vector holds AR4SI claims (draft-ietf-rats-ar4si)
about what was looked at, and leaves out what no evidence up to tier T2 shows:
executables, hardware and memory.
"""

from collections.abc import Mapping
from typing import Any

from attest._version import __version__
from attest.policy import Policy
from attest.steps import Status
from attest.verdict import Verdict

__all__ = ["EAR_PROFILE", "attestation_result"]

EAR_PROFILE = "tag:ietf.org,2026:rats/ear#04"
_DEVELOPER = "attest-gateway"
_SUBMODULE = "inference-attestation"

# AR4SI §2.3: 2 affirms, 32 and above warns (36: something relevant is unavailable), 99
# says that cryptographic validation failed.
_AFFIRMING, _UNRECOGNIZED, _UNAVAILABLE, _CRYPTO_FAILED = 2, 32, 36, 99
_STATUS: Mapping[str, str] = {
    "proven": "affirming",
    "content_only": "warning",
    "false": "contraindicated",
    "unknown": "none",
}
_SIGNED = ("form", "manifest", "key", "boot", "signature")


def attestation_result(verdict: Verdict, policy: Policy, *, at: int) -> dict[str, Any]:
    """The claims-set.

    `ear_status` is affirming where all is proven, warning where the content is and the
    bytes are not or where a claim of the vector warns, contraindicated for a definite
    no, and none where it cannot be told. Our steps, with their reasons, stand in
    `ear_verifier_claims`; what the gateway says, in `ear_attester_claims`.

    Args:
        verdict: what was found.
        policy: by which it was judged; named by the digest of its JSON form.
        at: when, in seconds since the epoch, UTC.
    """
    found = verdict.to_json()
    vector = _vector(verdict)
    status = _STATUS[found["verdict"]]
    if status == "affirming" and max(vector.values(), default=0) >= _UNRECOGNIZED:
        status = "warning"
    appraisal: dict[str, Any] = {
        "ear_status": status,
        "ear_appraisal_policy_ids": [f"urn:attest-gateway:policy:{policy.digest}"],
        "ear_verifier_claims": {
            name: found[name] for name in ("verdict", "tier", "measured", "steps")
        },
        "ear_attester_claims": {**found["claims"], **found["disclosed"]},
    }
    if vector:  # an empty one is not allowed
        appraisal["ear_trustworthiness_vector"] = vector
    result: dict[str, Any] = {
        "eat_profile": EAR_PROFILE,
        "iat": at,
        "ear_verifier_id": {
            "developer": _DEVELOPER,
            "build": f"attest-gateway {__version__}",
        },
        "submods": {_SUBMODULE: appraisal},
    }
    if nonce := verdict.claims.get("eat_nonce"):
        result["eat_nonce"] = nonce
    return result


def _vector(verdict: Verdict) -> dict[str, int]:
    steps = {step.name: step.status for step in verdict.steps}
    if Status.FAILED in [steps.get(name) for name in _SIGNED]:
        return {"instance-identity": _CRYPTO_FAILED}
    # A refusal is no answer: it says nothing of weights or content.
    if steps.get("agreement") is not Status.OK or "weights" not in verdict.claims:
        return {}
    claims = verdict.claims
    asserted = claims["weights"]["measured"] == "asserted"
    vector = {
        "instance-identity": _AFFIRMING,
        "configuration": _UNAVAILABLE if claims.get("overrides") else _AFFIRMING,
        "file-system": _UNRECOGNIZED if asserted else _AFFIRMING,
    }
    if steps.get("content") is Status.OK:
        vector["sourced-data"] = _AFFIRMING
    return vector
