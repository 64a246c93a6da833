/**
 * OpenAI's responses, as vLLM has them. The output is that of a chat: the text of all
 * messages is its content, refusals and the text of reasoning items likewise, function
 * calls are its tool calls under their `call_id`, and the finish reason is
 * `incomplete_details.reason`, or else `status`.
 *
 * A stream says everything twice: in parts, and as a whole in its last event. Both must
 * say the same, else the answer is malformed: people read the parts, programs the whole.
 */

import { bytesEqual } from "../bytes.js";
import { FormatError } from "../errors.js";
import { type JsonObject, canonical, member } from "../json.js";
import { MAX_EVENT } from "../sse.js";
import { Renumbered, SingleAnswer, ToolCall } from "./answer.js";
import {
  Budget,
  finishReason,
  isTruthy,
  itemsOf,
  objectOf,
  once,
  position,
  textOf,
} from "./values.js";

export const TERMINAL = [
  "response.completed",
  "response.failed",
  "response.incomplete",
] as const;

type TextName = "content" | "refusal" | "reasoning";
const PARTS: Readonly<Record<string, readonly [TextName, string]>> = {
  output_text: ["content", "text"],
  refusal: ["refusal", "refusal"],
  reasoning_text: ["reasoning", "text"],
};
const DELTAS: Readonly<Record<string, TextName>> = {
  "response.output_text.delta": "content",
  "response.refusal.delta": "refusal",
  "response.reasoning_text.delta": "reasoning",
};

/** The output items of one response. */
class Response extends Renumbered {
  item(index: number, item: JsonObject): void {
    const kind = textOf(item, "type");
    if (kind === "function_call") this.call(index, item);
    else if (kind === "message") this.role = once(this.role, item, "role");
    else if (kind !== "reasoning") this.isOpaque = true;
  }

  wholeItem(index: number, item: JsonObject): void {
    this.item(index, item);
    // A reasoning item may have no content: null.
    const content = member(item, "content") ?? null;
    if (member(item, "type") === "function_call" || content === null) return;
    for (const [number, part] of itemsOf(item, "content").entries()) {
      this.part([index, number], part);
    }
  }

  part(at: readonly [number, number], part: JsonObject): void {
    const kind = textOf(part, "type");
    const row = Object.hasOwn(PARTS, kind) ? PARTS[kind] : undefined;
    if (row === undefined) this.isOpaque = true;
    else this.add(row[0], textOf(part, row[1]), at);
  }

  arguments(index: number, part: string): void {
    const call = this.toolCalls.get(index);
    if (call === undefined) {
      throw new FormatError("answer: arguments for a function that was not called");
    }
    call.add(part);
  }

  private call(index: number, item: JsonObject): void {
    if (this.toolCalls.has(index)) {
      throw new FormatError("answer: two calls at one place");
    }
    const call = new ToolCall(this.budget);
    this.toolCalls.set(index, call);
    call.identify(item, item, "call_id");
    call.add(textOf(item, "arguments"));
  }
}

/** An answer of `/v1/responses`: one choice, index 0. */
export class ResponsesAnswer extends SingleAnswer {
  // vLLM says completed after an abort too, so here that word proves less than a finish
  // reason does in the other dialects.
  protected readonly finished = new Set([
    "completed",
    "content_filter",
    "max_output_tokens",
  ]);
  private opened: Response | undefined;

  protected readEvent(kind: string, value: JsonObject): void {
    const response = this.response;
    const delta = Object.hasOwn(DELTAS, kind) ? DELTAS[kind] : undefined;
    if ((TERMINAL as readonly string[]).includes(kind)) {
      this.end(response, objectOf(value, "response"));
    } else if (delta !== undefined) {
      const at = [position(value, "output_index"), position(value, "content_index")];
      response.add(delta, textOf(value, "delta"), at);
    } else if (kind === "response.content_part.added") {
      const output = position(value, "output_index");
      const at = [output, position(value, "content_index")] as const;
      response.part(at, objectOf(value, "part"));
    } else if (kind === "response.output_item.added") {
      response.item(position(value, "output_index"), objectOf(value, "item"));
    } else if (kind === "response.function_call_arguments.delta") {
      const part = textOf(value, "delta");
      response.arguments(position(value, "output_index"), part);
    } else if (Object.hasOwn(value, "response")) {
      this.open(objectOf(value, "response"));
    }
  }

  protected readBody(value: JsonObject): void {
    if (value["object"] !== "response") {
      throw new FormatError("answer: object must be response");
    }
    this.read(this.response, value);
  }

  private get response(): Response {
    if (this.opened === undefined) this.become(new Response(this.budget));
    return this.opened as unknown as Response;
  }

  private become(response: Response): void {
    this.opened = response;
    this.choices.set(0, response);
  }

  private read(response: Response, value: JsonObject): void {
    this.open(value);
    for (const [index, item] of itemsOf(value, "output").entries()) {
      response.wholeItem(index, item);
    }
    const details = objectOf(value, "incomplete_details");
    const reason = finishReason(null, details, "reason");
    response.finishReason = reason ?? finishReason(null, value, "status");
    this.failed = isTruthy(member(value, "error")) || value["status"] === "failed";
  }

  private end(streamed: Response, value: JsonObject): void {
    const whole = new Response(new Budget(MAX_EVENT));
    this.become(whole);
    this.read(whole, value);
    if (streamed.isEmpty || streamed.isOpaque || whole.isOpaque) return;
    streamed.finishReason = whole.finishReason;
    if (!bytesEqual(canonical(streamed.output(0)), canonical(whole.output(0)))) {
      throw new FormatError("answer: the last event contradicts the parts before it");
    }
  }
}
