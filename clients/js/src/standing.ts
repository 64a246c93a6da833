/**
 * Whether manifest and session key were still good when something was signed.
 *
 * "Revoked before it was signed" is a definite no. "Revoked after it was signed" leaves a
 * statement proven, and is said. A manifest is withdrawn by its authority, so the signing
 * time that the session key states is believed; a key is revoked because others may have
 * it, and whoever has it can date back: then only witnesses can say that the statement is
 * older than the theft.
 */

import type { Certified } from "./certificates.js";
import { EvidenceUnavailableError, VerificationError } from "./errors.js";
import type { PublicKey } from "./keys.js";
import type { Manifest } from "./manifest.js";
import type { Policy } from "./policy.js";
import type { Finding } from "./reasons.js";
import { moment } from "./reader.js";
import { type Reference, type StatusList, findList, referenceOf } from "./recall.js";
import { NotChecked, type Passed } from "./steps.js";
import type { Times } from "./transparency.js";

const LAST_SECOND = 253_402_300_799;
const HINT = "get a current one from the authority";

/** Times of one statement. */
export interface Moments extends Times {
  /** When enough witnesses had seen it, undefined where they did not. */
  readonly loggedAt: number | undefined;
}

/** Whose standing it is. */
type Name = "manifest" | "key";

/**
 * One line on the standing of manifest and key, and how old the lists are.
 *
 * @param lists Status lists as they came, in any order.
 * @param manifest Verified; its list must be signed by one of the policy's authorities.
 * @param certified The session key; its list must be signed by an authority or by whoever
 *   certified the key.
 *
 * Throws VerificationError: revoked before it was signed. Throws
 * EvidenceUnavailableError: a list that the policy demands is missing or too old, or the
 * key was revoked and nothing shows that the statement is older. Throws FormatError: a
 * reference or a list breaks its form.
 */
export async function checkStanding(
  lists: readonly string[],
  manifest: Manifest,
  certified: Certified,
  policy: Policy,
  moments: Moments,
): Promise<Passed | NotChecked> {
  const authorities = policy.authorities;
  const named: [Name, Reference | undefined, readonly PublicKey[]][] = [
    ["manifest", manifest.status, authorities],
    ["key", referenceOf(certified.raw), [...authorities, certified.issuer]],
  ];
  const notes: [string, string][] = [];
  let isKnown = false;
  for (const [name, reference, keys] of named) {
    if (reference === undefined) continue;
    const found = await findList(reference, lists, keys);
    checkAge(name, found, policy, moments.at);
    if (found === undefined) {
      notes.push(["status.partly_given", `${name}: no status list is at hand`]);
      continue;
    }
    isKnown = true;
    const [words, reason] = standing(name, found, reference, moments);
    const age = Math.max(0, moments.at - found.issuedAt);
    notes.push([reason, `${name} ${words}; its list is ${age} s old`]);
  }
  if (notes.length === 0) {
    const detail = "neither manifest nor key certificate names a status list";
    return new NotChecked(detail, "status.unnamed");
  }
  if (!isKnown) {
    return new NotChecked("the bundle holds no status list", "status.not_given");
  }
  const findings: Finding[] = notes
    .filter(([reason]) => reason !== "")
    .map(([code, detail]) => ({ code, detail }));
  return { detail: notes.map(([, note]) => note).join("; "), findings };
}

function checkAge(
  name: Name,
  found: StatusList | undefined,
  policy: Policy,
  at: number,
): void {
  const oldest = policy.maxStatusAgeSeconds;
  if (oldest === null) return;
  if (found === undefined) {
    throw new EvidenceUnavailableError(
      `status: no list for the ${name} is at hand, and the policy demands one`,
      { hint: HINT, reason: "status.missing" },
    );
  }
  const age = at - found.issuedAt;
  if (age > oldest) {
    throw new EvidenceUnavailableError(
      `status: the list for the ${name} is ${age} s old, at most ${oldest} s are demanded`,
      { hint: HINT, reason: "status.old" },
    );
  }
}

/** What is to be said, and its code, if it has one. */
function standing(
  name: Name,
  found: StatusList,
  reference: Reference,
  moments: Moments,
): [string, string] {
  if (found.status(reference.index) === 0) {
    return [`not revoked as of ${when(found.issuedAt)}`, ""];
  }
  const since = found.revokedAt.get(reference.index);
  if (since === undefined || moments.signedAt >= since) {
    const on = since === undefined ? "" : ` on ${when(since)}`;
    throw new VerificationError(`${name}: revoked${on}, before the token was signed`, {
      reason: `status.${name}_revoked`,
    });
  }
  const loggedAt = moments.loggedAt;
  if (name === "key" && (loggedAt === undefined || loggedAt > since)) {
    throw new EvidenceUnavailableError(
      `key: revoked on ${when(since)}; the token says that it is older, and no witness ` +
        "saw it before",
      { reason: "status.key_revoked_since" },
    );
  }
  return [
    `revoked on ${when(since)}, after the token was signed`,
    "status.revoked_later",
  ];
}

function when(seconds: number): string {
  return moment(Math.min(seconds, LAST_SECOND));
}
