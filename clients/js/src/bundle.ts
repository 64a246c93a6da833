/**
 * The evidence that a relying party keeps about one answer, as one JSON file. It holds
 * everything that an offline verifier needs besides the authority's public key.
 */

import { type Bytes, fromBase64, toBase64, utf8 } from "./bytes.js";
import { FormatError, UnsupportedVersionError } from "./errors.js";
import {
  type Json,
  type JsonObject,
  isObject,
  member,
  newObject,
  readObject,
  writeJson,
} from "./json.js";
import { type LogProof, readLogProof } from "./log/proof.js";

export const MEDIA_TYPE = "application/vnd.attest-gateway.bundle.v1+json";
const MAX_BUNDLE = 160 * 1024 * 1024;
const MAX_CERTIFICATES = 64;
const MAX_STATUS_LISTS = 16;

/** What all tokens of one boot rest on, as a gateway serves it. Nothing is verified. */
export interface Endorsements {
  /** Certificates of the session keys that signed. */
  readonly keyCertificates: readonly string[];
  /** What the gateway loaded and how it serves it. */
  readonly bootRecord: string;
  /** The DSSE envelope of the training manifest. */
  readonly manifest: Bytes;
}

/** Evidence about one answer. Nothing in it has been verified. */
export interface Bundle extends Endorsements {
  /** The response attestation with its disclosures (`jwt~disclosure~…~`). */
  readonly token: string;
  /** The exact request body, if at hand. */
  readonly request?: Bytes | undefined;
  /**
   * The exact response body as received, with or without the attestation comment of a
   * stream, if at hand.
   */
  readonly response?: Bytes | undefined;
  /** That the token is in a transparency log, if it was at hand. */
  readonly log?: LogProof | undefined;
  /** Signed lists of what was revoked; each says as of when. */
  readonly statusLists?: readonly string[] | undefined;
}

/**
 * Read the members keyCertificates, bootRecord and manifest.
 *
 * Throws FormatError: one is missing, of the wrong type, or there are too many keys.
 */
export function readEndorsements(value: JsonObject): Endorsements {
  const certificates = member(value, "keyCertificates");
  const [bootRecord, manifest] = [
    member(value, "bootRecord"),
    member(value, "manifest"),
  ];
  if (
    !Array.isArray(certificates) ||
    certificates.length === 0 ||
    certificates.length > MAX_CERTIFICATES ||
    !certificates.every((item) => typeof item === "string") ||
    typeof bootRecord !== "string" ||
    !isObject(manifest)
  ) {
    throw new FormatError("bundle: expected keyCertificates, bootRecord and manifest");
  }
  return {
    keyCertificates: certificates,
    bootRecord,
    manifest: utf8(writeJson(manifest)),
  };
}

/**
 * Read a bundle file.
 *
 * Throws FormatError: not a bundle, too large, or a member of the wrong type. Throws
 * UnsupportedVersionError: another media type.
 */
export function readBundle(data: Uint8Array): Bundle {
  const value = readObject(data, { maxBytes: MAX_BUNDLE });
  if (member(value, "mediaType") !== MEDIA_TYPE) {
    throw new UnsupportedVersionError(`bundle: mediaType is not ${MEDIA_TYPE}`, {
      hint: "upgrade: npm install attest-gateway@latest",
    });
  }
  const token = member(value, "token");
  if (typeof token !== "string")
    throw new FormatError("bundle: token must be a string");
  return {
    ...readEndorsements(value),
    token,
    request: bodyOf(value, "request"),
    response: bodyOf(value, "response"),
    statusLists: textsOf(value, "statusLists"),
    log: Object.hasOwn(value, "log") ? readLogProof(value["log"]) : undefined,
  };
}

/** The JSON file, which `readBundle` and Python's `attest verify bundle` read. */
export function writeBundle(bundle: Bundle): Bytes {
  const value = newObject();
  value["mediaType"] = MEDIA_TYPE;
  value["token"] = bundle.token;
  value["keyCertificates"] = [...bundle.keyCertificates];
  value["bootRecord"] = bundle.bootRecord;
  value["manifest"] = readObject(bundle.manifest, { maxBytes: MAX_BUNDLE });
  if (bundle.log !== undefined) {
    const { index, checkpoint, proof } = bundle.log;
    value["log"] = { index, checkpoint, proof: proof.map(toBase64) };
  }
  const lists = bundle.statusLists ?? [];
  if (lists.length > 0) value["statusLists"] = [...lists];
  if (bundle.request !== undefined) value["request"] = toBase64(bundle.request);
  if (bundle.response !== undefined) value["response"] = toBase64(bundle.response);
  return utf8(`${writeJson(value)}\n`);
}

function textsOf(value: JsonObject, name: string): string[] {
  const items: Json = Object.hasOwn(value, name) ? (value[name] ?? null) : [];
  if (
    !Array.isArray(items) ||
    items.length > MAX_STATUS_LISTS ||
    !items.every((item) => typeof item === "string")
  ) {
    throw new FormatError(
      `bundle: ${name} must hold at most ${MAX_STATUS_LISTS} texts`,
    );
  }
  return items;
}

function bodyOf(value: JsonObject, name: string): Bytes | undefined {
  const text = member(value, name) ?? null;
  if (text === null) return undefined;
  if (typeof text !== "string") throw new FormatError(`bundle: ${name} is not base64`);
  return fromBase64(text, `bundle: ${name}`);
}
