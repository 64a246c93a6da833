/** What a verification found: for people, for programs and as an error. */

import type { TokenClaims } from "./claims.js";
import {
  AlgorithmError,
  type AttestError,
  ContentOnlyError,
  EvidenceUnavailableError,
  ExpiredError,
  PolicyError,
  SignatureError,
  TranscriptMismatchError,
  VerificationError,
} from "./errors.js";
import { type JsonObject, isObject, member, newObject } from "./json.js";
import type { Manifest } from "./manifest.js";
import type { Tier } from "./policy.js";
import type { Finding } from "./reasons.js";
import type { Status, Step } from "./steps.js";

/** Gravest first. */
const BAD: readonly Status[] = ["failed", "unknown", "content only"];
const DEFINITE = [
  AlgorithmError,
  ContentOnlyError,
  ExpiredError,
  PolicyError,
  SignatureError,
  TranscriptMismatchError,
] as const;

/** The answer in one word. */
export type Word = "proven" | "false" | "unknown" | "content_only";

/** What was proven, and what was not. */
export class Verdict {
  constructor(
    /** The highest tier reached; T0 when any step failed. */
    readonly tier: Tier,
    readonly steps: readonly Step[],
    /** The token's claims, trustworthy only when `proven`; undefined if malformed. */
    readonly claims: TokenClaims | undefined,
    /** Claims that the disclosures proved. */
    readonly disclosed: JsonObject,
    /** The manifest, once step 1 has passed. */
    readonly manifest: Manifest | undefined,
    /** Thumbprint of whoever certified the session key, once step 2 has passed. */
    readonly certifiedBy: string | undefined,
  ) {}

  /** No step failed or was left unknown, and the bytes are the attested ones. */
  get proven(): boolean {
    return this.problem === undefined;
  }

  /** The answer in one word. */
  get word(): Word {
    const status = this.problem?.status;
    if (status === undefined) return "proven";
    if (status === "content only") return "content_only";
    return status === "unknown" ? "unknown" : "false";
  }

  /** The step that kept it from being proven, the gravest if there are two. */
  get problem(): Step | undefined {
    for (const status of BAD) {
      const found = this.steps.find((step) => step.status === status);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The line of one step, undefined when it was not reached. */
  step(number: number): Step | undefined {
    return this.steps.find((step) => step.number === number);
  }

  /**
   * The error that says why it is not proven, undefined where it is: a VerificationError
   * for a definite no, of the class that the step's code names; ContentOnlyError where
   * the content is proven and the bytes are not; EvidenceUnavailableError for cannot
   * tell.
   */
  get error(): AttestError | undefined {
    const problem = this.problem;
    if (problem === undefined) return undefined;
    const named = DEFINITE.find((kind) => new kind("").code === problem.code);
    const kind =
      problem.status === "unknown"
        ? EvidenceUnavailableError
        : (named ?? VerificationError);
    return new kind(`step ${problem.number} ${problem.name}: ${problem.detail}`, {
      hint: "the bundle and `attest verify bundle` show every step",
      findings: problem.findings,
    });
  }

  /** Throws `error` when the answer is not proven. */
  throwUnlessProven(): void {
    const error = this.error;
    if (error !== undefined) throw error;
  }

  /** The verdict for machines: the JSON form that Python's has. */
  toJson(): JsonObject {
    const value = newObject();
    value["verdict"] = this.word;
    value["tier"] = this.tier;
    const claims = (this.claims ?? newObject()) as unknown as JsonObject;
    const weights = member(claims, "weights");
    value["measured"] = isObject(weights)
      ? (member(weights, "measured") ?? null)
      : null;
    value["steps"] = this.steps.map((step) => ({
      step: step.number,
      name: step.name,
      status: step.status,
      detail: step.detail,
      code: step.code,
      reasons: step.findings.map(findingJson),
    }));
    value["claims"] = claims;
    value["disclosed"] = this.disclosed;
    return value;
  }
}

function findingJson(finding: Finding): JsonObject {
  const value = newObject();
  for (const name of ["code", "detail", "about", "expected", "found"] as const) {
    const text = finding[name] ?? "";
    if (text !== "") value[name] = text;
  }
  return value;
}
