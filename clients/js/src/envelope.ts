/**
 * DSSE envelopes (secure-systems-lab/dsse v1.0.2): signatures over bytes with a type.
 *
 * Verify first, parse after: the payload is handed out only when enough of the trusted
 * keys signed it. `keyid` is a hint that nothing depends on.
 */

import { type Bytes, concat, fromBase64, utf8 } from "./bytes.js";
import { FormatError, SignatureError } from "./errors.js";
import { type Json, isObject, member, readObject } from "./json.js";
import type { PublicKey } from "./keys.js";

/** 8 MiB hold the digests of 40,000 tensors and files. */
export const MAX_ENVELOPE = 8 * 1024 * 1024;
const MAX_SIGNATURES = 16;

/** A payload and the trusted keys that signed it (thumbprints, sorted). */
export interface Envelope {
  readonly payload: Bytes;
  readonly signedBy: readonly string[];
}

/** DSSE pre-authentication encoding. */
function encode(payloadType: string, payload: Bytes): Bytes {
  const kind = utf8(payloadType);
  const head = utf8(`DSSEv1 ${kind.length} ${payloadType} ${payload.length} `);
  return concat(head, payload);
}

function base64(value: Json | undefined, name: string): Bytes {
  if (typeof value !== "string") {
    throw new FormatError(`envelope: ${name} must be a base64 string`);
  }
  // DSSE lets producers choose either alphabet and asks readers to take both.
  const standard = value.replaceAll("-", "+").replaceAll("_", "/");
  return fromBase64(standard, `envelope: ${name}`);
}

async function hasSigned(
  key: PublicKey,
  signatures: readonly Bytes[],
  message: Bytes,
): Promise<boolean> {
  for (const signature of signatures) {
    try {
      await key.verifyDer(signature, message);
      return true;
    } catch (error) {
      if (!(error instanceof SignatureError)) throw error;
    }
  }
  return false;
}

/** The distinct keys by thumbprint. */
export function distinctKeys(keys: readonly PublicKey[]): Map<string, PublicKey> {
  return new Map(keys.map((key) => [key.thumbprint, key]));
}

/**
 * The payload, when at least `threshold` distinct keys of `keys` signed it. Its content
 * is not looked at.
 *
 * Throws FormatError: not an envelope, too large, or more than 16 signatures. Throws
 * SignatureError: another payload type, or too few trusted signatures. Throws RangeError:
 * a threshold below 1 or above the number of distinct keys.
 */
export async function openEnvelope(
  data: Bytes,
  payloadType: string,
  keys: readonly PublicKey[],
  threshold: number,
): Promise<Envelope> {
  const distinct = distinctKeys(keys);
  if (!(threshold >= 1 && threshold <= distinct.size)) {
    throw new RangeError(`threshold ${threshold} with ${distinct.size} distinct keys`);
  }
  const envelope = readObject(data, { maxBytes: MAX_ENVELOPE, maxDepth: 8 });
  const found = member(envelope, "signatures");
  if (!Array.isArray(found) || found.length < 1 || found.length > MAX_SIGNATURES) {
    throw new FormatError(`envelope: expected 1 to ${MAX_SIGNATURES} signatures`);
  }
  if (member(envelope, "payloadType") !== payloadType) {
    throw new SignatureError(`envelope: payloadType is not ${payloadType}`);
  }
  const payload = base64(member(envelope, "payload"), "payload");
  const signatures = found.map((item) =>
    base64(isObject(item) ? member(item, "sig") : undefined, "sig"),
  );
  const message = encode(payloadType, payload);
  const signedBy: string[] = [];
  for (const [name, key] of distinct) {
    if (await hasSigned(key, signatures, message)) signedBy.push(name);
  }
  if (signedBy.length < threshold) {
    throw new SignatureError(
      `envelope: ${signedBy.length} of the trusted keys signed, ${threshold} must`,
      {
        hint: `check that this is the authority's public key: ${[...distinct.keys()]
          .sort()
          .join(", ")}`,
      },
    );
  }
  return { payload, signedBy: signedBy.sort() };
}
