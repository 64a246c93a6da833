/**
 * Answers that hold no text of the model: embeddings, scores, ranks and classes. They
 * have no output object, so the digest of the raw bytes alone covers them. A whole answer
 * is one JSON object with the list that its dialect has.
 */

import { FormatError } from "../errors.js";
import { type JsonObject, member } from "../json.js";
import { Answer } from "./answer.js";
import type { Budget } from "./values.js";

/** An answer without choices; never a stream. */
export class PlainAnswer extends Answer {
  protected readonly finished = new Set<string>();
  protected override readonly counts = ["prompt_tokens", "completion_tokens"] as const;

  constructor(
    budget: Budget,
    private readonly list: string,
  ) {
    super(budget);
  }

  event(): void {
    throw new FormatError("answer: a stream, where a body was expected");
  }

  body(value: JsonObject): void {
    this.open(value);
    if (!Array.isArray(member(value, this.list))) {
      throw new FormatError(`answer: ${this.list} must be a list`);
    }
  }
}
