/**
 * The claims of every token, as `attest/claims.py` has them: a table each, for the
 * strict reader. What a claim means and what it does not prove stands in
 * docs/reference.md.
 *
 * Times are integer seconds since the epoch, UTC. No claim is a float.
 */

import { byCodePoint, fromBase64Url, isAtMost } from "./bytes.js";
import { isDigest } from "./digests.js";
import { FormatError, UnsupportedVersionError } from "./errors.js";
import { type Json, type JsonObject, isObject, member } from "./json.js";
import { isBareJwk } from "./keys.js";
import { ascii } from "./spelling.js";

export const EAT_PROFILE = "tag:attest-gateway,2026:inference-attestation:1";
const MAX_TEXT = 1024;
const MAX_LIST = 256;

/** How the weights were measured, weakest first. */
export const MEASURED = ["asserted", "files", "engine"] as const;
export type Measured = (typeof MEASURED)[number];

/** How a response ended, as the gateway saw it. */
export const OUTCOMES = [
  "complete",
  "incomplete",
  "truncated",
  "client_disconnected",
  "upstream_error",
  "upstream_malformed",
  "refused",
] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Whether a request's system prompt is one that the manifest lists. */
export const SYSTEM_PROMPTS = ["governed", "unlisted", "absent"] as const;
export type SystemPrompt = (typeof SYSTEM_PROMPTS)[number];

type Check = (value: Json | undefined) => boolean;

const text: Check = (value) =>
  typeof value === "string" && value !== "" && isAtMost(value, MAX_TEXT);

// 2^53 is the last integer that every JSON reader keeps exactly (RFC 8259 §6); beyond
// it the reader gives a bigint.
const integer: Check = (value) => typeof value === "number" && value >= 0;

const boolean: Check = (value) => typeof value === "boolean";

const any: Check = () => true;

const sha256Base64: Check = (value) => {
  try {
    return typeof value === "string" && fromBase64Url(value).length === 32;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
};

function oneOf(allowed: readonly string[]): Check {
  return (value) => typeof value === "string" && allowed.includes(value);
}

function listOf(check: Check): Check {
  return (value) =>
    Array.isArray(value) && value.length <= MAX_LIST && value.every(check);
}

function orNull(check: Check): Check {
  return (value) => value === null || check(value);
}

/** An object with at least these members; others are allowed and mean nothing. */
function members(required: Readonly<Record<string, Check>>): Check {
  return (value) =>
    isObject(value) &&
    Object.entries(required).every(
      ([name, check]) => Object.hasOwn(value, name) && check(value[name]),
    );
}

const textsByName: Check = (value) =>
  isObject(value) &&
  Object.keys(value).length <= MAX_LIST &&
  Object.entries(value).every(([key, item]) => text(key) && typeof item === "string");

const WEIGHTS = { root: isDigest, measured: oneOf(MEASURED), verified_at: integer };
const RESULT = {
  status: integer,
  content_digest: isDigest,
  content_bytes: integer,
  stream: boolean,
  outcome: oneOf(OUTCOMES),
  choices: integer,
};
const CONSTITUTION = { id: text, version: text, digest: isDigest };
const MANIFEST = { digest: isDigest };

/** One row: what a claim holds, and whether it must be there. */
interface Claim {
  readonly check: Check;
  readonly required: boolean;
}
type Schema = Readonly<Record<string, Claim>>;

const must = (check: Check): Claim => ({ check, required: true });
const may = (check: Check): Claim => ({ check, required: false });

const STATEMENT: Schema = {
  iss: must(text),
  iat: must(integer),
  jti: must(text),
  eat_profile: must(text),
};

/** The kinds of tokens, by `typ`. */
export const TOKENS = {
  "gateway-key+jwt": {
    iss: must(text),
    sub: must(text),
    jti: must(text),
    iat: must(integer),
    nbf: must(integer),
    exp: must(integer),
    cnf: must(members({ jwk: isBareJwk })),
    manifests: must(listOf(isDigest)),
    status: may(members({ status_list: members({ idx: integer, uri: text }) })),
  },
  "eat+jwt": {
    ...STATEMENT,
    manifest: must(members(MANIFEST)),
    weights: must(members({ ...WEIGHTS, count: integer })),
    engine: must(members({ name: text, version: text, dtype: text })),
    serving_state: must(members({ digest: isDigest })),
    software: must(textsByName),
    canary: may(members({ prompts: isDigest, outputs: isDigest })),
    live_weights: may(isDigest),
    follows: may(members({ boot: isDigest, count: integer })),
  },
  "inference-attestation+jwt": {
    ...STATEMENT,
    toe: may(integer),
    sub: may(text),
    aud: may(text),
    eat_nonce: may(text),
    boot: must(isDigest),
    manifest: must(members(MANIFEST)),
    constitution: must(orNull(members(CONSTITUTION))),
    weights: must(members(WEIGHTS)),
    stale: may(members({ since: integer, reason: text })),
    "gen_ai.request.model": may(text),
    "gen_ai.response.model": may(text),
    "gen_ai.response.finish_reasons": may(listOf(orNull(text))),
    "gen_ai.usage.input_tokens": may(integer),
    "gen_ai.usage.output_tokens": may(integer),
    system_prompt: must(oneOf(SYSTEM_PROMPTS)),
    altered: may(boolean),
    overrides: may(listOf(text)),
    res: must(members(RESULT)),
    seq: must(integer),
    prev: must(orNull(isDigest)),
    _sd: must(listOf(sha256Base64)),
    _sd_alg: must(oneOf(["sha-256"])),
  },
} as const satisfies Readonly<Record<string, Schema>>;

/** Claims that travel as disclosures. `out.N` stands for each choice. */
export const SALTED: Readonly<Record<string, Check>> = {
  "request.digest": isDigest,
  "request.forwarded_digest": isDigest,
  "request.semantic_digest": isDigest,
  "system_prompt.digest": isDigest,
  "request.sampling": textsByName,
  "out.N": isDigest,
};

/**
 * Check presence and type of the claims of one kind of token; gives the names of claims
 * that this version does not know. They never relax anything.
 *
 * Throws FormatError: a required claim is missing, or one has the wrong type. Throws
 * UnsupportedVersionError: `eat_profile` is not the one of this version, or the token
 * lists claims that must be understood (`crit`).
 */
export function checkClaims(claims: JsonObject, typ: keyof typeof TOKENS): string[] {
  const schema: Schema = TOKENS[typ];
  for (const [name, claim] of Object.entries(schema)) {
    if (!Object.hasOwn(claims, name)) {
      if (claim.required) throw new FormatError(`claims: ${name} is missing`);
    } else if (!claim.check(claims[name])) {
      throw new FormatError(`claims: ${name} has the wrong type or form`);
    }
  }
  const profile = member(claims, "eat_profile") ?? EAT_PROFILE;
  if (profile !== EAT_PROFILE || Object.hasOwn(claims, "crit")) {
    throw new UnsupportedVersionError(
      `claims: another profile, this verifier reads '${EAT_PROFILE}'`,
      { hint: "upgrade: npm install attest-gateway@latest" },
    );
  }
  const isUnknown = (name: string) => !Object.hasOwn(schema, name);
  return Object.keys(claims).filter(isUnknown).sort(byCodePoint);
}

/**
 * Check the type of the disclosed claims; unknown ones are left alone.
 *
 * Throws FormatError.
 */
export function checkSalted(claims: JsonObject): void {
  for (const [name, value] of Object.entries(claims)) {
    const row = name.startsWith("out.") ? "out.N" : name;
    const check = (Object.hasOwn(SALTED, row) ? SALTED[row] : undefined) ?? any;
    if (!check(value)) {
      throw new FormatError(`disclosures: ${ascii(name)} has the wrong type or form`);
    }
  }
}

/** The claims of a token that `checkClaims` has passed, with their types. */
export interface TokenClaims {
  readonly iss: string;
  readonly iat: number;
  readonly jti: string;
  readonly aud?: string;
  readonly sub?: string;
  readonly eat_nonce?: string;
  readonly "gen_ai.request.model"?: string;
  readonly boot: string;
  readonly manifest: { readonly digest: string };
  readonly constitution: Constitution | null;
  readonly weights: { readonly root: string; readonly measured: Measured };
  readonly "gen_ai.response.model"?: string;
  readonly "gen_ai.response.finish_reasons"?: readonly (string | null)[];
  readonly "gen_ai.usage.input_tokens"?: number;
  readonly "gen_ai.usage.output_tokens"?: number;
  readonly system_prompt: SystemPrompt;
  readonly overrides?: readonly string[];
  readonly _sd: readonly string[];
  readonly res: {
    readonly status: number;
    readonly content_digest: string;
    readonly content_bytes: number;
    readonly stream: boolean;
    readonly outcome: Outcome;
    readonly choices: number;
  };
}

/** Which constitution, in a token and in a manifest. */
export interface Constitution {
  readonly id: string;
  readonly version: string;
  readonly digest: string;
}

/** The claims of a boot record that `checkClaims` has passed. */
export interface BootClaims {
  readonly iss: string;
  readonly iat: number;
  readonly manifest: { readonly digest: string };
  readonly weights: { readonly root: string; readonly measured: Measured };
  readonly engine: {
    readonly name: string;
    readonly version: string;
    readonly dtype: string;
  };
}

/** The claims of a key certificate that `checkClaims` has passed. */
export interface CertificateClaims {
  readonly iss: string;
  readonly sub: string;
  readonly iat: number;
  readonly nbf: number;
  readonly exp: number;
  readonly cnf: { readonly jwk: JsonObject };
  readonly manifests: readonly string[];
  readonly status?: Json;
}
