/**
 * Chat completions and completions, as vLLM and OpenAI have them. The two share the
 * envelope `{id, model, choices[], usage}` and differ in what one choice holds.
 */

import { FormatError } from "../errors.js";
import { type Json, type JsonObject, isObject, member } from "../json.js";
import { Answer, type Choice, MAX_CHOICES, Message, ToolCall } from "./answer.js";
import {
  type Budget,
  MAX_PARTS,
  finishReason,
  isTruthy,
  joined,
  objectOf,
  once,
  place,
  textOf,
} from "./values.js";

interface MergedChoice extends Choice {
  /**
   * Take in one member of `choices`: a part of a stream, or the whole of a body. Throws
   * FormatError: a member has the wrong type or contradicts an earlier one.
   */
  merge(item: JsonObject, isStreamed: boolean): void;
}

abstract class ChoicesAnswer extends Answer {
  // vLLM's others are abort, error and repetition; one that is unknown here proves
  // nothing either.
  protected readonly finished = new Set([
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "content_filter",
  ]);
  protected override readonly counts = ["prompt_tokens", "completion_tokens"] as const;
  private readonly merged = new Map<number, MergedChoice>();

  protected abstract newChoice(): MergedChoice;

  event(value: JsonObject): void {
    this.read(value, true);
  }

  body(value: JsonObject): void {
    this.read(value, false);
  }

  private read(value: JsonObject, isStreamed: boolean): void {
    this.open(value);
    const members = member(value, "choices");
    if (!Array.isArray(members))
      throw new FormatError("answer: choices must be a list");
    for (const item of members) {
      const what = "a choice without a usable index";
      if (!isObject(item)) throw new FormatError(`answer: ${what}`);
      this.merge(place(member(item, "index"), MAX_CHOICES, what), item, isStreamed);
    }
  }

  private merge(index: number, item: JsonObject, isStreamed: boolean): void {
    let choice = this.merged.get(index);
    if (choice !== undefined && !isStreamed) {
      this.broken.add(index);
      throw new FormatError("answer: two choices with the same index");
    }
    if (choice === undefined) {
      choice = this.newChoice();
      this.merged.set(index, choice);
      this.choices.set(index, choice);
    }
    try {
      choice.merge(item, isStreamed);
    } catch (error) {
      if (error instanceof FormatError) this.broken.add(index);
      throw error;
    }
  }
}

class ChatChoice extends Message implements MergedChoice {
  merge(item: JsonObject, isStreamed: boolean): void {
    const part = objectOf(item, isStreamed ? "delta" : "message");
    this.role = once(this.role, part, "role");
    this.add("content", textOf(part, "content"));
    this.add("refusal", textOf(part, "refusal"));
    // Older engines say reasoning_content; some say both, with the same text.
    this.add(
      "reasoning",
      textOf(part, "reasoning") || textOf(part, "reasoning_content"),
    );
    const calls = member(part, "tool_calls");
    if (isTruthy(calls)) this.mergeCalls(calls, isStreamed);
    this.finishReason = finishReason(this.finishReason, item);
  }

  private mergeCalls(calls: Json | undefined, isStreamed: boolean): void {
    if (!Array.isArray(calls)) {
      throw new FormatError("answer: tool_calls must be a list");
    }
    for (const [number, call] of calls.entries()) {
      if (!isObject(call)) {
        throw new FormatError("answer: a tool call must be an object");
      }
      // A body lists whole calls in order; in a stream only the index tells which call a
      // part belongs to, and a guess would mix the arguments of two calls.
      const index = isStreamed ? member(call, "index") : number;
      const what = "a tool call without a usable index";
      this.mergeCall(place(index, MAX_PARTS, what), call);
    }
  }

  private mergeCall(index: number, call: JsonObject): void {
    if (!["", "function"].includes(textOf(call, "type"))) {
      throw new FormatError("answer: a tool call that is not a function call");
    }
    const known = this.toolCalls.get(index) ?? new ToolCall(this.budget);
    this.toolCalls.set(index, known);
    const called = objectOf(call, "function");
    known.identify(call, called);
    known.add(textOf(called, "arguments"));
  }
}

/** An answer of `/v1/chat/completions`. */
export class ChatAnswer extends ChoicesAnswer {
  protected newChoice(): MergedChoice {
    return new ChatChoice(this.budget);
  }
}

class CompletionChoice implements MergedChoice {
  finishReason: string | null = null;
  private readonly parts: string[] = [];

  constructor(private readonly budget: Budget) {}

  merge(item: JsonObject): void {
    const part = textOf(item, "text");
    this.budget.take(part.length);
    this.parts.push(part);
    this.finishReason = finishReason(this.finishReason, item);
  }

  output(index: number): JsonObject {
    return { index, text: joined(this.parts), finish_reason: this.finishReason };
  }
}

/** An answer of `/v1/completions`. */
export class CompletionAnswer extends ChoicesAnswer {
  protected newChoice(): MergedChoice {
    return new CompletionChoice(this.budget);
  }
}
