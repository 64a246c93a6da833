/**
 * Recall: status lists, and what a revoked manifest or key means for a statement.
 *
 * A Token Status List (draft-ietf-oauth-status-list) is a signed list of bits; a manifest,
 * and a key certificate, may name their place in one. Beside the bits ours holds
 * `revoked_at`: a list without times could only say that everything is void.
 */

import { type Bytes, fromBase64Url, isAtMost } from "./bytes.js";
import { AlgorithmError, FormatError, SignatureError } from "./errors.js";
import { unzlib } from "./inflate.js";
import {
  type Json,
  type JsonObject,
  isObject,
  isWhole,
  member,
  newObject,
} from "./json.js";
import type { PublicKey } from "./keys.js";
import { parseToken, verifyToken } from "./tokens.js";

const TYP = "statuslist+jwt";
/** 2^20 one-bit entries are 128 kB, and a hundred bytes while few are set. */
const MAX_ENTRIES = 2 ** 20;
const MAX_LIST_BYTES = MAX_ENTRIES;
const MAX_URI = 1024;
const INDEX = /^[0-9]{1,7}$/;

/** A place in a status list: the list's URI, and the entry's number. */
export interface Reference {
  readonly uri: string;
  readonly index: number;
}

/**
 * The place that a member `status` names, undefined where there is none.
 *
 * Throws FormatError: it is there, and is not a reference to a status list. An unknown
 * kind of status could be a revocation, so it is no reason to go on.
 */
export function readReference(status: Json | undefined): Reference | undefined {
  if ((status ?? null) === null) return undefined;
  const list = isObject(status) ? member(status, "status_list") : undefined;
  if (isObject(list)) {
    const [index, uri] = [member(list, "idx"), member(list, "uri")];
    const isPlace = typeof index === "number" && index >= 0 && index < MAX_ENTRIES;
    if (isPlace && typeof uri === "string" && uri !== "" && isAtMost(uri, MAX_URI)) {
      return { uri, index };
    }
  }
  throw new FormatError("status: expected status_list with idx and uri");
}

/** A signed list whose signature was checked. */
export class StatusList {
  private constructor(
    /** Its identity; references name it. */
    readonly uri: string,
    /** When it was signed: what it says holds as of then. */
    readonly issuedAt: number,
    private readonly bits: number,
    private readonly statuses: Bytes,
    /** Since when an entry is void, by index; no time means since ever. */
    readonly revokedAt: ReadonlyMap<number, number>,
  ) {}

  /**
   * What stands at an entry: 0 is valid, all else is not.
   *
   * Throws FormatError: there is no such entry.
   */
  status(index: number): number {
    const at = index * this.bits;
    const byte = this.statuses[Math.floor(at / 8)];
    if (byte === undefined) throw new FormatError(`status list: no entry ${index}`);
    return (byte >> (at % 8)) & ((1 << this.bits) - 1);
  }

  /**
   * A list that one of `keys` signed.
   *
   * Throws SignatureError, AlgorithmError: none of them did. Throws FormatError: it breaks
   * the form, or unpacks to more than 1 MiB.
   */
  static async read(compact: string, keys: readonly PublicKey[]): Promise<StatusList> {
    const token = parseToken(compact, TYP);
    const signer = keys.find((key) => key.thumbprint === token.kid);
    if (signer === undefined) {
      throw new SignatureError(`status list: ${token.kid} may not issue it`);
    }
    await verifyToken(token, signer);
    const [uri, issuedAt] = [member(token.claims, "sub"), member(token.claims, "iat")];
    const list = member(token.claims, "status_list");
    const [bits, packed] = isObject(list)
      ? [member(list, "bits"), member(list, "lst")]
      : [];
    if (
      typeof uri !== "string" ||
      uri === "" ||
      !isWhole(issuedAt) ||
      (bits !== 1 && bits !== 2 && bits !== 4 && bits !== 8) ||
      typeof packed !== "string"
    ) {
      throw new FormatError("status list: expected sub, iat and status_list");
    }
    const times = timesOf(member(token.claims, "revoked_at") ?? newObject());
    const statuses = await unzlib(fromBase64Url(packed), MAX_LIST_BYTES);
    if (statuses === undefined || statuses.length === 0) {
      throw new FormatError("status list: lst is no ZLIB, cut, empty or too large");
    }
    return new StatusList(uri, Number(issuedAt), bits, statuses, times);
  }
}

function timesOf(value: Json): Map<number, number> {
  const entries = isObject(value) ? Object.entries(value) : undefined;
  if (entries?.every(([key, at]) => INDEX.test(key) && isWhole(at)) !== true) {
    throw new FormatError("status list: revoked_at must hold times by entry");
  }
  return new Map(entries.map(([key, at]) => [Number(key), Number(at)]));
}

/**
 * The latest list with the reference's URI that one of `keys` signed. Lists of other URIs,
 * or by others, are passed over: a bundle may hold several.
 *
 * Throws FormatError: a list by one of `keys` breaks its form.
 */
export async function findList(
  reference: Reference,
  lists: readonly string[],
  keys: readonly PublicKey[],
): Promise<StatusList | undefined> {
  let found: StatusList | undefined;
  for (const compact of lists) {
    try {
      const item = await StatusList.read(compact, keys);
      const isNewer = found === undefined || item.issuedAt > found.issuedAt;
      if (item.uri === reference.uri && isNewer) found = item;
    } catch (error) {
      const isOther =
        error instanceof SignatureError || error instanceof AlgorithmError;
      if (!isOther) throw error;
    }
  }
  return found;
}

/** The member `status` of a token's claims. Throws as `readReference`. */
export function referenceOf(claims: JsonObject): Reference | undefined {
  return readReference(member(claims, "status"));
}
