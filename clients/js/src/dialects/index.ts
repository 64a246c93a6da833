/** What differs between the API dialects: one row of `SHAPES` per dialect. */

import { FormatError } from "../errors.js";
import { type JsonObject, member, readObject } from "../json.js";
import { MAX_EVENT, type ServerEvent, asciiView } from "../sse.js";
import type { Answer } from "./answer.js";
import { AudioAnswer } from "./audio.js";
import { MessagesAnswer } from "./messages.js";
import { ChatAnswer, CompletionAnswer } from "./openai.js";
import { PlainAnswer } from "./plain.js";
import {
  type Prompt,
  audioPrompt,
  chatPrompt,
  completionPrompt,
  messagesPrompt,
  plainPrompt,
  responsesPrompt,
} from "./prompts.js";
import { ResponsesAnswer, TERMINAL } from "./responses.js";
import type { Budget } from "./values.js";

/** APIs whose answers can be attested. */
export const DIALECTS = [
  "chat",
  "completions",
  "responses",
  "messages",
  "pooling",
  "rerank",
  "audio",
] as const;
export type Dialect = (typeof DIALECTS)[number];

// SDKs stop at an event that begins so, whatever follows, some in every dialect.
const DONE = "[DONE]";

/** One row of the table. */
export interface Shape {
  /** Makes a reader of one answer. */
  readonly answer: (budget: Budget) => Answer;
  /** Reads what a request gives the model. Throws FormatError. */
  readonly prompt: (body: JsonObject) => Prompt;
  /** Types of the events that end a stream, besides `[DONE]`. */
  readonly terminals: readonly string[];
}

export const SHAPES: Readonly<Record<Dialect, Shape>> = {
  chat: {
    answer: (budget) => new ChatAnswer(budget),
    prompt: chatPrompt,
    terminals: [],
  },
  completions: {
    answer: (budget) => new CompletionAnswer(budget),
    prompt: completionPrompt,
    terminals: [],
  },
  responses: {
    answer: (budget) => new ResponsesAnswer(budget),
    prompt: responsesPrompt,
    terminals: TERMINAL,
  },
  messages: {
    answer: (budget) => new MessagesAnswer(budget),
    prompt: messagesPrompt,
    terminals: ["message_stop"],
  },
  pooling: {
    answer: (budget) => new PlainAnswer(budget, "data"),
    prompt: plainPrompt,
    terminals: [],
  },
  rerank: {
    answer: (budget) => new PlainAnswer(budget, "results"),
    prompt: plainPrompt,
    terminals: [],
  },
  audio: {
    answer: (budget) => new AudioAnswer(budget),
    prompt: audioPrompt,
    terminals: [],
  },
};

/**
 * One of these stands in every event that ends a stream, in any dialect. The quotes
 * around a type keep it from standing in the text of an answer, where they are escaped.
 */
export const END_WORDS: readonly string[] = [
  DONE,
  ...DIALECTS.flatMap((dialect) => SHAPES[dialect].terminals).map(
    (kind) => `"${kind}"`,
  ),
];

/** Whether no reader of this dialect looks at anything that comes after this event. */
export function endsStream(shape: Shape, event: ServerEvent): boolean {
  if (event.data === undefined) return false;
  const data = asciiView(event.data);
  if (data.startsWith(DONE)) return true;
  if (shape.terminals.length === 0) return false;
  const name = event.name === undefined ? undefined : asciiView(event.name);
  return [name, typeOf(event.data)].some(
    (kind) => kind !== undefined && shape.terminals.includes(kind),
  );
}

function typeOf(data: Uint8Array): string | undefined {
  try {
    const kind = member(readObject(data, { maxBytes: MAX_EVENT }), "type");
    return typeof kind === "string" ? kind : undefined;
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}
