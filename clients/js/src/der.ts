/** ECDSA signatures over P-256 from DER (RFC 3279 §2.2.3), as DSSE has them. */

import { type Bytes, concat } from "./bytes.js";
import { SignatureError } from "./errors.js";

const SEQUENCE = 0x30;
const INTEGER = 0x02;
const NUMBER_SIZE = 32;

/**
 * The 64-byte r‖s form of a DER signature.
 *
 * Throws SignatureError: not DER (long or indefinite lengths, padded or negative
 * numbers, trailing bytes), or numbers too large for P-256.
 */
export function derToJose(signature: Bytes): Bytes {
  if (signature[0] !== SEQUENCE || signature[1] !== signature.length - 2) {
    throw notDer();
  }
  const [r, rest] = integer(signature.subarray(2));
  const [s, end] = integer(rest);
  if (end.length > 0) throw notDer();
  return concat(r, s);
}

/** The first integer in 32 bytes, and what follows it. */
function integer(data: Uint8Array): [Uint8Array, Uint8Array] {
  const size = data[1] ?? 0;
  const body = data.subarray(2, 2 + size);
  const [first, second] = [body[0] ?? 0x80, body[1]];
  const isPadded = first === 0 && second !== undefined && second < 0x80;
  if (data[0] !== INTEGER || body.length !== size || first >= 0x80 || isPadded) {
    throw notDer();
  }
  const number = body.subarray(first === 0 ? 1 : 0);
  if (number.length > NUMBER_SIZE) throw notDer();
  const padded = new Uint8Array(NUMBER_SIZE);
  padded.set(number, NUMBER_SIZE - number.length);
  return [padded, data.subarray(2 + size)];
}

function notDer(): SignatureError {
  return new SignatureError("signature: not a DER P-256 signature");
}
