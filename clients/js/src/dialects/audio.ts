/**
 * Transcriptions and translations of speech, as vLLM has them. The output of either form
 * is {index, text}. A body gives no reason why it ended. A stream gives one for each part
 * of a long recording, so that none of them proves its end; only `[DONE]` does.
 */

import { FormatError } from "../errors.js";
import { type JsonObject, member } from "../json.js";
import { Answer, type Choice } from "./answer.js";
import {
  type Budget,
  finishReason,
  itemsOf,
  joined,
  objectOf,
  textOf,
} from "./values.js";

class Speech implements Choice {
  finishReason: string | null = null;
  private readonly parts: string[] = [];

  constructor(private readonly budget: Budget) {}

  add(text: string): void {
    this.budget.take(text.length);
    this.parts.push(text);
  }

  output(index: number): JsonObject {
    return { index, text: joined(this.parts) };
  }
}

/** An answer of `/v1/audio/transcriptions` and `/v1/audio/translations`. */
export class AudioAnswer extends Answer {
  protected readonly finished = new Set<string | null>(["stop", "length"]);
  protected override readonly counts = ["prompt_tokens", "completion_tokens"] as const;
  override readonly reasonsEnd = false;
  private isBody = false;
  private opened: Speech | undefined;

  event(value: JsonObject): void {
    this.open(value);
    for (const item of itemsOf(value, "choices")) {
      const speech = this.speech;
      speech.add(textOf(objectOf(item, "delta"), "content"));
      const reason = finishReason(null, item);
      // One part that did not end well leaves the whole unfinished.
      if (speech.finishReason === null || this.finished.has(speech.finishReason)) {
        speech.finishReason = reason ?? speech.finishReason;
      }
    }
  }

  body(value: JsonObject): void {
    this.open(value);
    const text = member(value, "text");
    if (typeof text !== "string")
      throw new FormatError("answer: text must be a string");
    this.speech.add(text);
    this.isBody = true;
  }

  override hasEnded(expected: number): boolean {
    return this.isBody || super.hasEnded(expected);
  }

  override get isWhole(): boolean {
    return this.isBody || super.isWhole;
  }

  private get speech(): Speech {
    if (this.opened === undefined) {
      this.opened = new Speech(this.budget);
      this.choices.set(0, this.opened);
    }
    return this.opened;
  }
}
