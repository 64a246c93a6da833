/** Members of an answer, read strictly; absent and null are one value. */

import { hasLoneSurrogate, isAtMost } from "../bytes.js";
import { FormatError } from "../errors.js";
import { type Json, JsonFloat, type JsonObject, isObject, member } from "../json.js";

/** Tool calls of one choice, blocks of one message, items of one response or item. */
export const MAX_PARTS = 128;
const MAX_NAME = 256;
const FINISH_REASON = /^[ -~]{1,64}$/;

/** How much text (UTF-16 units) the choices of one answer may still hold. */
export class Budget {
  constructor(private left: number) {}

  /** Spend some. Throws FormatError: the answer holds more text than allowed. */
  take(units: number): void {
    this.left -= units;
    if (this.left < 0) {
      throw new FormatError("answer: more text than is kept for one answer");
    }
  }
}

/** Tokens as the engine counted them, undefined where it did not say. */
export interface Usage {
  readonly inputTokens: number | undefined;
  readonly outputTokens: number | undefined;
}

/** Whether a value is neither empty, zero, false nor null. */
export function isTruthy(value: Json | undefined): boolean {
  if (value instanceof JsonFloat) return value.value !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (isObject(value)) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** A member that is a string; absent and null count as empty. Throws FormatError. */
export function textOf(item: JsonObject, name: string): string {
  const value = member(item, name) ?? "";
  if (typeof value !== "string") {
    throw new FormatError(`answer: ${name} must be a string or null`);
  }
  return value;
}

/** A member that is an object; absent and null count as empty. Throws FormatError. */
export function objectOf(item: JsonObject, name: string): JsonObject {
  const value = member(item, name) ?? {};
  if (!isObject(value)) {
    throw new FormatError(`answer: ${name} must be an object or null`);
  }
  return value;
}

/** A member that is a list of objects. Throws FormatError, also where it is absent. */
export function itemsOf(item: JsonObject, name: string): JsonObject[] {
  const value = member(item, name);
  if (!Array.isArray(value) || !value.every(isObject)) {
    throw new FormatError(`answer: ${name} must be a list of objects`);
  }
  return value;
}

/**
 * A number that says to which part of an answer something belongs. Throws FormatError: it
 * is no integer below `limit`; a guess would mix two parts.
 */
export function place(value: Json | undefined, limit: number, what: string): number {
  if (typeof value !== "number" || value < 0 || value >= limit) {
    throw new FormatError(`answer: ${what}`);
  }
  return value;
}

/** A member that is a place among `MAX_PARTS`. Throws FormatError. */
export function position(item: JsonObject, name: string): number {
  const what = `${name} must be a number below ${MAX_PARTS}`;
  return place(member(item, name), MAX_PARTS, what);
}

/**
 * A value that comes whole and may be repeated, but not changed. Throws FormatError: it
 * changes, or is no string.
 */
export function once(
  current: string | null,
  item: JsonObject,
  name: string,
): string | null {
  const value = textOf(item, name);
  if (value === "" || value === current) return current;
  if (current !== null) {
    throw new FormatError(`answer: ${name} changes within one answer`);
  }
  return value;
}

/**
 * Why a choice ended; comes once. Throws FormatError: it is not a short ASCII word, or
 * changes.
 */
export function finishReason(
  current: string | null,
  item: JsonObject,
  name = "finish_reason",
): string | null {
  const reason = once(current, item, name);
  if (reason !== null && !FINISH_REASON.test(reason)) {
    throw new FormatError(`answer: ${name} is not a short ASCII word`);
  }
  return reason;
}

/**
 * The text of some parts. JSON strings are UTF-16 code units (RFC 8259 §7), so a part may
 * end between the halves of a character.
 *
 * Throws FormatError: it holds a lone surrogate, which UTF-8 cannot carry.
 */
export function joined(parts: readonly string[]): string {
  const text = parts.join("");
  if (hasLoneSurrogate(text)) {
    throw new FormatError("answer: a text holds a lone surrogate");
  }
  return text;
}

/** A name of 1 to 256 characters, undefined where the value is none. */
export function nameOf(value: Json | undefined): string | undefined {
  const isName =
    typeof value === "string" &&
    value !== "" &&
    isAtMost(value, MAX_NAME) &&
    !hasLoneSurrogate(value);
  return isName ? value : undefined;
}

/** A count of tokens, undefined where the value is none. */
export function countOf(value: Json | undefined): number | undefined {
  return typeof value === "number" && value >= 0 ? value : undefined;
}
