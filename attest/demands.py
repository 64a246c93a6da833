"""Whether verified evidence is what a relying party's policy demands."""

from collections.abc import Iterator, Mapping
from typing import Any

from attest.claims import Measured, Outcome
from attest.errors import PolicyError
from attest.manifest import Manifest
from attest.policy import Policy, Tier
from attest.reasons import Finding

__all__ = ["check_demands"]


def check_demands(
    policy: Policy,
    claims: Mapping[str, Any],
    manifest: Manifest,
    *,
    tier: Tier,
    at: int,
) -> str:
    """One line, when everything is met that is not judged by another step.

    Args:
        policy: what is demanded.
        claims: of the verified token.
        manifest: verified.
        tier: that was reached.
        at: the verifier's clock, in seconds since the epoch, UTC.

    Raises:
        PolicyError: something is not met. It names all that is not, each as a finding
            with what was expected and found.
    """
    misses = [
        *_of_the_answer(policy, claims, tier, at),
        *_of_the_training(policy, manifest),
    ]
    if misses:
        raise PolicyError("; ".join(miss.detail for miss in misses), findings=misses)
    measured = claims["weights"]["measured"]
    return f"tier {tier}, measured by {measured}, outcome {claims['res']['outcome']}"


def _of_the_answer(
    policy: Policy, claims: Mapping[str, Any], tier: Tier, at: int
) -> Iterator[Finding]:
    measured = Measured(claims["weights"]["measured"])
    outcome = Outcome(claims["res"]["outcome"])
    marked = claims.get("overrides", ())
    if tier.rank < policy.min_tier.rank:
        yield _miss("tier", f"at least {policy.min_tier} is demanded", str(tier))
    if measured.rank < policy.min_measured.rank:
        least = f"at least {policy.min_measured} is demanded"
        yield _miss("measurement", least, str(measured), "weights measured by")
    if outcome not in policy.outcomes:
        yield _miss("outcome", _accepted(policy.outcomes), str(outcome))
    if claims["system_prompt"] not in policy.system_prompts:
        yield _miss(
            "system_prompt",
            _accepted(policy.system_prompts),
            claims["system_prompt"],
            "system prompt",
        )
    if policy.overrides is not None and not policy.overrides.issuperset(marked):
        found = ", ".join(f"{name!a}" for name in marked)
        yield _miss("overrides", _accepted(policy.overrides), found)
    age, oldest = at - claims["iat"], policy.max_age_seconds
    if oldest is not None and age > oldest:
        yield _miss("age", f"older than {oldest} s", f"{age} s")


def _of_the_training(policy: Policy, manifest: Manifest) -> Iterator[Finding]:
    allowed, stated = policy.constitutions, manifest.constitution
    if allowed is not None and not (
        stated and any(rule.allows(stated) for rule in allowed)
    ):
        found = f"{stated['id']} {stated['version']}" if stated else "none"
        yield _miss("constitution", _accepted(map(str, allowed)), f"{found!a}")
    for rule in policy.principles:
        yield from rule.misses(manifest.predicate.get("principles"))


def _accepted(names: Any) -> str:
    return f"accepted: {', '.join(sorted(names)) or 'none'}"


def _miss(word: str, expected: str, found: str, name: str = "") -> Finding:
    detail = f"{name or word} {found}, {expected}"
    return Finding(f"policy.{word}", detail, expected=expected, found=found)
