/** What a token says about the request: its facts, read from the parsed body. */

import { hasLoneSurrogate, isAtMost, utf8 } from "./bytes.js";
import { type Dialect, SHAPES } from "./dialects/index.js";
import { SEPARATOR } from "./dialects/prompts.js";
import { digest } from "./digests.js";
import { FormatError } from "./errors.js";
import {
  COMPACT,
  type Json,
  type JsonObject,
  canonical,
  member,
  quoted,
  writeJson,
} from "./json.js";

const MAX_NAME = 256;
/** A token with its disclosures must fit a header; one logit_bias can hold 300 entries. */
const MAX_PARAMETER = 256;

const SAMPLING =
  `allowed_token_ids bad_words best_of echo frequency_penalty ignore_eos length_penalty
  logit_bias max_completion_tokens max_output_tokens max_tokens min_p min_tokens n
  output_config presence_penalty reasoning reasoning_effort repetition_penalty
  response_format seed skip_special_tokens stop stop_sequences stop_token_ids
  structured_outputs temperature text thinking thinking_token_budget tool_choice top_k
  top_p use_beam_search`.split(/\s+/);

/** Facts of one request. */
export interface RequestFacts {
  /** The model that was asked for, undefined where the engine is to choose. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** How many choices a whole answer has; 0 where its dialect has none. */
  readonly expectedChoices: number;
  /** Each parameter of a fixed list that the request sets, as JSON text or its digest. */
  readonly sampling: Readonly<Record<string, string>>;
  /** Text of the system and developer messages, undefined where there is none. */
  readonly systemPrompt: string | undefined;
  /** What the model is given to read; undefined where RFC 8785 cannot write it. */
  readonly semantic: JsonObject | undefined;
}

/**
 * Read the facts from a parsed request body. Whether the engine takes the request is not
 * checked.
 *
 * Throws FormatError: a member has the wrong type, or the request asks for no choice or
 * for more than 128.
 */
export async function requestFacts(
  body: JsonObject,
  dialect: Dialect,
): Promise<RequestFacts> {
  const { semantic, system, choices } = SHAPES[dialect].prompt(body);
  const stream = member(body, "stream") ?? false;
  if (typeof stream !== "boolean") {
    throw new FormatError("stream: must be true or false");
  }
  return {
    model: modelOf(body),
    stream,
    expectedChoices: choices,
    sampling: await samplingOf(body),
    systemPrompt: systemPromptOf(system),
    semantic: isCanonical(semantic) ? semantic : undefined,
  };
}

/** Digest of the RFC 8785 form of the semantic request, undefined where it has none. */
export async function semanticDigest(facts: RequestFacts): Promise<string | undefined> {
  return facts.semantic === undefined ? undefined : digest(canonical(facts.semantic));
}

function modelOf(body: JsonObject): string | undefined {
  const model = member(body, "model") ?? null;
  if (model === null) return undefined;
  if (typeof model !== "string" || model === "" || !isAtMost(model, MAX_NAME)) {
    throw new FormatError(`model: must be a string of 1 to ${MAX_NAME} characters`);
  }
  if (hasLoneSurrogate(model)) throw new FormatError("model: holds a lone surrogate");
  return model;
}

async function samplingOf(body: JsonObject): Promise<Record<string, string>> {
  const texts: Record<string, string> = {};
  for (const name of SAMPLING) {
    const value = member(body, name) ?? null;
    if (value === null) continue;
    const text = writeJson(value, { separators: COMPACT, sortKeys: true });
    texts[name] = text.length > MAX_PARAMETER ? await digest(utf8(text)) : text;
  }
  return texts;
}

function systemPromptOf(texts: readonly string[]): string | undefined {
  if (texts.length === 0) return undefined;
  const text = texts.join(SEPARATOR);
  return hasLoneSurrogate(text) ? quoted(text) : text;
}

function isCanonical(value: Json): boolean {
  try {
    canonical(value);
    return true;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}
