/** SHA-256 digests and their one text form, `sha256:<64 lower-case hex digits>`. */

import { type Bytes, fromHex, toHex } from "./bytes.js";
import { EvidenceUnavailableError, FormatError } from "./errors.js";
import type { Json } from "./json.js";

const TEXT = /^sha256:[0-9a-f]{64}$/;
const HEX = /^[0-9a-f]{64}$/;

/**
 * WebCrypto of this platform.
 *
 * Throws EvidenceUnavailableError: there is none. Browsers hide it from pages that came
 * by plain HTTP from another machine.
 */
export function subtle(): SubtleCrypto {
  const crypto = globalThis.crypto as Crypto | undefined;
  const found = crypto?.subtle;
  if (found === undefined) {
    throw new EvidenceUnavailableError("this platform has no WebCrypto", {
      hint: "open the page over HTTPS, from this machine, or as a file",
    });
  }
  return found;
}

/** The 32 bytes of SHA-256. */
export async function sha256(data: Bytes): Promise<Bytes> {
  return new Uint8Array(await subtle().digest("SHA-256", data));
}

/** The text digest of exactly these bytes. */
export async function digest(data: Bytes): Promise<string> {
  return `sha256:${toHex(await sha256(data))}`;
}

/** Whether a value is a text digest. */
export function isDigest(value: Json | undefined): value is string {
  return typeof value === "string" && TEXT.test(value);
}

/** The 32 raw bytes of a text digest. Throws FormatError for any other text. */
export function parseDigest(text: Json | undefined): Bytes {
  if (!isDigest(text)) {
    throw new FormatError("digest: expected sha256:<64 lower-case hex digits>");
  }
  return fromHex(text.slice(7));
}

/** The text digest of an in-toto `sha256` value. Throws FormatError for any other. */
export function digestOfHex(value: Json | undefined): string {
  if (typeof value !== "string" || !HEX.test(value)) {
    throw new FormatError("digest: expected 64 lower-case hex digits");
  }
  return `sha256:${value}`;
}
