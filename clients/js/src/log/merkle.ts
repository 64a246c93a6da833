/**
 * The Merkle tree of Certificate Transparency (RFC 9162 §2.1, the same as RFC 6962):
 * roots, and the checks of inclusion and consistency proofs.
 */

import { type Bytes, bytesEqual, concat } from "../bytes.js";
import { sha256 } from "../digests.js";
import { FormatError, VerificationError } from "../errors.js";

export const HASH_SIZE = 32;
/** C2SP checkpoints count leaves in 63 bits; a path is never longer than that. */
export const MAX_SIZE = 2n ** 63n - 1n;

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** The root of a tree without leaves. */
export function emptyRoot(): Promise<Bytes> {
  return sha256(new Uint8Array());
}

/** The hash of a leaf that holds `data`. */
export function leafHash(data: Uint8Array): Promise<Bytes> {
  return sha256(concat(LEAF, data));
}

/** The hash of the node above two subtrees. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Promise<Bytes> {
  return sha256(concat(NODE, left, right));
}

/** The root over leaves that hold these data. */
export async function treeRoot(leaves: readonly Uint8Array[]): Promise<Bytes> {
  let level = await Promise.all(leaves.map(leafHash));
  // Pairing from the left and handing the odd one up gives RFC 9162's splits: at the
  // largest power of two below the size, again and again.
  while (level.length > 1) {
    const pairs: Promise<Bytes>[] = [];
    for (let at = 0; at < level.length; at += 2) {
      const [left, right] = [level[at], level[at + 1]];
      if (left === undefined) break;
      pairs.push(right === undefined ? Promise.resolve(left) : nodeHash(left, right));
    }
    level = await Promise.all(pairs);
  }
  return level[0] ?? emptyRoot();
}

/** A claim that a hash is a leaf of a tree. */
export interface Inclusion {
  /** A leaf hash, computed from the data at hand, never taken from the prover. */
  readonly leaf: Bytes;
  readonly index: bigint;
  readonly size: bigint;
  readonly proof: readonly Bytes[];
  readonly root: Bytes;
}

/**
 * Return when the leaf is leaf `index` of the tree with `size` leaves and `root`. That
 * `root` is the log's is for a checkpoint to say.
 *
 * Throws FormatError: no proof at all: a hash that is not 32 bytes, an index outside the
 * tree, a size beyond 2^63. Throws VerificationError: the path does not lead from this
 * leaf to this root.
 */
export async function verifyInclusion(claim: Inclusion): Promise<void> {
  const { leaf, index, size, proof, root } = claim;
  checkHashes("inclusion proof", [leaf, root, ...proof]);
  if (!(index >= 0n && index < size && size <= MAX_SIZE)) {
    throw new FormatError(`inclusion proof: no leaf ${index} among ${size}`);
  }
  let found = leaf;
  for (const [step, isLeft] of climb("inclusion proof", index, size - 1n, proof)) {
    found = await (isLeft ? nodeHash(step, found) : nodeHash(found, step));
  }
  if (!bytesEqual(found, root)) {
    throw new VerificationError("inclusion proof: the leaf does not lead to the root");
  }
}

/** A claim that one tree begins with another. */
export interface Consistency {
  readonly first: bigint;
  readonly firstRoot: Bytes;
  readonly second: bigint;
  readonly secondRoot: Bytes;
  readonly proof: readonly Bytes[];
}

/**
 * Return when the tree of `second` leaves begins with the tree of `first` leaves.
 *
 * Throws FormatError: no proof at all: a hash that is not 32 bytes, sizes out of order
 * or beyond 2^63. Throws VerificationError: the second root does not extend the first.
 */
export async function verifyConsistency(claim: Consistency): Promise<void> {
  const { first, firstRoot, second, secondRoot, proof } = claim;
  checkHashes("consistency proof", [firstRoot, secondRoot, ...proof]);
  if (!(first >= 0n && first <= second && second <= MAX_SIZE)) {
    throw new FormatError(`consistency proof: ${first} leaves before ${second}`);
  }
  if (first === 0n || first === second) {
    const known = first === 0n ? await emptyRoot() : secondRoot;
    if (proof.length > 0 || !bytesEqual(firstRoot, known)) {
      throw new VerificationError("consistency proof: the first root does not fit");
    }
    return;
  }
  // A complete first tree is itself a node of the second: the proof leaves it out.
  const isComplete = (first & (first - 1n)) === 0n;
  const [start, ...steps] = isComplete ? [firstRoot, ...proof] : proof;
  if (start === undefined) throw new VerificationError("consistency proof: empty");
  let [index, last] = [first - 1n, second - 1n];
  while ((index & 1n) === 1n) [index, last] = [index >> 1n, last >> 1n];
  let [before, after] = [start, start];
  for (const [step, isLeft] of climb("consistency proof", index, last, steps)) {
    if (isLeft) before = await nodeHash(step, before);
    after = await (isLeft ? nodeHash(step, after) : nodeHash(after, step));
  }
  if (!bytesEqual(before, firstRoot)) {
    throw new VerificationError("consistency proof: does not lead to the first root");
  }
  if (!bytesEqual(after, secondRoot)) {
    throw new VerificationError("consistency proof: does not lead to the second root");
  }
}

function checkHashes(what: string, hashes: readonly Uint8Array[]): void {
  if (hashes.some((item) => item.length !== HASH_SIZE)) {
    throw new FormatError(`${what}: every hash must be ${HASH_SIZE} bytes`);
  }
}

/**
 * Each step of a proof, and whether it is the left sibling: the loop that RFC 9162
 * §2.1.3.2 and §2.1.4.2 share. `index` is the node on the way up, `last` the right edge
 * of the tree on the same level.
 */
function* climb(
  what: string,
  index: bigint,
  last: bigint,
  proof: readonly Bytes[],
): Generator<[Bytes, boolean]> {
  for (const step of proof) {
    if (last === 0n) {
      throw new VerificationError(`${what}: longer than the tree is high`);
    }
    const isLeft = (index & 1n) === 1n || index === last;
    yield [step, isLeft];
    while (isLeft && index !== 0n && (index & 1n) === 0n) {
      [index, last] = [index >> 1n, last >> 1n];
    }
    [index, last] = [index >> 1n, last >> 1n];
  }
  if (last !== 0n) {
    throw new VerificationError(`${what}: shorter than the tree is high`);
  }
}
