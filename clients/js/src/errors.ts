/**
 * Every error that this package throws: the tree of `attest/errors.py`.
 *
 *     AttestError
 *     ├── InputError                    the caller gave something unusable
 *     │   ├── FormatError               bytes that break the format's rules
 *     │   ├── UnsupportedVersionError   a newer format: upgrade the verifier
 *     │   └── ConfigurationError        a policy or a setting on this side is wrong
 *     ├── VerificationError             a definite no
 *     │   ├── SignatureError            no signature by the key that must have signed
 *     │   ├── AlgorithmError            an algorithm that this key may not use
 *     │   ├── ExpiredError              outside its validity period
 *     │   ├── TranscriptMismatchError   request or response differ from the claim
 *     │   │   └── ContentOnlyError      by their spelling alone: the text is proven
 *     │   └── PolicyError               well signed, but the policy says no
 *     └── EvidenceUnavailableError      cannot tell: something needed is missing
 *
 * A definite no and a cannot-tell never share a class. Messages never carry a prompt, an
 * answer, a key or a token.
 */

import type { Finding } from "./reasons.js";

/** What may be said besides the message. */
export interface ErrorOptions {
  readonly hint?: string;
  /** A code of `reasons.ts`, where the class alone says too little. */
  readonly reason?: string;
  /** The same, where there are several or more is to be said of one. */
  readonly findings?: readonly Finding[];
  readonly cause?: unknown;
}

/** Root of the tree. `code` is a stable slug of the class, `hint` says what to do next. */
export class AttestError extends Error {
  readonly code: string = "error";
  readonly hint: string;
  readonly findings: readonly Finding[];

  constructor(message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    const { hint = "", reason, findings = [] } = options;
    this.hint = hint;
    this.findings =
      reason === undefined ? findings : [{ code: reason, detail: message }];
    this.name = new.target.name;
  }

  /**
   * The error of ours that is `error` itself or stands in its chain of causes, undefined
   * where there is none. SDKs wrap what a `fetch` throws.
   */
  static of(error: unknown): AttestError | undefined {
    let current = error;
    for (let depth = 0; depth < 8 && current instanceof Error; depth += 1) {
      if (current instanceof AttestError) return current;
      current = current.cause;
    }
    return undefined;
  }
}

/** The caller gave something unusable; nothing was decided about any evidence. */
export class InputError extends AttestError {
  override readonly code: string = "input";
}

/** Bytes that break the rules of their format. */
export class FormatError extends InputError {
  override readonly code = "format";
}

/** A format or profile newer than this verifier; the hint says to upgrade. */
export class UnsupportedVersionError extends InputError {
  override readonly code = "unsupported_version";
}

/** A policy or a setting on this side is wrong or missing. */
export class ConfigurationError extends InputError {
  override readonly code = "configuration";
}

/** A definite no. */
export class VerificationError extends AttestError {
  override readonly code: string = "false";
}

/** No valid signature by the key that must have signed. */
export class SignatureError extends VerificationError {
  override readonly code = "signature";
}

/** The signature uses an algorithm that the key may not use. */
export class AlgorithmError extends VerificationError {
  override readonly code = "algorithm";
}

/** Judged at a time outside the validity period. */
export class ExpiredError extends VerificationError {
  override readonly code = "expired";
}

/** The request or response at hand is not the one that was attested. */
export class TranscriptMismatchError extends VerificationError {
  override readonly code: string = "transcript_mismatch";
}

/**
 * What the answer says is the attested answer; the bytes at hand are others. A definite no
 * about the bytes, a definite yes about the text; the findings say what became of the
 * bytes.
 */
export class ContentOnlyError extends TranscriptMismatchError {
  override readonly code = "content_only";
}

/** All signatures are good and the relying party's policy says no. */
export class PolicyError extends VerificationError {
  override readonly code = "policy";
}

/** Cannot tell: evidence that is needed was not given or could not be had. */
export class EvidenceUnavailableError extends AttestError {
  override readonly code = "evidence_unavailable";
}
