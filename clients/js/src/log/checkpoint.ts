/**
 * Checkpoints: what a log says its tree is, signed by it and cosigned by witnesses (C2SP
 * tlog-checkpoint v1, tlog-cosignature v1). A checkpoint has no time of its own; a
 * cosignature has one: the witness saw this tree, and nothing larger, at that time.
 */

import { type Bytes, bytesEqual, fromCanonicalBase64, toHex, utf8 } from "../bytes.js";
import { FormatError, SignatureError } from "../errors.js";
import { HASH_SIZE, MAX_SIZE, emptyRoot } from "./merkle.js";
import { LOG_KEY, type Note, type NoteKey, WITNESS_KEY, parseNote } from "./note.js";

const DECIMAL = /^(0|[1-9][0-9]{0,18})$/;
const TIME_SIZE = 8;

/** A tree head: which log, how many leaves, and the root over them. */
export interface Checkpoint {
  readonly origin: string;
  readonly size: bigint;
  readonly root: Bytes;
}

/**
 * Read the text of a note. Extension lines are allowed, as the format asks, and mean
 * nothing here.
 *
 * Throws FormatError: fewer than three lines, an empty one, a size in another spelling
 * or beyond 2^63, a root that is not 32 bytes, or an empty tree with another root than
 * the empty one's.
 */
export async function readCheckpoint(text: string): Promise<Checkpoint> {
  const lines = (text.endsWith("\n") ? text.slice(0, -1) : text).split("\n");
  const [origin, decimal, encoded] = lines;
  if (
    origin === undefined ||
    decimal === undefined ||
    encoded === undefined ||
    lines.includes("")
  ) {
    throw new FormatError("checkpoint: expected origin, size and root, a line each");
  }
  if (!DECIMAL.test(decimal) || BigInt(decimal) > MAX_SIZE) {
    throw new FormatError("checkpoint: the size must be a plain decimal number");
  }
  const [size, root] = [BigInt(decimal), fromCanonicalBase64(encoded, "checkpoint")];
  if (root.length !== HASH_SIZE) {
    throw new FormatError(`checkpoint: the root must be ${HASH_SIZE} bytes`);
  }
  if (size === 0n && !bytesEqual(root, await emptyRoot())) {
    throw new FormatError("checkpoint: no leaves, and not the root of no leaves");
  }
  return { origin, size, root };
}

/**
 * A tree head that one of `logs` signed, and its note. A log's key must bear the name in
 * the checkpoint, so that a head of one log is never taken for another's.
 *
 * Throws FormatError: no note, or its text is no checkpoint. Throws SignatureError: no
 * log of that name is known, or none of its keys signed. One bad signature in the name of
 * a known key is enough, as the format advises.
 */
export async function openCheckpoint(
  text: string,
  logs: readonly NoteKey[],
): Promise<[Checkpoint, Note]> {
  const note = parseNote(text);
  const checkpoint = await readCheckpoint(note.text);
  const known = logs.filter(
    (key) => key.kind === LOG_KEY && key.name === checkpoint.origin,
  );
  if (known.length === 0) {
    throw new SignatureError("checkpoint: it is of a log that nobody vouches for", {
      hint: "the manifest's trustAnchors, or a policy, names the logs",
    });
  }
  let isSigned = false;
  for (const key of known) {
    for (const data of note.by(key)) {
      await key.verify(data, utf8(note.text));
      isSigned = true;
    }
  }
  if (!isSigned) {
    throw new SignatureError("checkpoint: not signed by the log that it names");
  }
  return [checkpoint, note];
}

/** A witness's verified word that it saw this tree at this time (seconds, UTC). */
export interface Cosignature {
  readonly witness: NoteKey;
  readonly at: number;
}

/**
 * The witnesses that cosigned, earliest first; each key counts once, at its earliest
 * time, whatever names it has: an Ed25519 cosignature does not cover the name.
 *
 * Throws SignatureError: a line in the name of a known witness is not by it.
 */
export async function cosignatures(
  note: Note,
  witnesses: readonly NoteKey[],
): Promise<Cosignature[]> {
  const found = new Map<string, Cosignature>();
  for (const witness of witnesses) {
    if (witness.kind !== WITNESS_KEY) continue;
    for (const data of note.by(witness)) {
      const time = BigInt(`0x${toHex(data.slice(0, TIME_SIZE)) || "0"}`);
      const message = utf8(`cosignature/v1\ntime ${time}\n${note.text}`);
      await witness.verify(data.slice(TIME_SIZE), message);
      const [name, at] = [toHex(witness.key), Number(time)];
      if (at < (found.get(name)?.at ?? Infinity)) found.set(name, { witness, at });
    }
  }
  return [...found.values()].sort((left, right) => left.at - right.at);
}
