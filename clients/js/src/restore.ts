/**
 * Finding the attested bytes again in a copy that was changed on the way or in keeping.
 *
 * Only changes that lose nothing can be undone: a signed digest then proves that the copy,
 * but for that change, is the attested body. The search is a fixed list of changes, in a
 * fixed order, so that every implementation finds the same.
 *
 * Bytes are handled as binary strings, one character per byte.
 */

import { type Bytes, hasLoneSurrogate, utf8, utf8Text } from "./bytes.js";
import { splitStream } from "./delivery.js";
import { digest } from "./digests.js";
import { FormatError } from "./errors.js";
import { gunzip } from "./inflate.js";
import { quoted, readJson } from "./json.js";
import { EventSplitter } from "./sse.js";

/** The whole list takes a few seconds on a copy of this size. */
const MAX_COPY = 1024 * 1024;
const MAX_UNPACKED = 64 * 1024 * 1024;
const BOM = "\u00ef\u00bb\u00bf";
// Strings, white space, and all else, of a text that is known to be JSON.
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|[ \t\r\n]+|[^" \t\r\n]+/gs;
const LINE = /[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+/g;
const ENDS = [
  "data: [DONE]\n\n",
  'event: message_stop\ndata: {"type":"message_stop"}\n\n',
];

/** What a token says of some bytes. */
export interface Attested {
  readonly digest: string;
  /** Undefined where it does not say that. */
  readonly size: number | undefined;
  readonly isStream: boolean;
}

/** One way to write a body anew; the empty text of each means: as it is. */
interface Change {
  readonly endings: "" | "lf" | "crlf";
  readonly comments: "" | "dropped";
  readonly spacing: "" | "compact" | "spaced";
  readonly strings: "" | "raw" | "ascii";
  readonly tail: "" | "none" | "line" | "blank";
  readonly end: string;
}

const CODES: readonly (readonly [keyof Change, string])[] = [
  ["endings", "content.line_endings"],
  ["comments", "content.comments_added"],
  ["spacing", "content.whitespace"],
  ["strings", "content.escapes"],
  ["tail", "content.newline"],
  ["end", "content.done_lost"],
];

function codesOf(change: Change): string[] {
  return CODES.filter(([name]) => change[name] !== "").map(([, code]) => code);
}

type Choices = { readonly [Name in keyof Change]: readonly Change[Name][] };

/** All combinations, those with fewer changes first, then in the order given. */
function inOrder(choices: Choices): Change[] {
  let changes: Record<string, string>[] = [{}];
  for (const [name] of CODES) {
    changes = changes.flatMap((change) =>
      choices[name].map((value) => ({ ...change, [name]: value })),
    );
  }
  const all = changes as unknown as Change[];
  return all.sort((left, right) => codesOf(left).length - codesOf(right).length);
}

const SPELLINGS = {
  spacing: ["", "compact", "spaced"],
  strings: ["", "raw", "ascii"],
} as const;
const OF_BODY = inOrder({
  endings: [""],
  comments: [""],
  ...SPELLINGS,
  tail: ["", "none", "line"],
  end: [""],
});
const OF_STREAM = inOrder({
  endings: ["", "lf", "crlf"],
  comments: ["", "dropped"],
  ...SPELLINGS,
  tail: ["", "blank"],
  end: ["", ...ENDS],
});

/** The bytes as a text of as many characters. */
export function binary(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; at += 0x8000) {
    text += String.fromCharCode(...data.subarray(at, at + 0x8000));
  }
  return text;
}

function bytesOf(text: string): Bytes {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

async function isMet(attested: Attested, candidate: string): Promise<boolean> {
  if (attested.size !== undefined && candidate.length !== attested.size) return false;
  return (await digest(bytesOf(candidate))) === attested.digest;
}

/**
 * The copy without gzip around it and without a byte order mark, and their codes. More
 * than 64 MiB are not unpacked: the copy is then given back as it is.
 */
export async function unwrapped(copy: Bytes): Promise<[Bytes, string[]]> {
  const codes: string[] = [];
  let body = copy;
  if (copy[0] === 0x1f && copy[1] === 0x8b) {
    const unpacked = await gunzip(copy, MAX_UNPACKED);
    if (unpacked === undefined) return [copy, []];
    body = unpacked;
    codes.push("content.compressed");
  }
  if (binary(body.subarray(0, 3)) === BOM) {
    body = body.slice(3);
    codes.push("content.bom");
  }
  return [body, codes];
}

/**
 * The codes of the changes by which the attested bytes became this copy. None where the
 * copy is the attested body; a stream may have its attestation comment or not. Undefined
 * where no change of the list explains it, or the copy is larger than 1 MiB.
 */
export async function restored(
  copy: Bytes,
  attested: Attested,
): Promise<string[] | undefined> {
  if (await isMet(attested, binary(covered(copy, attested.isStream)))) return [];
  const [body, codes] = await unwrapped(copy);
  if (body.length > MAX_COPY) return undefined;
  const forms = attested.isStream ? streamForms(body) : bodyForms(binary(body));
  for (const [change, candidate] of forms) {
    if (await isMet(attested, candidate)) return [...codes, ...codesOf(change)];
  }
  return undefined;
}

/**
 * The bytes that a token covers: of a stream, all but the attestation comment. Nobody
 * sends an event of over 8 MiB: such a stream is given back as it is.
 */
export function covered(body: Bytes, isStream: boolean): Bytes {
  return isStream ? (coveredStream(body) ?? body) : body;
}

function coveredStream(body: Bytes): Bytes | undefined {
  try {
    return splitStream(body)[0];
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** Makes each spelling of a text once. */
function speller(
  spell: (change: Change) => string | undefined,
): (change: Change, start?: string) => string | undefined {
  const known = new Map<string, string | undefined>();
  return (change, start = "") => {
    const key = [start, change.comments, change.spacing, change.strings].join();
    if (!known.has(key)) known.set(key, spell(change));
    return known.get(key);
  };
}

function* bodyForms(body: string): Generator<[Change, string]> {
  const spelling = speller((change) => spelt(body, change));
  for (const change of OF_BODY) {
    let candidate = spelling(change);
    if (candidate === undefined) continue;
    if (change.tail !== "") candidate = candidate.replace(/[ \t\r\n]+$/, "");
    yield [change, candidate + (change.tail === "line" ? "\n" : "")];
  }
}

function* streamForms(body: Bytes): Generator<[Change, string]> {
  const plain = bytesOf(binary(body).replace(/\r\n?/g, "\n"));
  const [asIs, unix] = [coveredStream(body), coveredStream(plain)];
  if (asIs === undefined || unix === undefined) return;
  const spelling = speller((change) => {
    const start = change.endings === "" ? asIs : unix;
    const lines = change.comments === "" ? start : speaking(start);
    return lines && speltStream(binary(lines), change);
  });
  for (const change of OF_STREAM) {
    const { endings, tail, end } = change;
    let candidate = spelling(change, endings === "" ? "as it is" : "unix");
    if (candidate === undefined) continue;
    if (tail !== "") candidate = `${candidate.replace(/[\r\n]+$/, "")}\n\n`;
    candidate += end;
    if (endings === "crlf") candidate = candidate.replaceAll("\n", "\r\n");
    yield [change, candidate];
  }
}

/** The stream without the events that hold nothing but comments. */
function speaking(stream: Bytes): Bytes | undefined {
  const splitter = new EventSplitter();
  try {
    const events = splitter.feed(stream);
    const kept = events.filter(
      (event) => event.data !== undefined || !event.hasComments,
    );
    const parts = [...kept.map((event) => event.raw), splitter.flush()];
    return bytesOf(parts.map(binary).join(""));
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

function speltStream(stream: string, change: Change): string | undefined {
  if (change.spacing === "" && change.strings === "") return stream;
  const lines: string[] = [];
  for (const line of stream.match(LINE) ?? []) {
    if (!line.startsWith("data: {")) {
      lines.push(line);
      continue;
    }
    const text = line.replace(/[\r\n]+$/, "");
    const found = spelt(text.slice("data: ".length), change);
    if (found === undefined) return undefined;
    lines.push(`data: ${found}${line.slice(text.length)}`);
  }
  return lines.join("");
}

/** A JSON text with other spacing or escapes; undefined where it is no JSON. */
function spelt(body: string, change: Change): string | undefined {
  if (change.spacing === "" && change.strings === "") return body;
  const data = bytesOf(body);
  try {
    readJson(data, { maxBytes: MAX_UNPACKED });
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
  const tokens = utf8Text(data).match(TOKENS) ?? [];
  const text = tokens.map((token) => respelt(token, change)).join("");
  return hasLoneSurrogate(text) ? undefined : binary(utf8(text));
}

function respelt(token: string, change: Change): string {
  if (token.startsWith('"')) {
    if (change.strings === "") return token;
    const text = JSON.parse(token) as string;
    if (change.strings === "ascii") return quoted(text);
    // JSON.stringify would escape a lone surrogate; left as it is, the whole is dropped.
    return hasLoneSurrogate(text) ? text : JSON.stringify(text);
  }
  if (change.spacing === "") return token;
  if (/^[ \t\r\n]/.test(token)) return "";
  if (change.spacing === "compact") return token;
  return token.replaceAll(",", ", ").replaceAll(":", ": ");
}
