/** What a copy says, beside what the token states. */

import type { Bytes } from "./bytes.js";
import type { TokenClaims } from "./claims.js";
import { type Json, type JsonObject, member } from "./json.js";
import { type Finding, REASONS } from "./reasons.js";
import { shown } from "./spelling.js";
import { type Transcript, outputDigest } from "./transcript.js";
import { isTruthy } from "./dialects/values.js";

const OUT = /^out\.(0|[1-9][0-9]{0,9})$/;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** A copy of an answer. */
export interface Copy {
  readonly body: Bytes;
  readonly isStreamed: boolean;
  /** Bytes that a token would cover. */
  readonly length: number;
}

/** A finding in the words of the table. */
export function finding(code: string, expected = "", found = ""): Finding {
  const detail = REASONS[code]?.meaning ?? code;
  return expected === "" ? { code, detail } : { code, detail, expected, found };
}

/** The comparison of one copy; its bytes are not the attested ones. */
export class Comparison {
  private readonly outputs: ReadonlyMap<number, JsonObject>;
  private readonly isCut: boolean;
  private readonly reasons: readonly (string | null)[];
  /** The disclosed digest of each choice. */
  private readonly stated: ReadonlyMap<number, Json>;

  constructor(
    private readonly copy: Copy,
    private readonly read: Transcript,
    private readonly claims: TokenClaims,
    disclosed: JsonObject,
  ) {
    this.outputs = read.outputs();
    this.isCut = this.endsTooEarly();
    this.reasons = claims["gen_ai.response.finish_reasons"] ?? [];
    this.stated = new Map(
      Object.entries(disclosed)
        .map(([name, value]): [number, Json] => [Number(OUT.exec(name)?.[1]), value])
        .filter(([index]) => index < claims.res.choices)
        .sort(([left], [right]) => left - right),
    );
  }

  /** Real changes, or else what keeps it from being told, or else the spelling. */
  async findings(): Promise<Finding[]> {
    const { read, isCut } = this;
    if (read.malformed && read.choiceCount === 0 && !isCut) {
      return [finding("content.changed")];
    }
    const changed = await this.changes();
    if (changed.length > 0) return changed;
    const isHidden = this.stated.size < this.claims.res.choices;
    if (isCut && (isHidden || !(await this.textsMatch()))) {
      return [finding("content.truncated")];
    }
    if (isHidden) return [finding("content.not_disclosed")];
    if (this.outputs.size === 0 || read.malformed || read.errorSeen) {
      return [finding("content.changed")];
    }
    return [finding(this.spelling())];
  }

  /** Whether the copy ends too early. */
  private endsTooEarly(): boolean {
    if (!this.copy.isStreamed) return this.read.malformed && isOpen(this.copy.body);
    // What was sent may have had no end either.
    const isWhole = this.claims.res.outcome === "complete";
    return this.read.terminatorMissing && (isWhole || this.isShorter);
  }

  private get isShorter(): boolean {
    return this.copy.length < this.claims.res.content_bytes;
  }

  private async changes(): Promise<Finding[]> {
    const { read, claims } = this;
    const changes: Finding[] = [];
    const [id, model] = [claims.sub, claims["gen_ai.response.model"]];
    if (id !== undefined && read.responseId !== undefined && id !== read.responseId) {
      const found = shown(read.responseId);
      changes.push(finding("content.other_response", shown(id), found));
    }
    const isModelLost = this.isCut && read.responseModel === undefined;
    if (model !== read.responseModel && !isModelLost) {
      const found = shown(read.responseModel);
      changes.push(finding("content.model_changed", shown(model), found));
    }
    const texts = await this.texts();
    return [...changes, ...texts, ...this.finishReasons(), ...this.usage()];
  }

  /** Choices that differ, where nothing is missing that could explain it. */
  private async texts(): Promise<Finding[]> {
    if (this.isCut) return [];
    const codes = new Set<string>();
    for (const [index, expected] of this.stated) {
      if (await this.matches(index, expected)) continue;
      const word = hasOnlyCalls(this.outputs.get(index)) ? "tool_call" : "answer";
      codes.add(`content.${word}_changed`);
    }
    if (this.read.choiceCount > this.claims.res.choices) {
      codes.add("content.answer_changed");
    }
    return [...codes].map((code) => finding(code));
  }

  /** Whether the text of a choice is as attested, its finish reason aside. */
  private async matches(index: number, expected: Json): Promise<boolean> {
    const output = this.outputs.get(index);
    if (output === undefined) return false;
    const stated = this.reasons[index] ?? null;
    const forms = [output, { ...output, finish_reason: stated }];
    const digests = await Promise.all(forms.map(outputDigest));
    return digests.some((found) => found === expected);
  }

  private async textsMatch(): Promise<boolean> {
    for (const [index, expected] of this.stated) {
      if (!(await this.matches(index, expected))) return false;
    }
    return true;
  }

  private finishReasons(): Finding[] {
    const found = this.read.finishReasons;
    if (this.reasons.length !== found.length) return [];
    for (const [at, stated] of this.reasons.entries()) {
      const other = found[at] ?? null;
      if (stated === other || (this.isCut && other === null)) continue;
      return [finding("content.finish_reason_changed", shown(stated), shown(other))];
    }
    return [];
  }

  private usage(): Finding[] {
    if (this.isCut || this.isUsageLost) return [];
    const { inputTokens, outputTokens } = this.read.usage;
    const input = this.claims["gen_ai.usage.input_tokens"];
    const output = this.claims["gen_ai.usage.output_tokens"];
    if (input === inputTokens && output === outputTokens) return [];
    const words = (counts: readonly (number | undefined)[]) =>
      counts.map(shown).join(" and ");
    const [expected, found] = [
      [input, output],
      [inputTokens, outputTokens],
    ].map(words);
    return [finding("content.usage_changed", expected, found)];
  }

  /** Whether this is a stream that says nothing of token counts. */
  private get isUsageLost(): boolean {
    const { inputTokens, outputTokens } = this.read.usage;
    const isSilent = inputTokens === undefined && outputTokens === undefined;
    return this.copy.isStreamed && isSilent;
  }

  /** What was done to a copy that says all that was attested. */
  private spelling(): string {
    const isCounted = this.claims["gen_ai.usage.output_tokens"] !== undefined;
    if (this.isCut || (isCounted && this.isUsageLost)) return "content.event_lost";
    const isSameForm = this.copy.isStreamed === this.claims.res.stream;
    const isLess = this.copy.isStreamed && isSameForm && this.isShorter;
    return isLess ? "content.comments_lost" : "content.reencoded";
  }
}

/** Whether a choice says nothing but tool calls. */
function hasOnlyCalls(output: JsonObject | undefined): boolean {
  if (output === undefined || !isTruthy(member(output, "tool_calls"))) return false;
  const spoken = ["content", "reasoning", "refusal"];
  return !spoken.some((name) => isTruthy(member(output, name)));
}

/** Whether a JSON text ends within a string, an object or a list. */
function isOpen(body: Bytes): boolean {
  let depth = 0;
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at];
    if (byte === QUOTE) {
      at += 1;
      while (at < body.length && body[at] !== QUOTE)
        at += body[at] === BACKSLASH ? 2 : 1;
      if (at >= body.length) return true;
    } else if (byte === 0x5b || byte === 0x7b) depth += 1;
    else if (byte === 0x5d || byte === 0x7d) depth -= 1;
  }
  return depth > 0;
}
