/** Whether content at hand is the attested content, and if not, what became of it. */

import type { Bundle } from "./bundle.js";
import type { TokenClaims } from "./claims.js";
import {
  type Diagnosis,
  diagnoseRequest,
  diagnoseResponse,
  diagnosisOf,
} from "./diagnosis.js";
import { digest } from "./digests.js";
import {
  ContentOnlyError,
  EvidenceUnavailableError,
  TranscriptMismatchError,
} from "./errors.js";
import { type JsonObject, member } from "./json.js";
import type { Finding } from "./reasons.js";
import { covered } from "./restore.js";
import { NotChecked } from "./steps.js";

/**
 * One line, when what the bundle holds of request and response is attested.
 *
 * @param claims Of the verified token.
 * @param disclosed What its disclosures proved.
 *
 * Throws TranscriptMismatchError: one was changed; the findings say how. Throws
 * ContentOnlyError: the bytes are others, and what they say was attested. Throws
 * EvidenceUnavailableError: there is a request, and its digest is not disclosed.
 */
export async function checkContent(
  bundle: Bundle,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<string | NotChecked> {
  const response = await checkResponse(bundle, claims, disclosed);
  // Hiding a disclosure must not turn a no into a cannot-tell.
  const isTold =
    Object.hasOwn(disclosed, "request.digest") || response?.contentProven !== false;
  const request = isTold ? await checkRequest(bundle, claims, disclosed) : undefined;
  const sides: (readonly [string, Diagnosis])[] = [];
  if (request !== undefined) sides.push(["request", request]);
  if (response !== undefined) sides.push(["response", response]);
  if (sides.length === 0) {
    const detail = "neither request nor response was given";
    return new NotChecked(detail, "content.not_given");
  }
  const differing = sides.filter(([, side]) => side.findings.length > 0);
  if (differing.length === 0) {
    return `${sides.map(([name]) => name).join(" and ")} match byte for byte`;
  }
  const isProven = sides.every(([, side]) => side.contentProven);
  const kind = isProven ? ContentOnlyError : TranscriptMismatchError;
  const findings = differing.flatMap(([, side]) => side.findings);
  const what = differing.map(([name]) => `the ${name} is not the attested one`);
  const why = findings.map(wordsOf).join("; ");
  throw new kind(`${what.join(" and ")}: ${why}`, { findings });
}

/** What differs in the request; undefined where it is not at hand. */
async function checkRequest(
  bundle: Bundle,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<Diagnosis | undefined> {
  if (bundle.request === undefined) return undefined;
  const committed = member(disclosed, "request.digest");
  if (committed === undefined) {
    throw new EvidenceUnavailableError(
      "content: the request digest was not disclosed",
      {
        reason: "content.request_not_disclosed",
      },
    );
  }
  if ((await digest(bundle.request)) === committed) return diagnosisOf([]);
  return diagnoseRequest(bundle.request, claims, disclosed);
}

/** The same for the response. */
async function checkResponse(
  bundle: Bundle,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<Diagnosis | undefined> {
  const response = bundle.response;
  if (response === undefined) return undefined;
  const { stream, content_digest } = claims.res;
  if ((await digest(covered(response, stream))) === content_digest) {
    return diagnosisOf([]);
  }
  return diagnoseResponse(response, claims, disclosed);
}

function wordsOf({ detail, expected, found }: Finding): string {
  if (expected === undefined) return detail;
  return `${detail} (expected ${expected}, found ${found ?? ""})`;
}
