/** Bytes and their text forms, in the one spelling that each of them has. */

import { FormatError } from "./errors.js";

/** Bytes that WebCrypto takes. */
export type Bytes = Uint8Array<ArrayBuffer>;

const ENCODER = new TextEncoder();
// `ignoreBOM` keeps a byte order mark in the text, where a strict reader sees it.
const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LONE_SURROGATE = /\p{Surrogate}/u;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const BASE64URL = /^[A-Za-z0-9_-]*$/;

/** The UTF-8 bytes of a text; a lone surrogate becomes U+FFFD, so check first. */
export function utf8(text: string): Bytes {
  return ENCODER.encode(text);
}

/** The text of strict UTF-8. Throws FormatError for anything else. */
export function utf8Text(data: Uint8Array): string {
  try {
    return DECODER.decode(data);
  } catch {
    throw new FormatError("text: not UTF-8");
  }
}

/** Whether a text has no UTF-8 form. */
export function hasLoneSurrogate(text: string): boolean {
  return LONE_SURROGATE.test(text);
}

/** How many characters (code points) a text has: the unit of every bound on texts. */
export function characters(text: string): number {
  let count = text.length;
  for (let at = 0; at < text.length - 1; at += 1) {
    const high = text.charCodeAt(at) >> 10 === 0x36;
    if (high && text.charCodeAt(at + 1) >> 10 === 0x37) {
      count -= 1;
      at += 1;
    }
  }
  return count;
}

/** Whether a text has at most so many characters; cheap for long texts. */
export function isAtMost(text: string, limit: number): boolean {
  return (
    text.length <= limit || (text.length <= 2 * limit && characters(text) <= limit)
  );
}

/** Order of texts by code point, as Python sorts them. */
export function byCodePoint(left: string, right: string): number {
  return compareBytes(utf8(left), utf8(right));
}

/** Order of byte strings, shorter first where one begins with the other. */
export function compareBytes(left: Uint8Array, right: Uint8Array): number {
  const shared = Math.min(left.length, right.length);
  for (let at = 0; at < shared; at += 1) {
    const difference = (left[at] ?? 0) - (right[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

/** Whether two byte strings are equal. Public values only: the time tells the place. */
export function bytesEqual(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && compareBytes(left, right) === 0;
}

/** Byte strings joined. */
export function concat(...parts: readonly Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Lower-case hex. */
export function toHex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The bytes of lower-case hex of even length, which the caller has checked. */
export function fromHex(text: string): Bytes {
  const data = new Uint8Array(text.length / 2);
  for (let at = 0; at < data.length; at += 1) {
    data[at] = Number.parseInt(text.slice(2 * at, 2 * at + 2), 16);
  }
  return data;
}

function fromBinary(binary: string): Bytes {
  const data = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at += 1) data[at] = binary.charCodeAt(at);
  return data;
}

/** Padded standard base64. */
export function toBase64(data: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < data.length; at += 0x8000) {
    binary += String.fromCharCode(...data.subarray(at, at + 0x8000));
  }
  return btoa(binary);
}

/**
 * The bytes of padded standard base64. Bits after the last byte are not looked at: use
 * `fromCanonicalBase64` where one value must have one text.
 *
 * Throws FormatError: another alphabet, white space, or wrong padding.
 */
export function fromBase64(text: string, what: string): Bytes {
  if (text.length % 4 !== 0 || !BASE64.test(text)) {
    throw new FormatError(`${what} is not base64`);
  }
  return fromBinary(atob(text));
}

/** The same in its one canonical spelling. Throws FormatError for any other. */
export function fromCanonicalBase64(text: string, what: string): Bytes {
  const data = fromBase64(text, what);
  if (toBase64(data) !== text) {
    throw new FormatError(`${what} has stray bits at the end of its base64`);
  }
  return data;
}

/** Base64url without padding (RFC 7515 §2). */
export function toBase64Url(data: Uint8Array): string {
  return toBase64(data).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/**
 * The bytes of unpadded base64url, in its one canonical spelling.
 *
 * Throws FormatError: another alphabet, padding, white space, an impossible length, or
 * non-zero bits after the last byte, which would give one value two texts.
 */
export function fromBase64Url(text: string): Bytes {
  if (text.length % 4 === 1 || !BASE64URL.test(text)) {
    throw new FormatError("base64url: a character outside A-Z a-z 0-9 - _");
  }
  const padded = text + "=".repeat((4 - (text.length % 4)) % 4);
  const data = fromBinary(atob(padded.replaceAll("-", "+").replaceAll("_", "/")));
  if (toBase64Url(data) !== text) {
    throw new FormatError("base64url: stray bits after the last byte");
  }
  return data;
}
