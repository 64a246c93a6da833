/** Whether verified evidence is what a relying party's policy demands. */

import { byCodePoint } from "./bytes.js";
import { MEASURED, type TokenClaims } from "./claims.js";
import { PolicyError } from "./errors.js";
import { member } from "./json.js";
import type { Manifest } from "./manifest.js";
import { type Policy, TIERS, type Tier } from "./policy.js";
import type { Finding } from "./reasons.js";
import { ascii } from "./spelling.js";

/**
 * One line, when everything is met that is not judged by another step.
 *
 * @param claims Of the verified token.
 * @param manifest Verified.
 * @param tier That was reached.
 * @param at The verifier's clock, in seconds since the epoch, UTC.
 *
 * Throws PolicyError: something is not met. It names all that is not, each as a finding
 * with what was expected and found.
 */
export function checkDemands(
  policy: Policy,
  claims: TokenClaims,
  manifest: Manifest,
  tier: Tier,
  at: number,
): string {
  const misses = [
    ...ofTheAnswer(policy, claims, tier, at),
    ...ofTheTraining(policy, manifest),
  ];
  if (misses.length > 0) {
    const words = misses.map((miss) => miss.detail).join("; ");
    throw new PolicyError(words, { findings: misses });
  }
  const [measured, outcome] = [claims.weights.measured, claims.res.outcome];
  return `tier ${tier}, measured by ${measured}, outcome ${outcome}`;
}

function* ofTheAnswer(
  policy: Policy,
  claims: TokenClaims,
  tier: Tier,
  at: number,
): Generator<Finding> {
  const { measured } = claims.weights;
  const { outcome } = claims.res;
  const marked = claims.overrides ?? [];
  const accepted = policy.overrides;
  if (TIERS.indexOf(tier) < TIERS.indexOf(policy.minTier)) {
    yield miss("tier", `at least ${policy.minTier} is demanded`, tier);
  }
  if (MEASURED.indexOf(measured) < MEASURED.indexOf(policy.minMeasured)) {
    const least = `at least ${policy.minMeasured} is demanded`;
    yield miss("measurement", least, measured, "weights measured by");
  }
  if (!policy.outcomes.includes(outcome)) {
    yield miss("outcome", acceptedOf(policy.outcomes), outcome);
  }
  if (!policy.systemPrompts.includes(claims.system_prompt)) {
    const expected = acceptedOf(policy.systemPrompts);
    yield miss("system_prompt", expected, claims.system_prompt, "system prompt");
  }
  if (accepted !== null && !marked.every((name) => accepted.includes(name))) {
    yield miss("overrides", acceptedOf(accepted), marked.map(ascii).join(", "));
  }
  const [age, oldest] = [at - claims.iat, policy.maxAgeSeconds];
  if (oldest !== null && age > oldest) {
    yield miss("age", `older than ${oldest} s`, `${age} s`);
  }
}

function* ofTheTraining(policy: Policy, manifest: Manifest): Generator<Finding> {
  const [allowed, stated] = [policy.constitutions, manifest.constitution];
  const isAllowed =
    allowed === null ||
    (stated !== null && allowed.some((rule) => rule.allows(stated)));
  if (!isAllowed) {
    const found = stated === null ? "none" : `${stated.id} ${stated.version}`;
    yield miss("constitution", acceptedOf(allowed.map(String)), ascii(found));
  }
  for (const rule of policy.principles) {
    yield* rule.misses(member(manifest.predicate, "principles"));
  }
}

function acceptedOf(names: readonly string[]): string {
  return `accepted: ${[...names].sort(byCodePoint).join(", ") || "none"}`;
}

function miss(word: string, expected: string, found: string, name = word): Finding {
  const detail = `${name} ${found}, ${expected}`;
  return { code: `policy.${word}`, detail, expected, found };
}
