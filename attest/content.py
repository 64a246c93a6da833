"""Whether content at hand is the attested content, and if not, what became of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from attest.bundle import Bundle
from attest.digests import digest, digests_equal
from attest.errors import (
    ContentOnlyError,
    EvidenceUnavailableError,
    TranscriptMismatchError,
)
from attest.reasons import REASONS, Finding
from attest.restore import covered
from attest.steps import NotChecked

__all__ = ["check_content"]

# Why a copy differs from what was attested; empty where it does not.
_Findings = tuple[Finding, ...]


def check_content(
    bundle: Bundle, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> str:
    """One line, when what the bundle holds of request and response is attested.

    Args:
        bundle: for its request, response and digest of a response.
        claims: of the verified token.
        disclosed: what its disclosures proved.

    Raises:
        NotChecked: the bundle holds neither.
        TranscriptMismatchError: one was changed; the findings say how.
        ContentOnlyError: the bytes are others, and what they say was attested.
        EvidenceUnavailableError: there is a request, and its digest is not disclosed.
    """
    sides = {"response": _response(bundle, claims, disclosed)}
    # Hiding a disclosure must not turn a no into a cannot-tell.
    if "request.digest" in disclosed or not _is_false(sides["response"]):
        sides["request"] = _request(bundle, claims, disclosed)
    given = {name: side for name, side in sides.items() if side is not None}
    if not given:
        raise NotChecked("neither request nor response was given", "content.not_given")
    names = [name for name in ("request", "response") if name in given]
    differing = [name for name in names if given[name]]
    if not differing:
        return " and ".join(names) + " match byte for byte"
    findings = [finding for name in differing for finding in given[name]]
    kind = TranscriptMismatchError if _is_false(findings) else ContentOnlyError
    what = " and ".join(f"the {name} is not the attested one" for name in differing)
    raise kind(f"{what}: {'; '.join(map(_words, findings))}", findings=findings)


def _is_false(findings: Sequence[Finding] | None) -> bool:
    return any(REASONS[f.code].status != "content only" for f in findings or ())


def _request(
    bundle: Bundle, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> _Findings | None:
    """What differs in the request; None where it is not at hand."""
    if bundle.request is None:
        return None
    committed = disclosed.get("request.digest")
    if committed is None:
        raise EvidenceUnavailableError(
            "content: the request digest was not disclosed",
            reason="content.request_not_disclosed",
        )
    if digests_equal(digest(bundle.request), committed):
        return ()
    # Its import takes a tenth of a verifier's; nearly all copies are the attested ones.
    from attest.diagnosis import diagnose_request  # noqa: PLC0415

    return diagnose_request(bundle.request, claims, disclosed)


def _response(
    bundle: Bundle, claims: Mapping[str, Any], disclosed: Mapping[str, Any]
) -> _Findings | None:
    """The same for the response."""
    result, response, found = claims["res"], bundle.response, bundle.response_digest
    if response is not None:
        found = digest(covered(response, stream=result["stream"]))
    if found is None:
        return None
    if digests_equal(found, result["content_digest"]):
        return ()
    if response is None:  # hashed as it passed, so there is nothing to look at
        words = REASONS["content.changed"].meaning
        return (Finding("content.changed", words),)
    from attest.diagnosis import diagnose_response  # noqa: PLC0415  # as above

    return diagnose_response(response, claims, disclosed)


def _words(finding: Finding) -> str:
    if not finding.expected:
        return finding.detail
    return f"{finding.detail} (expected {finding.expected}, found {finding.found})"
