/**
 * Proof of which governed model produced an answer, checked in Node or in a browser.
 *
 *     const policy = await Policy.fromJson(text);
 *     const verdict = await verify(readBundle(bytes), policy, { at: Date.now() / 1000 });
 *     verdict.throwUnlessProven();
 *
 * The pure part takes bytes and a clock and gives a verdict.
 */

export {
  type Bundle,
  type Endorsements,
  MEDIA_TYPE,
  readBundle,
  readEndorsements,
  writeBundle,
} from "./bundle.js";
export type { Bytes } from "./bytes.js";
export {
  type Constitution,
  MEASURED,
  type Measured,
  OUTCOMES,
  type Outcome,
  SYSTEM_PROMPTS,
  type SystemPrompt,
  type TokenClaims,
} from "./claims.js";
export {
  AlgorithmError,
  AttestError,
  ConfigurationError,
  ContentOnlyError,
  EvidenceUnavailableError,
  ExpiredError,
  FormatError,
  InputError,
  PolicyError,
  SignatureError,
  TranscriptMismatchError,
  UnsupportedVersionError,
  VerificationError,
} from "./errors.js";
export { type Json, JsonFloat, type JsonObject } from "./json.js";
export { type Jwk, PublicKey } from "./keys.js";
export { NoteKey } from "./log/note.js";
export { type Consistency, verifyConsistency } from "./log/merkle.js";
export { type Checkpoint, openCheckpoint } from "./log/checkpoint.js";
export type { Manifest } from "./manifest.js";
export {
  Policy,
  type PolicyOptions,
  TIERS,
  TIER_MEANINGS,
  type Tier,
} from "./policy.js";
export { type Finding, REASONS } from "./reasons.js";
export { ConstitutionRule, PrincipleRule } from "./rules.js";
export type { Status, Step } from "./steps.js";
export { Verdict, type Word } from "./verdict.js";
export { type VerifyOptions, verify } from "./verify.js";
export { type AttestedFetchOptions, attestedFetch } from "./client/fetch.js";
export type { OnEvidence } from "./client/examiner.js";
