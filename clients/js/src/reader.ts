/** Typed access to parsed JSON; every refusal names the path of the member. */

import { isAtMost } from "./bytes.js";
import { isDigest } from "./digests.js";
import { FormatError } from "./errors.js";
import { type Json, type JsonObject, isObject, member } from "./json.js";

const MAX_TEXT = 4096;
const TIME = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})Z$/;

/**
 * An object of a parsed document, and where in the document it stands. Every method
 * throws FormatError where the member is missing or of another kind. Members that nobody
 * asks for are not looked at.
 */
export class Reader {
  constructor(
    readonly value: JsonObject,
    private readonly path = "$",
  ) {}

  /** The error that says what is wrong with a member. */
  refuse(key: string, problem: string): FormatError {
    return new FormatError(`manifest: ${this.path}.${key} ${problem}`);
  }

  /** Whether there is no such member, or it is null. */
  lacks(key: string): boolean {
    return (member(this.value, key) ?? null) === null;
  }

  /** A text of 1 to 4,096 characters; `fallback` where there is no such member. */
  text(key: string, fallback?: string): string {
    const text = Object.hasOwn(this.value, key) ? this.value[key] : fallback;
    if (typeof text !== "string") throw this.refuse(key, "must be str");
    if (text === "" || !isAtMost(text, MAX_TEXT)) {
      throw this.refuse(key, "is empty or too long");
    }
    return text;
  }

  /** A whole number. */
  integer(key: string): number | bigint {
    const value = member(this.value, key);
    if (typeof value !== "number" && typeof value !== "bigint") {
      throw this.refuse(key, "must be int");
    }
    return value;
  }

  /** A text digest. */
  digest(key: string): string {
    const text = this.text(key);
    if (!isDigest(text)) throw this.refuse(key, "must be a digest");
    return text;
  }

  /** A text digest, undefined where the object lacks it. */
  optionalDigest(key: string): string | undefined {
    return this.lacks(key) ? undefined : this.digest(key);
  }

  /** A time like 2026-01-31T00:00:00Z, in seconds since the epoch. */
  time(key: string): number {
    const match = TIME.exec(this.text(key));
    const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] =
      match?.slice(1).map(Number) ?? [];
    const moment = new Date(0);
    moment.setUTCFullYear(year, month - 1, day);
    moment.setUTCHours(hour, minute, second);
    const isTime =
      match !== null && year > 0 && moment.toISOString() === isoText(match[0]);
    if (!isTime) throw this.refuse(key, "must be like 2026-01-31T00:00:00Z");
    return moment.getTime() / 1000;
  }

  /** An object. */
  child(key: string): Reader {
    const value = member(this.value, key);
    if (!isObject(value)) throw this.refuse(key, "must be dict");
    return new Reader(value, `${this.path}.${key}`);
  }

  /** An object; an empty one where there is no such member. */
  childOrEmpty(key: string): Reader {
    return Object.hasOwn(this.value, key) ? this.child(key) : new Reader({}, key);
  }

  /** An object, undefined where the object lacks it. */
  optionalChild(key: string): Reader | undefined {
    return this.lacks(key) ? undefined : this.child(key);
  }

  /** A list of objects; empty where there is no such member. */
  children(key: string): Reader[] {
    const items = this.list(key);
    if (!items.every(isObject)) throw this.refuse(key, "must hold objects");
    return items.map((item, at) => new Reader(item, `${this.path}.${key}[${at}]`));
  }

  /** A list of texts; empty where there is no such member. */
  texts(key: string): string[] {
    const items = this.list(key);
    if (!items.every((item) => typeof item === "string")) {
      throw this.refuse(key, "must hold strings");
    }
    return items;
  }

  private list(key: string): Json[] {
    if (!Object.hasOwn(this.value, key)) return [];
    const items = this.value[key];
    if (!Array.isArray(items)) throw this.refuse(key, "must be list");
    return items;
  }
}

function isoText(text: string): string {
  return text.replace("Z", ".000Z");
}

/** The end of Python's calendar, the year 9999. */
const LAST_SECOND = 253_402_300_799;

/** A time in words; seconds that no calendar reaches stand as they are. */
export function moment(seconds: number): string {
  if (!(seconds >= -62_135_596_800 && seconds <= LAST_SECOND)) {
    return `second ${seconds}`;
  }
  return new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
}
