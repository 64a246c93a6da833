"""Whether manifest and session key were still good when something was signed.

"Revoked before it was signed" is a definite no. "Revoked after it was signed" leaves a
statement proven, and is said. A manifest is withdrawn by its authority, so the signing
time that the session key states is believed; a key is revoked because others may have
it, and whoever has it can date back: then only witnesses can say that the statement is
older than the theft.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from attest.certificates import Certified
from attest.errors import EvidenceUnavailableError, VerificationError
from attest.keys import PublicKey
from attest.manifest import Manifest
from attest.policy import Policy
from attest.reasons import Finding
from attest.recall import Reference, StatusList, find_list, read_reference
from attest.steps import NotChecked, Passed

__all__ = ["Moments", "check_not_revoked", "check_standing"]

_HINT = "get a current one from the authority: attest verify bundle --status FILE"


@dataclass(frozen=True, slots=True)
class Moments:
    """Times of one statement, in seconds since the epoch, UTC.

    Attributes:
        signed_at: as the statement itself says.
        logged_at: when enough witnesses had seen it, None where they did not.
        at: the verifier's clock.
    """

    signed_at: int
    logged_at: int | None
    at: int


def check_not_revoked(
    manifest: Manifest,
    lists: Sequence[str],
    authorities: Sequence[PublicKey],
    *,
    at: int,
) -> None:
    """Return when no list at hand revokes the manifest by now; a missing list does not.

    Raises:
        VerificationError: it is revoked.
        FormatError: a list breaks its form.
    """
    if manifest.status is None:
        return
    found = find_list(manifest.status, lists, authorities)
    if found is not None:
        moments = Moments(signed_at=at, logged_at=None, at=at)
        _standing("manifest", found, manifest.status, moments)


def check_standing(
    lists: Sequence[str],
    manifest: Manifest,
    certified: Certified,
    *,
    policy: Policy,
    moments: Moments,
) -> Passed:
    """One line on the standing of manifest and key, and how old the lists are.

    Args:
        lists: status lists as they came, in any order.
        manifest: verified; its list must be signed by one of the policy's authorities.
        certified: the session key; its list must be signed by an authority or by
            whoever certified the key.
        policy: says how old a list may be, and whether there must be one.
        moments: when the statement was made, logged and looked at.

    Raises:
        NotChecked: neither names a list, or no list is there and none is demanded.
        VerificationError: revoked before it was signed.
        EvidenceUnavailableError: a list that the policy demands is missing or too old,
            or the key was revoked and nothing shows that the statement is older.
        FormatError: a reference or a list breaks its form.
    """
    authorities = policy.authorities
    issuers: Sequence[PublicKey] = (*authorities, certified.issuer)
    named = {
        "manifest": (manifest.status, authorities),
        "key": (read_reference(certified.claims.get("status")), issuers),
    }
    notes: list[str] = []
    reasons: list[str] = []
    known = False
    for name, (reference, keys) in named.items():
        if reference is None:
            continue
        found = find_list(reference, lists, keys)
        _check_age(name, found, policy, moments.at)
        if found is None:
            notes.append(f"{name}: no status list is at hand")
            reasons.append("status.partly_given")
        else:
            known = True
            words, reason = _standing(name, found, reference, moments)
            age = max(0, moments.at - found.issued_at)
            notes.append(f"{name} {words}; its list is {age} s old")
            reasons.append(reason)
    if not notes:
        raise NotChecked(
            "neither manifest nor key certificate names a status list",
            "status.unnamed",
        )
    if not known:
        raise NotChecked("the bundle holds no status list", "status.not_given")
    said = zip(reasons, notes, strict=True)
    findings = tuple(Finding(reason, note) for reason, note in said if reason)
    return Passed("; ".join(notes), findings)


def _check_age(name: str, found: StatusList | None, policy: Policy, at: int) -> None:
    oldest = policy.max_status_age_seconds
    if oldest is None:
        return
    if found is None:
        raise EvidenceUnavailableError(
            f"status: no list for the {name} is at hand, and the policy demands one",
            hint=_HINT,
            reason="status.missing",
        )
    age = at - found.issued_at
    if age > oldest:
        raise EvidenceUnavailableError(
            f"status: the list for the {name} is {age} s old, at most {oldest} s are "
            "demanded",
            hint=_HINT,
            reason="status.old",
        )


def _standing(
    name: str, found: StatusList, reference: Reference, moments: Moments
) -> tuple[str, str]:
    """What is to be said, and its code, if it has one."""
    if found.status(reference.index) == 0:
        return f"not revoked as of {_moment(found.issued_at)}", ""
    since = found.revoked_at.get(reference.index)
    if since is None or moments.signed_at >= since:
        when = "" if since is None else f" on {_moment(since)}"
        raise VerificationError(
            f"{name}: revoked{when}, before the token was signed",
            reason=f"status.{name}_revoked",
        )
    logged_at = moments.logged_at
    if name == "key" and (logged_at is None or logged_at > since):
        raise EvidenceUnavailableError(
            f"key: revoked on {_moment(since)}; the token says that it is older, and "
            "no witness saw it before",
            reason="status.key_revoked_since",
        )
    words = f"revoked on {_moment(since)}, after the token was signed"
    return words, "status.revoked_later"


def _moment(seconds: int) -> str:
    # Python's calendar ends with the year 9999.
    moment = datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
