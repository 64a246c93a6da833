/**
 * Public keys: Ed25519 (`EdDSA`) and P-256 (`ES256`), from PEM and JWK.
 *
 * The algorithm is a property of the key, never of the message (RFC 8725 §3.1).
 * Signatures have JOSE form (RFC 7518 §3.4): ES256 is the 64 bytes r‖s, never DER.
 */

import { calculateJwkThumbprint, importJWK } from "jose";

import {
  type Bytes,
  fromBase64,
  fromBase64Url,
  toBase64Url,
  utf8Text,
} from "./bytes.js";
import { derToJose } from "./der.js";
import { subtle } from "./digests.js";
import { EvidenceUnavailableError, FormatError, SignatureError } from "./errors.js";
import { type Json, type JsonObject, isObject, member, readObject } from "./json.js";

/** JOSE names of the algorithms that a key may have (RFC 7518, RFC 8037). */
export const ALGORITHMS = ["EdDSA", "ES256"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** The required members of a public JWK, which are also the RFC 7638 §3.2 input. */
export type Jwk =
  | { readonly crv: "Ed25519"; readonly kty: "OKP"; readonly x: string }
  | {
      readonly crv: "P-256";
      readonly kty: "EC";
      readonly x: string;
      readonly y: string;
    };

const MAX_KEY_FILE = 16 * 1024;
const PEM = /-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]*)-----END PUBLIC KEY-----/;
// SubjectPublicKeyInfo up to the key itself (RFC 8410 §4, RFC 5480 §2).
const SPKI_ED25519 = "302a300506032b6570032100";
const SPKI_P256 = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";

const P = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
const B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn;

const big = (data: Uint8Array): bigint =>
  data.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);

/** Whether a point is on P-256 (FIPS 186: y² = x³ − 3x + b); public values only. */
function isOnCurve(x: bigint, y: bigint): boolean {
  return x < P && y < P && (y * y - (x * x * x - 3n * x + B)) % P === 0n;
}

/**
 * The key material of a public JWK (RFC 7517, RFC 8037 §2); other members are ignored.
 *
 * Throws FormatError: not an OKP/Ed25519 or EC/P-256 key, a coordinate of the wrong
 * length, a point off the curve, or a private member.
 */
export function readJwk(value: Json | undefined): Jwk {
  if (!isObject(value) || Object.hasOwn(value, "d")) {
    throw new FormatError("key: expected a public JWK object");
  }
  const { kty, crv, x, y } = value as Partial<JsonObject>;
  if (kty === "OKP" && crv === "Ed25519" && typeof x === "string") {
    if (fromBase64Url(x).length !== 32) {
      throw new FormatError("key: Ed25519 x must be 32 bytes");
    }
    return { crv, kty, x };
  }
  if (
    kty === "EC" &&
    crv === "P-256" &&
    typeof x === "string" &&
    typeof y === "string"
  ) {
    const [left, right] = [fromBase64Url(x), fromBase64Url(y)];
    if (left.length !== 32 || right.length !== 32) {
      throw new FormatError("key: P-256 x and y must be 32 bytes");
    }
    if (!isOnCurve(big(left), big(right))) {
      throw new FormatError("key: the point is not on P-256");
    }
    return { crv, kty, x, y };
  }
  throw new FormatError("key: expected an OKP/Ed25519 or EC/P-256 JWK");
}

function jwkOfPem(text: string): Jwk {
  const body = PEM.exec(text)?.[1];
  if (body !== undefined) {
    const data = fromBase64(body.replace(/\s+/g, ""), "key: the PEM");
    const hex = Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const part = (start: number, end?: number) => toBase64Url(data.slice(start, end));
    if (hex.startsWith(SPKI_ED25519) && data.length === 44) {
      return { crv: "Ed25519", kty: "OKP", x: part(12) };
    }
    if (hex.startsWith(SPKI_P256) && data.length === 91) {
      const jwk = { crv: "P-256", kty: "EC", x: part(27, 59), y: part(59) } as const;
      return readJwk(jwk);
    }
  }
  throw new FormatError("key: not a public key in PEM or JWK form");
}

/** A public key that is bound to exactly one algorithm. */
export class PublicKey {
  private imported: Promise<CryptoKey> | undefined;

  private constructor(
    readonly alg: Algorithm,
    readonly jwk: Jwk,
    /** RFC 7638 SHA-256 thumbprint, base64url; used as `kid` and as identity. */
    readonly thumbprint: string,
  ) {}

  /** The key of a JWK. Throws as `readJwk`. */
  static async fromJwk(value: Json | undefined): Promise<PublicKey> {
    return PublicKey.of(readJwk(value));
  }

  private static async of(jwk: Jwk): Promise<PublicKey> {
    subtle();
    const thumbprint = await calculateJwkThumbprint(jwk, "sha256");
    return new PublicKey(jwk.kty === "OKP" ? "EdDSA" : "ES256", jwk, thumbprint);
  }

  /**
   * Read a SubjectPublicKeyInfo PEM or a JWK.
   *
   * Throws FormatError: neither, or another kind of key; private keys are refused so
   * that one can't be handed round by mistake.
   */
  static async fromBytes(data: Uint8Array): Promise<PublicKey> {
    if (data.length > MAX_KEY_FILE) {
      throw new FormatError(`key: more than ${MAX_KEY_FILE} bytes`);
    }
    const text = utf8Text(data);
    if (text.trimStart().startsWith("{")) {
      return PublicKey.fromJwk(readObject(data, { maxBytes: MAX_KEY_FILE }));
    }
    return PublicKey.of(jwkOfPem(text));
  }

  /**
   * The key for WebCrypto.
   *
   * Throws EvidenceUnavailableError: this platform does not know the algorithm (Ed25519
   * is missing from browsers of before 2025).
   */
  cryptoKey(): Promise<CryptoKey> {
    this.imported ??= importJWK({ ...this.jwk }, this.alg).catch((error: unknown) => {
      throw new EvidenceUnavailableError(
        `this platform cannot check signatures of algorithm ${this.alg}`,
        { hint: "use a current browser, or Node 20 and newer", cause: error },
      );
    });
    return this.imported;
  }

  /**
   * Return when `signature` (JOSE form) over `data` is by this key.
   *
   * ES256 is malleable (n−S verifies as S does): a signature is no identity.
   *
   * Throws SignatureError: it is not, or it has the wrong length.
   */
  async verify(signature: Bytes, data: Bytes): Promise<void> {
    const key = await this.cryptoKey();
    const algorithm =
      this.alg === "EdDSA"
        ? { name: "Ed25519" }
        : { name: "ECDSA", hash: { name: "SHA-256" } };
    if (
      signature.length !== 64 ||
      !(await subtle().verify(algorithm, key, signature, data))
    ) {
      throw new SignatureError(`signature: not by key ${this.thumbprint}`, {
        hint: "the signed bytes were changed, or another key signed them",
      });
    }
  }

  /** The same for a signature as DSSE has it: ECDSA in DER form. */
  async verifyDer(signature: Bytes, data: Bytes): Promise<void> {
    await this.verify(this.alg === "ES256" ? derToJose(signature) : signature, data);
  }
}

/** Whether a value is a public JWK with the required members and no other. */
export function isBareJwk(value: Json | undefined): boolean {
  try {
    const jwk = readJwk(value);
    return Object.keys(value as JsonObject).length === Object.keys(jwk).length;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

/** The member of an object that is a public key. Throws as `readJwk`. */
export async function keyMember(value: JsonObject, name: string): Promise<PublicKey> {
  return PublicKey.fromJwk(member(value, name));
}
