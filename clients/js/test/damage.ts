/** Damage by chance, the same for the same seed. */

import type { Bytes } from "../src/bytes.js";

const ODD_TEXTS = ["\\ud800", "\\u0000", "é", "\u2028", "__proto__", "toJSON", ""];
const ODD_VALUES = [
  "null",
  "true",
  "0",
  "-1",
  "1.0",
  "1e3",
  "9007199254740993",
  '""',
  '"x"',
  "[]",
  "{}",
  "[[]]",
  '{"a":1}',
];

export class Damage {
  private state: number;

  constructor(seed: number) {
    this.state = seed;
  }

  /** A number from 0 to below `limit` (mulberry32). */
  below(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  pick<T>(items: readonly T[]): T {
    const found = items[this.below(items.length)];
    if (found === undefined) throw new Error("nothing to pick from");
    return found;
  }

  /** A few bytes changed, lost, put in, or the end cut off. */
  bytes(body: Bytes): Bytes {
    const at = this.below(body.length + 1);
    const [head, tail] = [body.slice(0, at), body.slice(at)];
    const put = (...more: number[]) => Uint8Array.from([...head, ...more, ...tail]);
    switch (this.below(6)) {
      case 0:
        return head;
      case 1:
        return Uint8Array.from([...head, ...tail.slice(1 + this.below(8))]);
      case 2:
        return put(this.below(256));
      case 3:
        return put(...new TextEncoder().encode(this.pick(ODD_VALUES)));
      case 4:
        return put(0x0a, 0x0a);
      default: {
        const changed = body.slice();
        if (at < changed.length) changed[at] = this.below(256);
        return changed;
      }
    }
  }

  /** JSON text with a value, a key or some characters changed. */
  json(text: string): string {
    const values = [...text.matchAll(/"(?:[^"\\]|\\.)*"|-?[0-9][0-9.e+-]*|true|null/g)];
    if (values.length > 0 && this.below(4) > 0) {
      const found = this.pick(values);
      const end = found.index + found[0].length;
      const isText = found[0].startsWith('"') && this.below(2) > 0;
      const odd = isText ? `"${this.pick(ODD_TEXTS)}"` : this.pick(ODD_VALUES);
      return text.slice(0, found.index) + odd + text.slice(end);
    }
    const at = this.below(text.length + 1);
    return (
      text.slice(0, at) +
      this.pick(["", ",", "}", "]", '"', "\\", " ", "1"]) +
      text.slice(at + this.below(3))
    );
  }

  /** A bundle in which one member is damaged, lost, repeated or of another kind. */
  bundle(text: string): string {
    if (this.below(10) === 0) return this.json(text);
    const value = JSON.parse(text) as Record<string, unknown>;
    const name = this.pick(Object.keys(value));
    if (this.below(12) === 0) {
      value[name] = JSON.parse(this.pick(ODD_VALUES));
      return JSON.stringify(value);
    }
    value[name] = this.member(name, value[name]);
    return JSON.stringify(value);
  }

  private member(name: string, value: unknown): unknown {
    if (name === "request" || name === "response") {
      const body = new Uint8Array(Buffer.from(String(value), "base64"));
      return Buffer.from(this.content(body)).toString("base64");
    }
    if (name === "token" || name === "bootRecord") return this.token(String(value));
    if (Array.isArray(value)) {
      const items = value as unknown[];
      const at = this.below(items.length);
      const changed = this.below(4) === 0 ? [] : [this.token(String(items[at]))];
      return [...items.slice(0, at), ...changed, ...items.slice(at + 1)];
    }
    const text = JSON.stringify(value);
    try {
      return JSON.parse(this.json(text)) as unknown;
    } catch {
      return undefined;
    }
  }

  /** A body changed as programs change it, or by chance. */
  private content(body: Bytes): Uint8Array {
    const text = Buffer.from(body).toString();
    switch (this.below(8)) {
      case 0:
        return Buffer.from(`${text}\n`);
      case 1:
        return Buffer.from(text.replaceAll("\n", "\r\n"));
      case 2:
        return Buffer.from(text.replaceAll(",", ", ").replaceAll(":", ": "));
      case 3:
        return Buffer.from(this.json(text));
      case 4:
        return Buffer.from(text.replaceAll(" ", ""));
      case 5:
        return Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), body]);
      default:
        return this.bytes(body);
    }
  }

  /** A token in which a part is changed in its JSON, its text, or as a whole. */
  private token(text: string): string {
    const parts = text.split(/(?<=[.~])/);
    const at = this.below(parts.length);
    const part = parts[at] ?? "";
    const [encoded = "", end = ""] = part.split(/([.~]$)/);
    const decoded = Buffer.from(encoded, "base64url").toString();
    const damaged =
      this.below(2) === 0
        ? Buffer.from(this.json(decoded)).toString("base64url")
        : this.json(encoded);
    const changed = this.below(8) === 0 ? "" : damaged + end;
    return [...parts.slice(0, at), changed, ...parts.slice(at + 1)].join("");
  }

  /** A stream with other line ends here and there, and perhaps a byte order mark. */
  lineEnds(body: Bytes): Bytes {
    const ends = [[0x0a], [0x0d], [0x0d, 0x0a], [0x0a, 0x0d], []];
    const changed = [...body].flatMap((byte) =>
      byte === 0x0a && this.below(3) === 0 ? this.pick(ends) : [byte],
    );
    const mark = this.below(4) === 0 ? [0xef, 0xbb, 0xbf] : [];
    return Uint8Array.from([...mark, ...changed]);
  }

  /** The same bytes in pieces, now and then as many events as an engine writes at once. */
  chunks(body: Bytes): Bytes[] {
    const chunks: Bytes[] = [];
    const isWhole = this.below(3) === 0;
    for (let at = 0; at < body.length;) {
      let end = at + 1 + this.below(this.below(2) === 0 ? 4 : 200);
      const isEnd = (place: number) =>
        body[place - 1] === 0x0a && body[place - 2] === 0x0a;
      while (isWhole && end < body.length && !isEnd(end)) end += 1;
      chunks.push(body.slice(at, end));
      at = end;
    }
    return chunks;
  }
}
