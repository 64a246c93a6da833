/**
 * Signed JWTs with a strict front: `jose` checks the signature, and sees nothing that
 * `parseToken` has not seen.
 */

import { compactVerify, errors as joseErrors } from "jose";

import { type Bytes, fromBase64Url, utf8 } from "./bytes.js";
import { digest } from "./digests.js";
import { AlgorithmError, FormatError, SignatureError } from "./errors.js";
import { type JsonObject, readObject } from "./json.js";
import { ALGORITHMS, type PublicKey } from "./keys.js";

/** A token without its disclosures; real ones have about 2 kB. */
export const MAX_TOKEN = 16 * 1024;
const SHAPE = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/;

/** A well-formed token whose signature has NOT been checked. */
export interface Token {
  /** The three-part text, without disclosures. */
  readonly compact: string;
  readonly alg: string;
  /** RFC 7638 thumbprint of the key that is said to have signed. */
  readonly kid: string;
  readonly claims: JsonObject;
}

/**
 * The signed bytes (RFC 7515 §5.1): what identifies a token. Never use a digest of the
 * whole token, since ES256 signatures are malleable.
 */
export function signingInput(compact: string): Bytes {
  return utf8(compact.slice(0, compact.lastIndexOf(".")));
}

/** Digest of the signing input. */
export function tokenDigest(token: Token): Promise<string> {
  return digest(signingInput(token.compact));
}

/**
 * Read a token strictly; nothing is known about who signed it.
 *
 * Throws FormatError: too large, not three base64url parts in canonical spelling, JSON
 * that `readObject` refuses, a header with other keys than alg, typ and kid (so `jwk`,
 * `jku`, `x5c`, `crit` and `b64` are all refused), another `typ`, or a `kid` that is no
 * thumbprint. Throws AlgorithmError: an `alg` that is not on our list, `none` and HS256
 * included.
 */
export function parseToken(compact: string, typ: string): Token {
  if (compact.length > MAX_TOKEN) {
    throw new FormatError(`token: more than ${MAX_TOKEN} bytes`);
  }
  if (!SHAPE.test(compact)) {
    throw new FormatError("token: expected three base64url parts joined by dots");
  }
  const [first, second] = compact.split(".").map((part) => fromBase64Url(part));
  if (first === undefined || second === undefined) throw new FormatError("token");
  const { alg, kid, ...header } = readObject(first, { maxBytes: 1024, maxDepth: 4 });
  const others = Object.keys(header);
  if (alg === undefined || kid === undefined || others.join() !== "typ") {
    throw new FormatError("token: header keys must be exactly alg, typ, kid");
  }
  if (header["typ"] !== typ) throw new FormatError(`token: typ is not ${typ}`);
  if (typeof alg !== "string") throw new FormatError("token: alg must be a string");
  if (!(ALGORITHMS as readonly string[]).includes(alg)) {
    throw new AlgorithmError(`token: alg must be one of ${ALGORITHMS.join(", ")}`, {
      hint: "a token with another algorithm was not made by a gateway",
    });
  }
  if (typeof kid !== "string" || !THUMBPRINT.test(kid)) {
    throw new FormatError("token: kid must be an RFC 7638 thumbprint");
  }
  const claims = readObject(second, { maxBytes: MAX_TOKEN, maxDepth: 16 });
  return { compact, alg, kid, claims };
}

/**
 * Return when `token` was signed by `key` with the algorithm bound to that key.
 *
 * Throws AlgorithmError: the header names another algorithm than the key's. Throws
 * SignatureError: the header names another key, or the signature is not by `key`.
 */
export async function verifyToken(token: Token, key: PublicKey): Promise<void> {
  if (token.alg !== key.alg) {
    throw new AlgorithmError(`token: alg ${token.alg} with a key bound to ${key.alg}`);
  }
  if (token.kid !== key.thumbprint) {
    throw new SignatureError(`token: kid is not ${key.thumbprint}`);
  }
  const cryptoKey = await key.cryptoKey();
  try {
    await compactVerify(token.compact, cryptoKey, { algorithms: [key.alg] });
  } catch (error) {
    if (!(error instanceof joseErrors.JOSEError)) throw error;
    throw new SignatureError(`token: the signature is not by key ${key.thumbprint}`, {
      hint: "the token was changed, or another key signed it",
    });
  }
}
