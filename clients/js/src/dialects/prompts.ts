/** What a request gives the model to read, in each dialect. */

import { FormatError } from "../errors.js";
import { type Json, type JsonObject, isObject, member, writeJson } from "../json.js";
import { MAX_CHOICES } from "./answer.js";
import { isTruthy } from "./values.js";

/** What a request gives the model to read. */
export interface Prompt {
  /** The prompt, whatever its spelling. */
  readonly semantic: JsonObject;
  /** Texts of the system and developer messages, in the order of reading. */
  readonly system: readonly string[];
  /** How many answers it asks for. */
  readonly choices: number;
}

/**
 * Stands between the texts of several parts of one message. It keeps a prompt that was
 * cut in two, which the model reads differently, from passing as the whole one.
 */
export const SEPARATOR = "\u001e";

const TEXT_PARTS: readonly (Json | undefined)[] = ["text", "input_text"];
const SYSTEM: readonly (Json | undefined)[] = ["system", "developer"];
const SPEECH = ["file", "hotwords", "language", "prompt", "to_language"];
// What the model reads, in the spellings that vLLM knows.
const INPUTS = [
  "input",
  "messages",
  "text_1",
  "text_2",
  "queries",
  "documents",
  "items",
  "data_1",
  "data_2",
  "query",
  "data",
  "instruction",
];

/** A member, null where there is none. */
function given(body: JsonObject, name: string): Json {
  return member(body, name) ?? null;
}

function objects(body: JsonObject, name: string): JsonObject[] {
  const value = given(body, name);
  if (!Array.isArray(value) || !value.every(isObject)) {
    throw new FormatError(`${name}: must be a list of objects`);
  }
  return value;
}

/** No tools, null and an empty list are the same request. */
function tools(body: JsonObject): Json {
  const value = given(body, "tools");
  return isTruthy(value) ? value : null;
}

/**
 * The text of a message, its parts joined by U+001E. A part that is not plain text stands
 * as its JSON. `hints` names the members of a text part that change nothing of what the
 * model reads.
 */
function messageText(content: Json, hints: readonly string[] = []): string {
  if (typeof content === "string") return content;
  const parts = Array.isArray(content) ? content : [content];
  const plain = new Set(["type", "text", ...hints]);
  return parts.map((part) => partText(part, plain)).join(SEPARATOR);
}

function partText(part: Json, plain: ReadonlySet<string>): string {
  if (isObject(part) && TEXT_PARTS.includes(member(part, "type"))) {
    const text = member(part, "text");
    const isPlain = Object.keys(part).every((name) => plain.has(name));
    if (typeof text === "string" && isPlain) return text;
  }
  return writeJson(part, { sortKeys: true });
}

function spokenBy(
  messages: readonly JsonObject[],
  roles: readonly (Json | undefined)[],
): Json[] {
  const spoken = messages.filter((message) => roles.includes(member(message, "role")));
  return spoken.map((message) => given(message, "content"));
}

function count(body: JsonObject, prompts: number): number {
  const value = given(body, "n") ?? 1;
  if (typeof value !== "number" && typeof value !== "bigint") {
    throw new FormatError("n: must be an integer");
  }
  const choices = prompts * Number(value);
  if (!(choices >= 1 && choices <= MAX_CHOICES)) {
    throw new FormatError(
      `n: ${choices} choices, between 1 and ${MAX_CHOICES} are served`,
    );
  }
  return choices;
}

/** The prompt of a chat. Throws FormatError where `messages` or `n` are unusable. */
export function chatPrompt(body: JsonObject): Prompt {
  const messages = objects(body, "messages");
  return {
    semantic: { messages, tools: tools(body) },
    system: spokenBy(messages, SYSTEM).map((content) => messageText(content)),
    choices: count(body, 1),
  };
}

/** The prompt of a completion; throws as `chatPrompt`. */
export function completionPrompt(body: JsonObject): Prompt {
  const prompt = given(body, "prompt");
  if (prompt !== null && typeof prompt !== "string" && !Array.isArray(prompt)) {
    throw new FormatError("prompt: must be a string or a list");
  }
  return {
    semantic: { prompt },
    system: [],
    choices: count(body, promptCount(prompt)),
  };
}

/** A list is a batch of prompts, except a list of token ids, which is one prompt. */
function promptCount(prompt: string | Json[] | null): number {
  if (!Array.isArray(prompt)) return 1;
  const isTokens = typeof prompt[0] === "number" || typeof prompt[0] === "bigint";
  return isTokens ? 1 : prompt.length;
}

/** The prompt of a response. Throws FormatError where its types are wrong. */
export function responsesPrompt(body: JsonObject): Prompt {
  const [instructions, input] = [given(body, "instructions"), given(body, "input")];
  if (instructions !== null && typeof instructions !== "string") {
    throw new FormatError("instructions: must be a string");
  }
  const contents: Json[] = instructions === null ? [] : [instructions];
  if (typeof input !== "string") {
    contents.push(...spokenBy(objects(body, "input"), SYSTEM));
  }
  return {
    semantic: { instructions, input, tools: tools(body) },
    system: contents.map((content) => messageText(content)),
    choices: 1,
  };
}

/** The prompt of a message. Throws FormatError where its types are wrong. */
export function messagesPrompt(body: JsonObject): Prompt {
  const [messages, system] = [objects(body, "messages"), given(body, "system")];
  if (system !== null && typeof system !== "string") objects(body, "system");
  const isEmpty = system === null || (Array.isArray(system) && system.length === 0);
  const contents = [...(isEmpty ? [] : [system]), ...spokenBy(messages, ["system"])];
  return {
    semantic: { system, messages, tools: tools(body) },
    // A cache hint only says what may be cached.
    system: contents.map((content) => messageText(content, ["cache_control"])),
    choices: 1,
  };
}

/**
 * What is to be embedded, scored, ranked or classified. Throws FormatError: `messages` is
 * there, and not a list of objects, or the answer is to be bytes whose meaning would
 * stand in a header, which is not attested.
 */
export function plainPrompt(body: JsonObject): Prompt {
  const form = member(body, "encoding_format");
  if (form === "bytes" || form === "bytes_only") {
    throw new FormatError("encoding_format: float and base64 are served");
  }
  const present = INPUTS.filter((name) => given(body, name) !== null);
  const messages = present.includes("messages") ? objects(body, "messages") : [];
  return {
    semantic: Object.fromEntries(present.map((name) => [name, given(body, name)])),
    system: spokenBy(messages, SYSTEM).map((content) => messageText(content)),
    choices: 0,
  };
}

/**
 * What is to be heard; the recording stands as its digest. Throws FormatError: there is
 * no recording, or more than one answer is asked for.
 */
export function audioPrompt(body: JsonObject): Prompt {
  if (!Object.hasOwn(body, "file")) throw new FormatError("file: is missing");
  const asked = given(body, "n");
  if (asked !== null && asked !== "1") throw new FormatError("n: one answer is served");
  const present = SPEECH.filter((name) => Object.hasOwn(body, name));
  return {
    semantic: Object.fromEntries(present.map((name) => [name, given(body, name)])),
    system: [],
    choices: 1,
  };
}
