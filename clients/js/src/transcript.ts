/**
 * What an answer says, whether it came as one body or as a stream.
 *
 * `Transcript` reads either form and gives, for each choice, the same small object. Its
 * digest is what a token commits to, so that somebody who only kept the text can still
 * prove it. For content, refusal and reasoning, an absent member, null and the empty
 * string are one value, null.
 */

import type { Bytes } from "./bytes.js";
import type { Outcome } from "./claims.js";
import { type Dialect, SHAPES, type Shape, endsStream } from "./dialects/index.js";
import type { Answer } from "./dialects/answer.js";
import { Budget, type Usage, isTruthy } from "./dialects/values.js";
import { digest } from "./digests.js";
import { FormatError } from "./errors.js";
import { type JsonObject, canonical, member, readObject } from "./json.js";
import { EventSplitter, MAX_EVENT, type ServerEvent, asciiView, lines } from "./sse.js";

export const MAX_BODY = 64 * 1024 * 1024;
const MAX_TEXT = 64 * 1024 * 1024;

/**
 * Gathers one answer: `feedEvent` for each event and `end`, or `feedBody` once.
 *
 * Nothing here throws for bad input: an answer that breaks the rules of its dialect is a
 * fact about the answer. After that what could be read stays readable.
 */
export class Transcript {
  /** The stream's last event came. It alone never means complete. */
  terminalSeen = false;
  /**
   * Something is not JSON, has the wrong type, contradicts itself, comes after the
   * terminal event, or is beyond a bound.
   */
  malformed = false;
  private readonly shape: Shape;
  private readonly answer: Answer;
  private isStreamed = false;
  private isFed = false;
  private isCut = false;
  private hasError = false;

  constructor(
    dialect: Dialect,
    private readonly expected = 1,
  ) {
    this.shape = SHAPES[dialect];
    this.answer = this.shape.answer(new Budget(MAX_TEXT));
  }

  /** The transcript of a whole stream. */
  static ofStream(body: Bytes, dialect: Dialect, expected?: number): Transcript {
    const transcript = new Transcript(dialect, expected);
    const splitter = new EventSplitter();
    try {
      for (const event of splitter.feed(body)) transcript.feedEvent(event);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      transcript.malformed = true;
    }
    transcript.end(splitter.flush());
    return transcript;
  }

  /** The transcript of a whole JSON body. */
  static ofBody(body: Bytes, dialect: Dialect, expected?: number): Transcript {
    const transcript = new Transcript(dialect, expected);
    transcript.feedBody(body);
    return transcript;
  }

  /** Take in the next event of a stream; comments count for nothing. */
  feedEvent(event: ServerEvent): void {
    this.isStreamed = true;
    const data = event.data;
    if (data === undefined) return;
    this.isFed = true;
    if (this.terminalSeen) {
      this.malformed = true;
      return;
    }
    this.terminalSeen = endsStream(this.shape, event);
    if (!asciiView(data.subarray(0, 6)).startsWith("[DONE]")) {
      this.read(data, MAX_EVENT, (value) => {
        this.answer.event(value);
      });
    }
  }

  /** Take in a whole JSON body, at most 64 MiB. */
  feedBody(body: Bytes): void {
    this.isFed = true;
    this.read(body, MAX_BODY, (value) => {
      this.answer.body(value);
    });
  }

  /** The stream is over; `rest` is what its splitter still held. */
  end(rest: Bytes): void {
    this.isStreamed = true;
    this.isCut = lines(rest).some((line) => asciiView(line).startsWith("data"));
  }

  /** `id` of the answer, undefined if absent or over 256 characters. */
  get responseId(): string | undefined {
    return this.answer.responseId;
  }

  /** `model` of the answer, likewise. */
  get responseModel(): string | undefined {
    return this.answer.responseModel;
  }

  /** The token counts that were seen last. */
  get usage(): Usage {
    return this.answer.usage;
  }

  /** Whether the answer is or holds an error object. */
  get errorSeen(): boolean {
    return this.hasError || this.answer.failed;
  }

  /** Choices that were seen, also unattestable ones. */
  get choiceCount(): number {
    return this.answer.choices.size;
  }

  /** Finish reason of each choice, sorted by its index. */
  get finishReasons(): (string | null)[] {
    return this.answer.finishReasons;
  }

  /** Whether this is a stream whose last event did not come. */
  get terminatorMissing(): boolean {
    return this.isStreamed && !this.terminalSeen;
  }

  /**
   * The object to hash for each choice, by index. `attest/transcript.py` says what
   * stands in it. What RFC 8785 cannot write is left out, never replaced.
   */
  outputs(): Map<number, JsonObject> {
    const outputs = new Map<number, JsonObject>();
    for (const [index, choice] of this.answer.sorted) {
      if (this.answer.broken.has(index)) continue;
      try {
        outputs.set(index, choice.output(index));
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
      }
    }
    return outputs;
  }

  /**
   * How the answer ended, as far as its own bytes tell. The caller knows more: a client
   * that left, a status of 400 and above, a connection that broke.
   */
  outcome(): Outcome {
    if (this.errorSeen) return "upstream_error";
    if (this.malformed || !(this.isFed || this.isCut)) return "upstream_malformed";
    const ended = this.answer.hasEnded(this.expected);
    if (this.isCut || (this.terminatorMissing && !(ended && this.answer.reasonsEnd))) {
      return "truncated";
    }
    return ended && this.answer.isWhole ? "complete" : "incomplete";
  }

  private read(data: Bytes, maxBytes: number, take: (value: JsonObject) => void): void {
    try {
      const value = readObject(data, { maxBytes });
      if (isError(value)) this.hasError = true;
      else take(value);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      this.malformed = true;
    }
  }
}

/** The second form is that of older engines, the third that of typed events. */
function isError(value: JsonObject): boolean {
  return (
    isTruthy(member(value, "error")) ||
    value["object"] === "error" ||
    value["type"] === "error"
  );
}

/** Digest of the RFC 8785 form of one object of `Transcript.outputs`. */
export function outputDigest(output: JsonObject): Promise<string> {
  return digest(canonical(output));
}
