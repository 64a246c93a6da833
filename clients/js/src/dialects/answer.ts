/** What the readers of all dialects have in common. */

import { FormatError } from "../errors.js";
import { type JsonObject, isObject, member } from "../json.js";
import {
  type Budget,
  type Usage,
  countOf,
  joined,
  nameOf,
  once,
  textOf,
} from "./values.js";

export const MAX_CHOICES = 128;

/** One choice of an answer while it is gathered. */
export interface Choice {
  finishReason: string | null;

  /**
   * The object that is hashed for this choice. Throws FormatError: it holds what such an
   * object cannot show.
   */
  output(index: number): JsonObject;
}

/** One call of a function, and the exact text of its arguments. */
export class ToolCall {
  private id: string | null = null;
  private name: string | null = null;
  protected readonly parts: string[] = [];

  constructor(private readonly budget: Budget) {}

  /**
   * Note the call's id and the function's name where these members hold them. Throws
   * FormatError: one changes, or is no string.
   */
  identify(item: JsonObject, named: JsonObject, id = "id"): void {
    this.id = once(this.id, item, id);
    this.name = once(this.name, named, "name");
  }

  /** Take in the next part of the arguments. Throws FormatError: too much text. */
  add(part: string): void {
    if (part === "") return;
    this.budget.take(part.length);
    this.parts.push(part);
  }

  /** The arguments as they are hashed. Throws FormatError: a lone surrogate. */
  get arguments(): string {
    return joined(this.parts);
  }

  /** The object in `tool_calls`; throws as `arguments`. */
  output(index: number): JsonObject {
    return {
      index,
      id: this.id,
      type: "function",
      name: this.name,
      arguments: this.arguments,
    };
  }
}

/** Where a part belongs; parts are put together in the order of their places. */
export type Place = readonly number[];

function comparePlaces(left: Place, right: Place): number {
  for (const [at, number] of left.entries()) {
    const difference = number - (right[at] ?? -1);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

type TextName = "content" | "refusal" | "reasoning";

/**
 * Text, refusal, reasoning and tool calls of one choice. Parts of one place are put
 * together as they came.
 */
export class Message implements Choice {
  finishReason: string | null = null;
  role: string | null = null;
  /** It holds something besides these four; it then has no output. */
  isOpaque = false;
  readonly toolCalls = new Map<number, ToolCall>();
  private readonly texts = new Map<string, Map<string, [Place, string[]]>>();

  constructor(readonly budget: Budget) {}

  /** Take in a part. Throws FormatError: too much text. */
  add(name: TextName, text: string, at: Place = []): void {
    if (text === "") return;
    this.budget.take(text.length);
    const places = this.texts.get(name) ?? new Map<string, [Place, string[]]>();
    const [, parts] = places.get(at.join()) ?? [at, []];
    parts.push(text);
    places.set(at.join(), [at, parts]);
    this.texts.set(name, places);
  }

  /** Whether nothing was said yet. */
  get isEmpty(): boolean {
    return this.texts.size === 0 && this.toolCalls.size === 0 && !this.isOpaque;
  }

  output(index: number): JsonObject {
    if (this.isOpaque) {
      throw new FormatError("answer: a part of a kind that is not read here");
    }
    return {
      index,
      role: this.role ?? "assistant",
      content: this.text("content"),
      refusal: this.text("refusal"),
      reasoning: this.text("reasoning"),
      tool_calls: this.numberedCalls().map(([number, call]) => call.output(number)),
      finish_reason: this.finishReason,
    };
  }

  private text(name: TextName): string | null {
    const places = [...(this.texts.get(name)?.values() ?? [])];
    places.sort(([left], [right]) => comparePlaces(left, right));
    return joined(places.flatMap(([, parts]) => parts)) || null;
  }

  protected numberedCalls(): [number, ToolCall][] {
    return [...this.toolCalls].sort(([left], [right]) => left - right);
  }
}

/** A message whose calls are numbered in order, whatever places they stand at. */
export class Renumbered extends Message {
  protected override numberedCalls(): [number, ToolCall][] {
    return super.numberedCalls().map(([, call], number) => [number, call]);
  }
}

/** One answer of a dialect: `event` for each event of a stream, or `body` once. */
export abstract class Answer {
  /** What was gathered, by index. */
  readonly choices = new Map<number, Choice>();
  /** Indexes of choices that contradict themselves or have wrong types. */
  readonly broken = new Set<number>();
  /** The answer says itself that it failed. */
  failed = false;
  responseId: string | undefined;
  responseModel: string | undefined;
  usage: Usage = { inputTokens: undefined, outputTokens: undefined };

  /** Reasons by which an engine says that an answer is whole. */
  protected abstract readonly finished: ReadonlySet<string | null>;
  /** What the dialect calls the two token counts. */
  protected readonly counts: readonly [string, string] = [
    "input_tokens",
    "output_tokens",
  ];
  /** Whether reasons for all choices mean that a stream is at its end. */
  readonly reasonsEnd: boolean = true;

  constructor(protected readonly budget: Budget) {}

  /** Throws FormatError: it has a wrong type, or contradicts an earlier one. */
  abstract event(value: JsonObject): void;

  /** Throws as `event`. */
  abstract body(value: JsonObject): void;

  /** The choices, sorted by index. */
  get sorted(): [number, Choice][] {
    return [...this.choices].sort(([left], [right]) => left - right);
  }

  /** Finish reason of each choice, sorted by its index. */
  get finishReasons(): (string | null)[] {
    return this.sorted.map(([, choice]) => choice.finishReason);
  }

  /** Whether so many choices gave a reason why they ended. */
  hasEnded(expected: number): boolean {
    const reasons = this.finishReasons;
    return reasons.length >= expected && !reasons.includes(null);
  }

  /** Whether all reasons are those of a whole answer. */
  get isWhole(): boolean {
    return this.finishReasons.every((reason) => this.finished.has(reason));
  }

  /** Read what stands around the choices. */
  protected open(value: JsonObject): void {
    this.responseId ??= nameOf(member(value, "id"));
    this.responseModel ??= nameOf(member(value, "model"));
    const usage = member(value, "usage");
    if (isObject(usage)) {
      const [input, output] = this.counts;
      this.usage = {
        inputTokens: countOf(member(usage, input)),
        outputTokens: countOf(member(usage, output)),
      };
    }
  }
}

/** An answer of a dialect whose events have a `type` and whose one choice is 0. */
export abstract class SingleAnswer extends Answer {
  /**
   * Take in an event; new kinds may come at any time, and are passed over. Throws
   * FormatError: it has no type, a wrong type, or contradicts an earlier one.
   */
  event(value: JsonObject): void {
    const kind = textOf(value, "type");
    if (kind === "") throw new FormatError("answer: an event without a type");
    this.guard(() => {
      this.readEvent(kind, value);
    });
  }

  body(value: JsonObject): void {
    this.guard(() => {
      this.readBody(value);
    });
  }

  protected abstract readEvent(kind: string, value: JsonObject): void;
  protected abstract readBody(value: JsonObject): void;

  private guard(read: () => void): void {
    try {
      read();
    } catch (error) {
      if (error instanceof FormatError) this.broken.add(0);
      throw error;
    }
  }
}
