/**
 * Signed notes (C2SP signed-note v1): a text, and lines by those who signed it.
 *
 * Two kinds of keys are read: a log's Ed25519 key, and a witness's, which signs with a
 * time (C2SP tlog-cosignature v1). Signatures by unknown keys are ignored, as the format
 * asks.
 */

import {
  type Bytes,
  bytesEqual,
  concat,
  fromCanonicalBase64,
  hasLoneSurrogate,
  isAtMost,
  toBase64Url,
  toHex,
  utf8,
} from "../bytes.js";
import { sha256 } from "../digests.js";
import { FormatError } from "../errors.js";
import type { Json } from "../json.js";
import { PublicKey } from "../keys.js";

/** The format asks for room for 16 signatures; ours have 76 bytes, others up to 5 kB. */
export const MAX_NOTE = 128 * 1024;
const MAX_SIGNATURES = 64;
const MAX_NAME = 256;
const LINE = /^— (\S+) ([A-Za-z0-9+/]+={0,2})$/;
const VKEY = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/;
// Every Unicode space and every control, format and unassigned character.
const UNFIT = /[\p{C}\p{Z}+]/u;
// eslint-disable-next-line no-control-regex -- C2SP signed-note forbids them
const CONTROL = /[\u0000-\u0009\u000b-\u001f]/;

/** Signature type identifier of a note key. */
export const LOG_KEY = 0x01;
export const WITNESS_KEY = 0x04;

function checkName(name: string): string {
  if (name === "" || !isAtMost(name, MAX_NAME) || UNFIT.test(name)) {
    throw new FormatError(
      "note: a key name must have 1 to 256 characters, no space and no +",
    );
  }
  return name;
}

/** One signature line, unverified. */
interface Signature {
  readonly name: string;
  readonly keyId: Bytes;
  readonly data: Bytes;
}

/** A public key of a note; its text form is a C2SP verifier key (vkey). */
export class NoteKey {
  private constructor(
    /** The vkey, which identifies it. */
    readonly text: string,
    readonly name: string,
    readonly kind: number,
    /** The 32 raw bytes. */
    readonly key: Bytes,
    readonly keyId: Bytes,
    private readonly publicKey: PublicKey,
  ) {}

  /**
   * Read `<name>+<8 hex digits>+<base64 of kind and key>`.
   *
   * Throws FormatError: another form, another kind of key, a key that is not 32 bytes, or
   * digits that are not the key's id.
   */
  static async parse(text: Json | undefined): Promise<NoteKey> {
    const match = typeof text === "string" ? VKEY.exec(text) : null;
    const [whole, name, id, encoded] = match ?? [];
    if (
      whole === undefined ||
      name === undefined ||
      id === undefined ||
      encoded === undefined
    ) {
      throw new FormatError("vkey: expected name+hash+key");
    }
    const data = fromCanonicalBase64(encoded, "vkey");
    const kind = data[0];
    if (data.length !== 33 || (kind !== LOG_KEY && kind !== WITNESS_KEY)) {
      throw new FormatError("vkey: expected an Ed25519 key of a log or a witness");
    }
    const named = concat(utf8(`${checkName(name)}\n`), data);
    const keyId = (await sha256(named)).slice(0, 4);
    if (toHex(keyId) !== id) {
      throw new FormatError("vkey: the hash in its middle is not the key's");
    }
    const key = data.slice(1);
    const jwk = { kty: "OKP", crv: "Ed25519", x: toBase64Url(key) };
    const publicKey = await PublicKey.fromJwk(jwk);
    return new NoteKey(whole, name, kind, key, keyId, publicKey);
  }

  /** Whether two vkeys, of whatever name, hold one key. */
  isSameKey(other: NoteKey): boolean {
    return bytesEqual(this.key, other.key);
  }

  /** Throws SignatureError unless this key made the signature over `message`. */
  async verify(signature: Bytes, message: Bytes): Promise<void> {
    await this.publicKey.verify(signature, message);
  }
}

/** A text and its signature lines, none of them verified. */
export class Note {
  constructor(
    /** What is signed, its last newline included. */
    readonly text: string,
    private readonly signatures: readonly Signature[],
  ) {}

  /** What the lines that say they are by `key` hold. Nothing is verified. */
  by(key: NoteKey): Bytes[] {
    return this.signatures
      .filter((line) => line.name === key.name && bytesEqual(line.keyId, key.keyId))
      .map((line) => line.data);
  }
}

function signature(line: string): Signature {
  const [, name, encoded] = LINE.exec(line) ?? [];
  if (name === undefined || encoded === undefined) {
    throw new FormatError("note: a signature line must be: — name base64");
  }
  const data = fromCanonicalBase64(encoded, "note: a signature");
  if (data.length <= 4) throw new FormatError("note: a signature is too short");
  return { name: checkName(name), keyId: data.slice(0, 4), data: data.slice(4) };
}

/**
 * Read a signed note. No signature is verified.
 *
 * Throws FormatError: too large, no UTF-8 form, a control character, no blank line
 * before the signatures, none or more than 64 of them, or one that breaks the form.
 */
export function parseNote(text: string): Note {
  if (!isAtMost(text, MAX_NOTE)) {
    throw new FormatError(`note: more than ${MAX_NOTE} bytes`);
  }
  if (hasLoneSurrogate(text)) throw new FormatError("note: not UTF-8");
  if (CONTROL.test(text)) throw new FormatError("note: holds a control character");
  const blank = text.lastIndexOf("\n\n");
  if (blank <= 0) {
    throw new FormatError("note: no blank line between text and signatures");
  }
  const tail = text.slice(blank + 2);
  if (!tail.endsWith("\n")) throw new FormatError("note: the last line has no newline");
  const lines = tail.slice(0, -1).split("\n");
  if (lines.length > MAX_SIGNATURES) {
    throw new FormatError(`note: more than ${MAX_SIGNATURES} signatures`);
  }
  return new Note(`${text.slice(0, blank)}\n`, lines.map(signature));
}
