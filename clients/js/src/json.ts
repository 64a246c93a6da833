/**
 * Strict reading of JSON that somebody else wrote, and RFC 8785 writing.
 *
 * `JSON.parse` takes duplicate keys (the last one wins) and any depth, rounds integers,
 * and cannot tell 1 from 1.0; each of these lets two readers see two documents in one
 * signature.
 */

import serialize from "canonicalize";

import { type Bytes, byCodePoint, hasLoneSurrogate, utf8, utf8Text } from "./bytes.js";
import { FormatError } from "./errors.js";

/** A number that was written with a fraction or an exponent: never an integer here. */
export class JsonFloat {
  constructor(readonly value: number) {}
}

/** An object without a prototype, so that no key (`__proto__`) means anything. */
export interface JsonObject {
  [key: string]: Json;
}

/** `number` is always an integer below 2^53; `bigint` is one beyond. */
export type Json =
  null | boolean | number | bigint | JsonFloat | string | Json[] | JsonObject;

/** Nesting that is far beyond any document of ours and of the OpenAI API. */
export const MAX_DEPTH = 64;

const BOM = "\ufeff";
const SPACE = /[ \t\n\r]*/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y; // eslint-disable-line no-control-regex -- RFC 8259 §7
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const HEX4 = /[0-9a-fA-F]{4}/y;
const MAX_DIGITS = 64;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class Reader {
  private at = 0;
  private depth = 0;

  constructor(
    private readonly text: string,
    private readonly maxDepth: number,
  ) {}

  document(): Json {
    const value = this.value();
    this.take(SPACE);
    if (this.at !== this.text.length) throw this.error();
    return value;
  }

  private error(): FormatError {
    return new FormatError(`JSON: syntax error at character ${this.at}`);
  }

  /** What a sticky expression matches here; undefined where it does not. */
  private take(expression: RegExp): string | undefined {
    expression.lastIndex = this.at;
    const found = expression.exec(this.text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }

  private word(word: string): void {
    if (!this.text.startsWith(word, this.at)) throw this.error();
    this.at += word.length;
  }

  private value(): Json {
    this.take(SPACE);
    switch (this.text.charAt(this.at)) {
      case "{":
        return this.nested(() => this.object());
      case "[":
        return this.nested(() => this.array());
      case '"':
        return this.string();
      case "t":
        this.word("true");
        return true;
      case "f":
        this.word("false");
        return false;
      case "n":
        this.word("null");
        return null;
      default:
        return this.number();
    }
  }

  private nested<T>(read: () => T): T {
    this.depth += 1;
    if (this.depth > this.maxDepth) {
      throw new FormatError(`JSON: nested deeper than ${this.maxDepth} levels`);
    }
    this.at += 1;
    const value = read();
    this.depth -= 1;
    return value;
  }

  private object(): JsonObject {
    const result = newObject();
    for (let first = true; ; first = false) {
      this.take(SPACE);
      if (first && this.text[this.at] === "}") break;
      if (this.text[this.at] !== '"') throw this.error();
      const key = this.string();
      this.take(SPACE);
      this.word(":");
      const value = this.value();
      if (Object.hasOwn(result, key)) {
        throw new FormatError("JSON: an object has the same key twice");
      }
      result[key] = value;
      if (!this.continues("}")) break;
    }
    this.at += 1;
    return result;
  }

  private array(): Json[] {
    const result: Json[] = [];
    for (let first = true; ; first = false) {
      this.take(SPACE);
      if (first && this.text[this.at] === "]") break;
      result.push(this.value());
      if (!this.continues("]")) break;
    }
    this.at += 1;
    return result;
  }

  /** Whether a comma comes next, which is passed, rather than the end. */
  private continues(end: string): boolean {
    this.take(SPACE);
    const next = this.text[this.at];
    if (next === end) return false;
    if (next !== ",") throw this.error();
    this.at += 1;
    return true;
  }

  private string(): string {
    this.at += 1;
    let text = this.take(PLAIN) ?? "";
    while (this.text[this.at] === "\\") {
      text += this.escape() + (this.take(PLAIN) ?? "");
    }
    this.word('"');
    return text;
  }

  private escape(): string {
    const letter = this.text[this.at + 1] ?? "";
    this.at += 2;
    if (letter !== "u") {
      const plain = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined;
      if (plain === undefined) throw this.error();
      return plain;
    }
    const digits = this.take(HEX4);
    if (digits === undefined) throw this.error();
    return String.fromCharCode(Number.parseInt(digits, 16));
  }

  private number(): Json {
    const text = this.take(NUMBER);
    if (text === undefined) throw this.error();
    if (/[.eE]/.test(text)) {
      const value = Number(text);
      if (!Number.isFinite(value)) {
        throw new FormatError("JSON: a number is too large");
      }
      return new JsonFloat(value);
    }
    if (text.length > MAX_DIGITS) {
      throw new FormatError("JSON: an integer has more than 64 digits");
    }
    const value = Number(text);
    if (!Number.isSafeInteger(value)) return BigInt(text);
    return value === 0 ? 0 : value; // -0 is the integer 0
  }
}

/** An empty object without a prototype. */
export function newObject(): JsonObject {
  return Object.create(null) as JsonObject;
}

/** Whether a value is a JSON object. */
export function isObject(value: Json | undefined): value is JsonObject {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof JsonFloat)
  );
}

/** Whether a value is a whole number from 0 on. */
export function isWhole(value: Json | undefined): value is number | bigint {
  return (typeof value === "number" || typeof value === "bigint") && value >= 0;
}

/** A member, undefined where the object has none of that name. */
export function member(value: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(value, name) ? value[name] : undefined;
}

/**
 * The value of exactly one JSON text (RFC 8259) in strict UTF-8.
 *
 * Lone surrogates written as escapes are accepted, since JSON allows them; the canonical
 * form refuses them.
 *
 * Throws FormatError: too large, too deep, not UTF-8, a BOM, a duplicate key, NaN or
 * Infinity, an integer of more than 64 digits, or not JSON at all. The message never
 * quotes the input.
 */
export function readJson(
  data: Uint8Array,
  limits: { maxBytes: number; maxDepth?: number },
): Json {
  if (data.length > limits.maxBytes) {
    throw new FormatError(
      `JSON: ${data.length} bytes, at most ${limits.maxBytes} are read`,
    );
  }
  const text = utf8Text(data);
  if (text.startsWith(BOM)) {
    throw new FormatError("JSON: starts with a byte order mark");
  }
  return new Reader(text, limits.maxDepth ?? MAX_DEPTH).document();
}

/** Like `readJson`; throws FormatError also where the value is not an object. */
export function readObject(
  data: Uint8Array,
  limits: { maxBytes: number; maxDepth?: number },
): JsonObject {
  const value = readJson(data, limits);
  if (!isObject(value)) throw new FormatError("JSON: expected an object");
  return value;
}

/**
 * The RFC 8785 form. For small objects.
 *
 * Throws FormatError: an integer beyond 2^53, or a lone surrogate.
 */
export function canonical(value: Json): Bytes {
  return utf8(serialize(plain(value)) ?? "null");
}

/** The value as `JSON.stringify` knows it, where RFC 8785 can write it. */
function plain(value: Json): unknown {
  if (typeof value === "bigint") {
    throw new FormatError("canonical JSON: an integer beyond 2^53");
  }
  if (typeof value === "string") return wellFormed(value);
  if (value instanceof JsonFloat) return value.value;
  if (Array.isArray(value)) return value.map(plain);
  if (!isObject(value)) return value;
  const result = Object.create(null) as Record<string, unknown>;
  for (const [key, item] of Object.entries(value)) {
    result[wellFormed(key)] = plain(item);
  }
  return result;
}

function wellFormed(text: string): string {
  if (hasLoneSurrogate(text)) {
    throw new FormatError("canonical JSON: a lone surrogate");
  }
  return text;
}

/** Between items and after names, as Python's `json.dumps` writes them by default. */
export const LOOSE = [", ", ": "] as const;
export const COMPACT = [",", ":"] as const;

/**
 * JSON text in ASCII, as Python's `json.dumps` writes it: digests are made of such texts.
 * With `sortKeys`, members in the order of the code points of their names.
 */
export function writeJson(
  value: Json,
  options: { separators?: readonly [string, string]; sortKeys?: boolean } = {},
): string {
  const [comma, colon] = options.separators ?? LOOSE;
  if (value instanceof JsonFloat) return floatText(value.value);
  if (typeof value === "string") return quoted(value);
  if (Array.isArray(value)) {
    return `[${value.map((item) => writeJson(item, options)).join(comma)}]`;
  }
  if (!isObject(value)) return String(value);
  const names = Object.keys(value);
  if (options.sortKeys === true) names.sort(byCodePoint);
  const members = names.map(
    (name) => `${quoted(name)}${colon}${writeJson(value[name] ?? null, options)}`,
  );
  return `{${members.join(comma)}}`;
}

/** A text as a JSON string in ASCII. */
export function quoted(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Python's text of a float: the shortest digits, as in JavaScript, otherwise placed. */
function floatText(value: number): string {
  const [digits = "", power = ""] = value.toExponential().split("e");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const sign = exponent < 0 ? "-" : "+";
    return `${digits}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  if (Object.is(value, -0)) return "-0.0";
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

/**
 * Refuse a document that holds a float anywhere: signed documents carry scaled integers
 * or decimal strings, since float text is not the same in every language.
 *
 * Throws FormatError.
 */
export function rejectFloats(value: Json): void {
  if (value instanceof JsonFloat) {
    throw new FormatError("signed JSON: it holds a float; write it as a string");
  }
  if (Array.isArray(value)) value.forEach(rejectFloats);
  else if (isObject(value)) Object.values(value).forEach(rejectFloats);
}
