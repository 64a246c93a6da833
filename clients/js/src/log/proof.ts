/**
 * That one statement stands in a log: what a bundle carries, and what it proves. The leaf
 * of a signed token holds the SHA-256 of its signing input.
 */

import { type Bytes, fromCanonicalBase64, isAtMost, toHex } from "../bytes.js";
import { FormatError } from "../errors.js";
import { type Json, isObject } from "../json.js";
import {
  type Checkpoint,
  type Cosignature,
  cosignatures,
  openCheckpoint,
} from "./checkpoint.js";
import { HASH_SIZE, leafHash, verifyInclusion } from "./merkle.js";
import { MAX_NOTE, type NoteKey } from "./note.js";

/** A tree of 2^63 leaves is no higher. */
const MAX_PROOF = 63;

/** How many of `count` witnesses no two halves of a split view can both have. */
export function majority(count: number): number {
  return Math.floor(count / 2) + 1;
}

/** What a verified proof established. */
export interface Logged {
  readonly checkpoint: Checkpoint;
  /** Of known witnesses, earliest first, each key once. */
  readonly cosignatures: readonly Cosignature[];
  /** How many witnesses there are to cosign. */
  readonly witnessCount: number;
}

/** A claim that a statement is leaf `index` of a log. Nothing has been verified. */
export interface LogProof {
  readonly index: bigint;
  /** A signed note (C2SP tlog-checkpoint), cosignatures included. */
  readonly checkpoint: string;
  /** Hashes from the leaf to the root (RFC 9162 §2.1.3), leaf first. */
  readonly proof: readonly Bytes[];
}

/**
 * Read the member `log` of a bundle; unknown members mean nothing.
 *
 * Throws FormatError: a member is missing, of the wrong type or too large.
 */
export function readLogProof(value: Json | undefined): LogProof {
  if (isObject(value)) {
    const { index, checkpoint, proof } = value as Partial<typeof value>;
    if (
      (typeof index === "number" || typeof index === "bigint") &&
      index >= 0 &&
      typeof checkpoint === "string" &&
      isAtMost(checkpoint, MAX_NOTE) &&
      Array.isArray(proof) &&
      proof.length <= MAX_PROOF &&
      proof.every((item) => typeof item === "string")
    ) {
      const hashes = proof.map((item) => fromCanonicalBase64(item, "log: a hash"));
      if (hashes.every((item) => item.length === HASH_SIZE)) {
        return { index: BigInt(index), checkpoint, proof: hashes };
      }
    }
  }
  throw new FormatError("log: expected index, checkpoint and proof");
}

/**
 * Check that a statement is in a log that is known. How many witnesses are enough, and
 * whether the times fit, is for the caller.
 *
 * @param leaf SHA-256 of the statement's signing input, computed by the caller.
 * @param witnesses The key of a log itself never counts as one, since it could say
 *   nothing that the log does not say.
 *
 * Throws FormatError: the checkpoint or the proof breaks its form. Throws
 * SignatureError: no known log signed the checkpoint, or a line in the name of a known
 * witness is not by it. Throws VerificationError: the statement does not lead to the
 * checkpoint's root.
 */
export async function verifyLogProof(
  claim: LogProof,
  leaf: Bytes,
  logs: readonly NoteKey[],
  witnesses: readonly NoteKey[],
): Promise<Logged> {
  const [checkpoint, note] = await openCheckpoint(claim.checkpoint, logs);
  await verifyInclusion({
    leaf: await leafHash(leaf),
    index: claim.index,
    size: checkpoint.size,
    proof: claim.proof,
    root: checkpoint.root,
  });
  const independent = witnesses.filter(
    (item) => !logs.some((log) => log.isSameKey(item)),
  );
  return {
    checkpoint,
    cosignatures: await cosignatures(note, independent),
    witnessCount: new Set(independent.map((item) => toHex(item.key))).size,
  };
}
