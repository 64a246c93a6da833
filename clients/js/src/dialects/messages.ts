/**
 * Anthropic's messages, as vLLM has them. Text blocks are the content, thinking blocks the
 * reasoning, tool_use blocks the tool calls, `stop_reason` the finish reason. The input of
 * a tool is hashed as the RFC 8785 form of the object; text that is no object, because
 * the answer was cut, as it is.
 */

import { utf8, utf8Text } from "../bytes.js";
import { FormatError } from "../errors.js";
import { type JsonObject, canonical, readObject } from "../json.js";
import { Renumbered, SingleAnswer, ToolCall } from "./answer.js";
import {
  type Budget,
  finishReason,
  itemsOf,
  joined,
  objectOf,
  once,
  position,
  textOf,
} from "./values.js";

const MAX_INPUT = 8 * 1024 * 1024;
const DELTAS: Readonly<Record<string, readonly ["content" | "reasoning", string]>> = {
  text_delta: ["content", "text"],
  thinking_delta: ["reasoning", "thinking"],
};

class ToolUse extends ToolCall {
  private readonly whole: JsonObject;

  constructor(budget: Budget, block: JsonObject) {
    super(budget);
    this.identify(block, block);
    this.whole = objectOf(block, "input");
  }

  override get arguments(): string {
    const text = joined(this.parts);
    if (text === "") return utf8Text(canonical(this.whole));
    let value: JsonObject;
    try {
      value = readObject(utf8(text), { maxBytes: MAX_INPUT });
    } catch (error) {
      if (error instanceof FormatError) return text;
      throw error;
    }
    return utf8Text(canonical(value));
  }
}

/** An answer of `/v1/messages`: one choice, index 0. */
export class MessagesAnswer extends SingleAnswer {
  protected readonly finished = new Set([
    "end_turn",
    "max_tokens",
    "model_context_window_exceeded",
    "refusal",
    "stop_sequence",
    "tool_use",
  ]);
  private opened: Renumbered | undefined;

  protected readEvent(kind: string, value: JsonObject): void {
    if (kind === "message_start") {
      this.start(objectOf(value, "message"));
    } else if (kind === "content_block_start") {
      this.block(position(value, "index"), objectOf(value, "content_block"));
    } else if (kind === "content_block_delta") {
      this.delta(position(value, "index"), objectOf(value, "delta"));
    } else if (kind === "message_delta") {
      this.open(value);
      this.stop(objectOf(value, "delta"));
    }
  }

  protected readBody(value: JsonObject): void {
    if (value["type"] !== "message") {
      throw new FormatError("answer: type must be message");
    }
    this.start(value);
  }

  private get message(): Renumbered {
    if (this.opened === undefined) {
      this.opened = new Renumbered(this.budget);
      this.choices.set(0, this.opened);
    }
    return this.opened;
  }

  private start(value: JsonObject): void {
    this.open(value);
    const message = this.message;
    message.role = once(message.role, value, "role");
    for (const [index, block] of itemsOf(value, "content").entries()) {
      this.block(index, block);
    }
    this.stop(value);
  }

  private stop(value: JsonObject): void {
    const message = this.message;
    message.finishReason = finishReason(message.finishReason, value, "stop_reason");
  }

  private block(index: number, block: JsonObject): void {
    const [message, kind] = [this.message, textOf(block, "type")];
    if (kind === "text") {
      message.add("content", textOf(block, "text"), [index]);
    } else if (kind === "thinking") {
      message.add("reasoning", textOf(block, "thinking"), [index]);
    } else if (kind === "tool_use" && !message.toolCalls.has(index)) {
      message.toolCalls.set(index, new ToolUse(this.budget, block));
    } else {
      message.isOpaque = true;
    }
  }

  private delta(index: number, delta: JsonObject): void {
    const [message, kind] = [this.message, textOf(delta, "type")];
    const row = Object.hasOwn(DELTAS, kind) ? DELTAS[kind] : undefined;
    if (row !== undefined) {
      message.add(row[0], textOf(delta, row[1]), [index]);
    } else if (kind === "input_json_delta") {
      const call = message.toolCalls.get(index);
      if (call === undefined) {
        throw new FormatError("answer: input for a tool that was not called");
      }
      call.add(textOf(delta, "partial_json"));
    } else if (kind !== "signature_delta") {
      message.isOpaque = true;
    }
  }
}
