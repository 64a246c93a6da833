/**
 * The tensor tree: one root for the weights of a model, however they are sharded. A leaf
 * is the RFC 8785 form of {dtype, name, sha256, shape}; leaves are sorted by the UTF-8
 * bytes of the name; the tree over them is RFC 6962's.
 */

import { compareBytes, toHex, utf8 } from "./bytes.js";
import { FormatError } from "./errors.js";
import { type Json, canonical } from "./json.js";
import { treeRoot } from "./log/merkle.js";

/** One tensor as it is stored: `sha256` is the bare hex digest of its raw bytes. */
export interface TensorDigest {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly Json[];
  readonly sha256: string;
}

/**
 * The text digest that is the root over these tensors, given in any order.
 *
 * Throws FormatError: no tensor at all, one name twice, or a name or a dimension without
 * a canonical form.
 */
export async function tensorRoot(tensors: readonly TensorDigest[]): Promise<string> {
  const leaves = tensors.map(({ dtype, name, sha256, shape }) => ({
    leaf: canonical({ dtype, name, sha256, shape: [...shape] }),
    name: utf8(name),
  }));
  leaves.sort((left, right) => compareBytes(left.name, right.name));
  if (leaves.length === 0) throw new FormatError("tensor tree: there are no tensors");
  const names = new Set(tensors.map((tensor) => tensor.name));
  if (names.size !== tensors.length) {
    throw new FormatError("tensor tree: a tensor appears twice");
  }
  return `sha256:${toHex(await treeRoot(leaves.map(({ leaf }) => leaf)))}`;
}
