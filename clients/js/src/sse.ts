/**
 * Cutting a stream of server-sent events into events, byte for byte (WHATWG HTML §9.2.5:
 * a line ends in LF, CRLF or CR, and in nothing else). A digest over the bytes needs each
 * event's own bytes, which parsers of text do not give.
 */

import { type Bytes, concat } from "./bytes.js";
import { FormatError } from "./errors.js";

/** One event holds one chunk of an answer; the largest real ones have a few 100 kB. */
export const MAX_EVENT = 8 * 1024 * 1024;

const LF = 10;
const CR = 13;
const COLON = 58;
const SPACE = 32;
const BOM = [0xef, 0xbb, 0xbf];
// Bytes as characters: only ASCII is ever compared.
const LATIN = new TextDecoder("latin1");

/** One event, or one run of comments that a blank line ends. */
export interface ServerEvent {
  /** The exact bytes, the blank line that ends them included. */
  readonly raw: Bytes;
  /** Value of the last `event` field, undefined where there is none. */
  readonly name: Bytes | undefined;
  /** Values of the `data` fields joined by LF, undefined where there is none. */
  readonly data: Bytes | undefined;
  /** Whether there are comment lines. */
  readonly hasComments: boolean;
}

/** Bytes as text whose ASCII characters are true and whose others mean nothing. */
export function asciiView(data: Uint8Array): string {
  return LATIN.decode(data);
}

function isLineEnd(byte: number | undefined): boolean {
  return byte === LF || byte === CR;
}

function startsWithBom(data: Uint8Array): boolean {
  return BOM.every((byte, at) => data[at] === byte);
}

/** The lines of some bytes, each with the line end that it has. */
export function lines(data: Bytes): Bytes[] {
  const found: Bytes[] = [];
  let start = 0;
  for (let at = 0; at < data.length; at += 1) {
    if (!isLineEnd(data[at])) continue;
    if (data[at] === CR && data[at + 1] === LF) at += 1;
    found.push(data.subarray(start, at + 1));
    start = at + 1;
  }
  if (start < data.length) found.push(data.subarray(start));
  return found;
}

/** A line without the line end that it has. */
export function withoutEnd(line: Bytes): Bytes {
  let end = line.length;
  if (end > 0 && line[end - 1] === LF) end -= 1;
  if (end > 0 && line[end - 1] === CR) end -= 1;
  return line.subarray(0, end);
}

/**
 * Incremental splitter; the work is linear in the bytes fed.
 *
 * The `raw` of all events, in order, followed by `flush()` is exactly what was fed.
 * Names, data and comments do not depend on how the stream was cut into chunks. `raw` does
 * in one case: an event is handed over as soon as its blank line is seen, so when a chunk
 * ends between the CR and the LF of that line, the LF opens the next `raw`.
 */
export class EventSplitter {
  private parts: Bytes[] = []; // the event that is not ended yet
  private size = 0;
  private isInLine = false; // its last line is not ended yet
  private isAfterCr = false;
  private isFirst = true; // no event was handed over, so a BOM may stand in front

  /**
   * The events that this chunk completes.
   *
   * Throws FormatError: an event is larger than 8 MiB. The splitter is of no use then.
   */
  feed(chunk: Bytes): ServerEvent[] {
    const events: ServerEvent[] = [];
    let rest = chunk;
    if (this.isAfterCr && rest[0] === LF) {
      this.keep(rest.subarray(0, 1));
      rest = rest.subarray(1);
      this.isAfterCr = false;
    }
    for (const piece of lines(rest)) {
      this.keep(piece);
      if (!isLineEnd(piece.at(-1))) this.isInLine = true;
      else if (this.isBlank(piece)) events.push(this.takeEvent());
      else this.isInLine = false;
    }
    if (rest.length > 0) this.isAfterCr = rest.at(-1) === CR;
    return events;
  }

  /** The rest that no blank line has ended; a reader drops it (§9.2.6). */
  flush(): Bytes {
    const rest = concat(...this.parts);
    this.parts = [];
    this.size = 0;
    return rest;
  }

  private keep(piece: Bytes): void {
    this.parts.push(piece);
    this.size += piece.length;
    if (this.size > MAX_EVENT) {
      throw new FormatError(`event stream: an event of over ${MAX_EVENT} bytes`);
    }
  }

  private isBlank(piece: Bytes): boolean {
    if (this.isFirst && this.size <= 5) {
      const buffer = concat(...this.parts);
      if (startsWithBom(buffer)) return buffer.subarray(3).every(isLineEnd);
    }
    return !this.isInLine && isLineEnd(piece[0]);
  }

  private takeEvent(): ServerEvent {
    const raw = this.flush();
    const text = this.isFirst && startsWithBom(raw) ? raw.subarray(3) : raw;
    this.isFirst = this.isInLine = false;
    return parseEvent(raw, text);
  }
}

function parseEvent(raw: Bytes, text: Bytes): ServerEvent {
  let name: Bytes | undefined;
  let hasComments = false;
  const data: Bytes[] = [];
  for (const line of lines(text).map(withoutEnd)) {
    const colon = line.indexOf(COLON);
    const field = asciiView(colon < 0 ? line : line.subarray(0, colon));
    let value = colon < 0 ? line.subarray(line.length) : line.subarray(colon + 1);
    if (value[0] === SPACE) value = value.subarray(1);
    if (field === "data") data.push(value);
    else if (field === "event") name = value;
    else if (field === "" && line.length > 0) hasComments = true;
  }
  const joined = data.flatMap((part, at) =>
    at === 0 ? [part] : [Uint8Array.of(LF), part],
  );
  const whole = data.length === 0 ? undefined : concat(...joined);
  return { raw, name, data: whole, hasComments };
}
