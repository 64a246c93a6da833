/** Trees, notes and checkpoints, against an independent implementation's (tests/vectors/c2sp). */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { type Bytes, concat, toBase64, utf8 } from "../src/bytes.js";
import { FormatError, NoteKey, SignatureError } from "../src/index.js";
import { cosignatures, openCheckpoint } from "../src/log/checkpoint.js";
import {
  emptyRoot,
  leafHash,
  nodeHash,
  treeRoot,
  verifyConsistency,
  verifyInclusion,
} from "../src/log/merkle.js";
import { parseNote } from "../src/log/note.js";

const NOTES = JSON.parse(
  readFileSync(
    new URL("../../../tests/vectors/c2sp/notes.json", import.meta.url),
    "utf8",
  ),
) as {
  vkeys: Record<string, string>;
  checkpoint: string;
  times: Record<string, number>;
  trees: Record<string, { root: string }>;
  go: { notes: { vkey: string; note: string }[] };
};

/** What leaf i of the recorded trees holds. */
function leaf(index: number): Bytes {
  return new Uint8Array(createHash("sha256").update(String(index)).digest());
}

const leaves = Array.from({ length: 600 }, (_, index) => leaf(index));

async function keys(): Promise<NoteKey[]> {
  return Promise.all(Object.values(NOTES.vkeys).map((text) => NoteKey.parse(text)));
}

describe("checkpoints", () => {
  test("of another implementation verify", async () => {
    const all = await keys();
    const [head, note] = await openCheckpoint(NOTES.checkpoint, all);
    expect(head.size).toBe(600n);
    expect(toBase64(head.root)).toBe(NOTES.trees["600"]?.root);
    const found = await cosignatures(note, all);
    const times = found.map(({ witness, at }) => [witness.name, at] as const);
    expect(Object.fromEntries(times)).toEqual(NOTES.times);
  });

  test("of Go's verify", async () => {
    for (const { vkey, note } of NOTES.go.notes) {
      const key = await NoteKey.parse(vkey);
      const parsed = parseNote(note);
      const [signature] = parsed.by(key);
      await key.verify(signature ?? new Uint8Array(), utf8(parsed.text));
    }
  });

  test.each([
    ["another size", (text: string) => text.replace("\n600\n", "\n601\n")],
    [
      "another witness's signature",
      (text: string) => text.replace("w1 IDJK", "w1 IDJL"),
    ],
  ])("changed: %s", async (_, change) => {
    const text = change(NOTES.checkpoint);
    const opened = openCheckpoint(text, await keys());
    if (text.includes("601")) await expect(opened).rejects.toThrow(SignatureError);
    else {
      const [, note] = await opened; // an unknown key's line is passed over
      expect((await cosignatures(note, await keys())).length).toBe(1);
    }
  });

  test("of a log that nobody knows", async () => {
    await expect(openCheckpoint(NOTES.checkpoint, [])).rejects.toThrow(
      "nobody vouches",
    );
  });

  test.each([
    "x",
    "a+b+c",
    "log.example/one+be6ef7a6+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3c",
  ])("%s is no key", async (text) => {
    await expect(NoteKey.parse(text)).rejects.toThrow(FormatError);
  });
});

/** RFC 9162 §2.1 by its own recursion. */
async function root(data: readonly Bytes[]): Promise<Bytes> {
  const [only] = data;
  if (only === undefined) return emptyRoot();
  if (data.length === 1) return leafHash(only);
  const split = 2 ** (Math.ceil(Math.log2(data.length)) - 1);
  return nodeHash(await root(data.slice(0, split)), await root(data.slice(split)));
}

async function inclusion(data: readonly Bytes[], index: number): Promise<Bytes[]> {
  if (data.length === 1) return [];
  const split = 2 ** (Math.ceil(Math.log2(data.length)) - 1);
  const [left, right] = [data.slice(0, split), data.slice(split)];
  return index < split
    ? [...(await inclusion(left, index)), await root(right)]
    : [...(await inclusion(right, index - split)), await root(left)];
}

async function consistency(
  data: readonly Bytes[],
  first: number,
  isWhole: boolean,
): Promise<Bytes[]> {
  if (first === data.length) return isWhole ? [] : [await root(data)];
  const split = 2 ** (Math.ceil(Math.log2(data.length)) - 1);
  const [left, right] = [data.slice(0, split), data.slice(split)];
  return first <= split
    ? [...(await consistency(left, first, isWhole)), await root(right)]
    : [...(await consistency(right, first - split, false)), await root(left)];
}

const size = fc.integer({ min: 1, max: 70 });

describe("trees", () => {
  test("have the recorded root", async () => {
    expect(toBase64(await treeRoot(leaves))).toBe(NOTES.trees["600"]?.root);
    expect(await treeRoot([])).toEqual(await emptyRoot());
  });

  test("inclusion holds for every leaf, and for no other", async () => {
    await fc.assert(
      fc.asyncProperty(size, fc.nat(), fc.nat(), async (count, at, other) => {
        const data = leaves.slice(0, count);
        const [index, wrong] = [at % count, other % count];
        const claim = {
          leaf: await leafHash(leaf(index)),
          index: BigInt(index),
          size: BigInt(count),
          proof: await inclusion(data, index),
          root: await treeRoot(data),
        };
        await verifyInclusion(claim);
        if (wrong === index) return;
        const lies = [
          { ...claim, index: BigInt(wrong) },
          { ...claim, leaf: await leafHash(leaf(wrong)) },
          { ...claim, proof: claim.proof.slice(1) },
          { ...claim, proof: [...claim.proof, claim.root] },
        ];
        for (const lie of lies) await expect(verifyInclusion(lie)).rejects.toThrow();
      }),
      { numRuns: 60 },
    );
  });

  test("consistency holds for every two sizes, and for no fork", async () => {
    await fc.assert(
      fc.asyncProperty(size, size, async (one, two) => {
        const [first, second] = [Math.min(one, two), Math.max(one, two)];
        const data = leaves.slice(0, second);
        const claim = {
          first: BigInt(first),
          firstRoot: await treeRoot(data.slice(0, first)),
          second: BigInt(second),
          secondRoot: await treeRoot(data),
          proof: first === second ? [] : await consistency(data, first, true),
        };
        await verifyConsistency(claim);
        const forked = [leaf(999), ...data.slice(1)];
        const lies = [
          { ...claim, firstRoot: await treeRoot(forked.slice(0, first)) },
          { ...claim, secondRoot: await treeRoot(forked) },
          { ...claim, proof: [...claim.proof, claim.secondRoot] },
        ];
        for (const lie of lies) await expect(verifyConsistency(lie)).rejects.toThrow();
      }),
      { numRuns: 60 },
    );
  });

  test("sizes and hashes that no tree has are no proof", async () => {
    const hash = await emptyRoot();
    const claim = { leaf: hash, index: 0n, size: 1n, proof: [], root: hash };
    for (const lie of [
      { ...claim, index: 1n },
      { ...claim, index: -1n },
      { ...claim, size: 2n ** 63n, index: 5n },
      { ...claim, root: concat(hash, hash) },
    ]) {
      await expect(verifyInclusion(lie)).rejects.toThrow(FormatError);
    }
  });
});
