/** What the page shows, as plain data: no markup, no document. */

import type { Bundle } from "../bundle.js";
import type { Bytes } from "../bytes.js";
import { dialectOf, isStream } from "../diagnosis.js";
import { FormatError } from "../errors.js";
import {
  type Json,
  JsonFloat,
  type JsonObject,
  isObject,
  member,
  readObject,
} from "../json.js";
import type { Manifest } from "../manifest.js";
import { moment } from "../reader.js";
import { REASONS } from "../reasons.js";
import type { Status } from "../steps.js";
import { Transcript } from "../transcript.js";
import type { Verdict, Word } from "../verdict.js";
import { type Principle, principlesOf } from "./principles.js";
import {
  HEADLINES,
  MEASUREMENTS,
  OUTCOMES,
  PROMPTS,
  RECORD_ONLY,
  STEPS,
  TIERS,
} from "./words.js";

const MAX_BODY = 64 * 1024 * 1024;
const MAX_SHOWN = 200_000;
const MAX_WORDS = 2_000;
const MAX_ROWS = 64;
const LOOSE_UTF8 = new TextDecoder();

/** One line of the list of steps. */
export interface Line {
  readonly number: number;
  readonly title: string;
  readonly status: Status | "not reached";
  readonly words: string;
  /** For engineers: the verifier's own words, and its codes. */
  readonly detail: string;
  readonly codes: readonly string[];
}

/** Something that was said, and by whom. */
export interface Said {
  readonly who: string;
  readonly text: string;
}

/** A name and what stands under it. */
export type Fact = readonly [string, string];

/** The whole page below the form. */
export interface Report {
  readonly word: Word;
  readonly headline: string;
  readonly summary: string;
  /** Why it is not proven; none where it is. */
  readonly reasons: readonly string[];
  readonly tier: {
    readonly name: string;
    readonly proves: string;
    readonly left: string;
  };
  readonly lines: readonly Line[];
  /** Whether the words below are proven to be those of question and answer. */
  readonly saidIsProven: boolean;
  readonly question: readonly Said[];
  readonly answer: readonly Said[];
  readonly facts: readonly Fact[];
  readonly training: readonly Fact[];
  readonly principles: readonly Principle[];
  /** What training itself says that it does not show. */
  readonly limits: readonly string[];
}

/** What a verdict about a bundle says to a reader. */
export function report(verdict: Verdict, bundle: Bundle): Report {
  const [headline, summary] = HEADLINES[verdict.word];
  const isRecordOnly = verdict.proven && bundle.response === undefined;
  const [proves, left] = TIERS[verdict.tier];
  const manifest = verdict.manifest;
  return {
    word: verdict.word,
    headline: verdict.proven ? `${headline}, to tier ${verdict.tier}` : headline,
    summary: isRecordOnly ? RECORD_ONLY : summary,
    reasons: reasonsOf(verdict),
    tier: { name: verdict.tier, proves, left },
    lines: STEPS.map((_, number) => lineOf(verdict, number)),
    saidIsProven: verdict.word === "proven" || verdict.word === "content_only",
    question: bundle.request === undefined ? [] : questionOf(bundle.request),
    answer: bundle.response === undefined ? [] : answerOf(bundle.response),
    facts: verdict.claims === undefined ? [] : factsOf(verdict),
    training: manifest === undefined ? [] : trainingOf(manifest),
    principles: manifest === undefined ? [] : principlesOf(manifest),
    limits: textsOf(manifest?.predicate, "limits"),
  };
}

function reasonsOf(verdict: Verdict): string[] {
  const problem = verdict.problem;
  if (problem === undefined) return [];
  return problem.findings.map(({ code, detail, expected, found }) => {
    const meaning = REASONS[code]?.meaning ?? detail;
    if (expected === undefined || found === undefined) return sentence(meaning);
    return `${sentence(meaning).slice(0, -1)} (expected ${expected}; found ${found}).`;
  });
}

function sentence(words: string): string {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}

function lineOf(verdict: Verdict, number: number): Line {
  const [title = "", words = ""] = STEPS[number] ?? [];
  const step = verdict.step(number);
  if (step === undefined) {
    const status = "not reached";
    return { number, title, status, words: "", detail: "", codes: [] };
  }
  const { status, detail } = step;
  const codes = step.findings.map((finding) => finding.code);
  // A step that is ok may still have something to say.
  const notes = step.findings.map(({ code }) =>
    sentence(REASONS[code]?.meaning ?? code),
  );
  const said = status === "ok" ? [words, ...notes].join(" ") : "";
  return { number, title, status, words: said, detail, codes };
}

/** A text that fits the page; what is cut off is said. */
function shortened(text: string, limit = MAX_WORDS): string {
  return text.length <= limit
    ? text
    : `${text.slice(0, limit)} … (${text.length} characters)`;
}

function valueText(value: Json): string {
  if (typeof value === "string") return value;
  if (value instanceof JsonFloat) return String(value.value);
  return JSON.stringify(value, (_, item: unknown) =>
    typeof item === "bigint" ? String(item) : item,
  );
}

function textsOf(value: JsonObject | undefined, name: string): string[] {
  const items = value === undefined ? undefined : member(value, name);
  if (!Array.isArray(items)) return [];
  return items.slice(0, MAX_ROWS).map((item) => shortened(valueText(item)));
}

// --- question and answer -----------------------------------------------------------

function objectOf(body: Bytes): JsonObject | undefined {
  try {
    return readObject(body, { maxBytes: MAX_BODY });
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** The messages of a request, or its prompt, or else the body as it is. */
function questionOf(body: Bytes): Said[] {
  const value = objectOf(body);
  const said: Said[] = [];
  if (value !== undefined) {
    for (const name of ["system", "instructions", "prompt", "input", "query"]) {
      const item = member(value, name) ?? null;
      if (item !== null && !Array.isArray(item)) said.push(saidBy(name, item));
    }
    const messages = member(value, "messages") ?? member(value, "input");
    for (const message of Array.isArray(messages) ? messages : []) {
      const role = isObject(message) ? member(message, "role") : undefined;
      const content = isObject(message)
        ? (member(message, "content") ?? null)
        : message;
      said.push(saidBy(typeof role === "string" ? role : "input", content));
    }
  }
  return said.length > 0 ? said.slice(0, MAX_ROWS) : [raw(body)];
}

function saidBy(who: string, content: Json): Said {
  const parts = Array.isArray(content) ? content : [content];
  const texts = parts.map((part) => {
    const text = isObject(part) ? member(part, "text") : undefined;
    return typeof text === "string" ? text : valueText(part);
  });
  return { who: shortened(who, 40), text: shortened(texts.join("\n"), MAX_SHOWN) };
}

function raw(body: Bytes): Said {
  const text = LOOSE_UTF8.decode(body.subarray(0, MAX_SHOWN));
  return { who: "as it is", text: shortened(text, 4_000) };
}

const SPOKEN = [
  ["reasoning", "reasoning"],
  ["content", "answer"],
  ["text", "answer"],
  ["refusal", "refusal"],
] as const;

/** What the choices of an answer say, or else the body as it is. */
function answerOf(body: Bytes): Said[] {
  const dialect = dialectOf(body);
  if (dialect === undefined) return [raw(body)];
  const read = isStream(body)
    ? Transcript.ofStream(body, dialect)
    : Transcript.ofBody(body, dialect);
  const outputs = [...read.outputs()];
  const said = outputs.flatMap(([index, output]) => {
    const which = outputs.length > 1 ? ` ${index + 1}` : "";
    return [
      ...SPOKEN.flatMap(([name, who]) => {
        const text = member(output, name);
        const isSaid = typeof text === "string" && text !== "";
        return isSaid ? [{ who: who + which, text: shortened(text, MAX_SHOWN) }] : [];
      }),
      ...callsOf(output).map((text) => ({ who: `tool call${which}`, text })),
    ];
  });
  return said.length > 0 ? said : [raw(body)];
}

function callsOf(output: JsonObject): string[] {
  const calls = member(output, "tool_calls");
  if (!Array.isArray(calls)) return [];
  return calls.filter(isObject).map((call) => {
    const [name, given] = [member(call, "name"), member(call, "arguments")];
    return shortened(
      `${valueText(name ?? null)}(${valueText(given ?? null)})`,
      MAX_SHOWN,
    );
  });
}

// --- facts -------------------------------------------------------------------------

function factsOf(verdict: Verdict): Fact[] {
  const claims = verdict.claims;
  if (claims === undefined) return [];
  const { weights, res, overrides = [] } = claims;
  const input = claims["gen_ai.usage.input_tokens"];
  const output = claims["gen_ai.usage.output_tokens"];
  const facts: (Fact | undefined)[] = [
    ["Signed at", `${moment(claims.iat)} by the gateway's clock`],
    ["Gateway", claims.iss],
    optional("Model, as it was asked for", claims["gen_ai.request.model"]),
    optional("Model, as it answered", claims["gen_ai.response.model"]),
    ["How the weights were measured", MEASUREMENTS[weights.measured]],
    optional("Model program", verdict.step(3)?.detail),
    ["System prompt", PROMPTS[claims.system_prompt]],
    ["How the answer ended", OUTCOMES[res.outcome]],
    overrides.length > 0
      ? ["Unusual wishes of the request", overrides.join(", ")]
      : undefined,
    input === undefined && output === undefined
      ? undefined
      : ["Tokens read, written", `${input ?? "not stated"}, ${output ?? "not stated"}`],
    optional("Answer's id", claims.sub),
    ["Statement's id", claims.jti],
    ["Fingerprint of the weights", weights.root],
    ["Fingerprint of the answer", res.content_digest],
  ];
  return facts.filter((fact) => fact !== undefined).map(cut);
}

function optional(name: string, text: string | undefined): Fact | undefined {
  return text === undefined ? undefined : [name, text];
}

function cut([name, text]: Fact): Fact {
  return [name, shortened(text)];
}

function trainingOf(manifest: Manifest): Fact[] {
  const { constitution, parent } = manifest;
  const stages = isObject(member(manifest.predicate, "training"))
    ? member(member(manifest.predicate, "training") as JsonObject, "stages")
    : undefined;
  const facts: (Fact | undefined)[] = [
    ["Model", `${manifest.modelName} ${manifest.modelVersion}`],
    [
      "Constitution",
      constitution === null
        ? "none: this is evidence about weights alone"
        : `${constitution.id} ${constitution.version}`,
    ],
    constitution === null
      ? undefined
      : ["Fingerprint of the constitution", constitution.digest],
    ["Signed by the authority's key", manifest.signedBy.join(", ")],
    ["Valid", `from ${moment(manifest.notBefore)} to ${moment(manifest.notAfter)}`],
    ["Files, tensors", `${manifest.subjects.size}, ${manifest.tensorCount}`],
    optional("Training", stagesText(stages)),
    parent === undefined
      ? undefined
      : ["Made from another model", `${manifest.transformation}; ${parent}`],
    optional("Replaces the manifest", manifest.supersedes),
    ["Fingerprint of the manifest", manifest.digest],
  ];
  return facts.filter((fact) => fact !== undefined).map(cut);
}

function stagesText(stages: Json | undefined): string | undefined {
  if (!Array.isArray(stages) || stages.length === 0) return undefined;
  const words = stages.slice(0, MAX_ROWS).map((stage) => {
    const [name, method] = isObject(stage)
      ? [member(stage, "name"), member(stage, "method")]
      : [];
    return [name, method].filter((text) => typeof text === "string").join(": ");
  });
  return words.join(" → ");
}
