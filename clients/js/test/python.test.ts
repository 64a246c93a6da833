/**
 * The Python implementation and this one find the same: on a situation for each reason
 * code, and on thousands of damaged documents. ATTEST_FUZZ=N makes N times as many,
 * ATTEST_SEED=N makes others.
 */

import { readFileSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { type Bytes, toBase64, utf8 } from "../src/bytes.js";
import { SALTED, TOKENS } from "../src/claims.js";
import { DIALECTS, type Dialect } from "../src/dialects/index.js";
import { digest } from "../src/digests.js";
import { FormatError, Policy, REASONS, readBundle, verify } from "../src/index.js";
import { canonical, readJson, readObject } from "../src/json.js";
import { requestFacts, semanticDigest } from "../src/request.js";
import { EventSplitter } from "../src/sse.js";
import { Transcript, outputDigest } from "../src/transcript.js";
import { Damage } from "./damage.js";
import { Lines, ROOT, python } from "./oracle.js";

const TIMES = Number(process.env["ATTEST_FUZZ"] ?? "1");
const SEED = Number(process.env["ATTEST_SEED"] ?? "20260100");

interface Case {
  name: string;
  bundle: string;
  policy: object;
  options: { at: number; nonce?: string; audience?: string };
}

interface Judged {
  verdict: string;
  tier: string;
  measured: string | null;
  steps: { name: string; status: string; code: string; reasons: { code: string }[] }[];
}

let oracle: Lines;
let situations: (Case & { expected: Judged })[];

beforeAll(async () => {
  oracle = new Lines(python("oracle"));
  situations = (await oracle.ask("situations")) as typeof situations;
});

afterAll(() => {
  oracle.end();
});

function fromBase64(text: string): Bytes {
  return new Uint8Array(Buffer.from(text, "base64"));
}

async function judge(item: Case): Promise<unknown> {
  let bundle;
  try {
    bundle = readBundle(fromBase64(item.bundle));
  } catch (error) {
    if (error instanceof FormatError) return "format";
    return (error as { code: string }).code;
  }
  const policy = await Policy.fromJson(item.policy);
  const verdict = await verify(bundle, policy, item.options);
  const { verdict: word, tier, measured, steps } = verdict.toJson();
  return { verdict: word, tier, measured, steps };
}

/** What must be the same: all but the words for people. */
function essence(judged: unknown): unknown {
  if (typeof judged === "string") return judged;
  const { verdict, tier, measured, steps } = judged as Judged;
  return {
    verdict,
    tier,
    measured,
    steps: steps.map(({ name, status, code, reasons }) => {
      const codes = reasons.map((reason) => reason.code);
      return [name, status, code, ...codes].join(" ");
    }),
  };
}

describe("tables", () => {
  test("are the same", async () => {
    const tables = (await oracle.ask("tables")) as {
      reasons: unknown;
      tokens: Record<string, Record<string, boolean>>;
      salted: string[];
      version: string;
    };
    const own = readFileSync(new URL("../package.json", import.meta.url), "utf8");
    expect(JSON.parse(own)).toMatchObject({ version: tables.version });
    expect(tables.reasons, "run: npm run reasons").toEqual(REASONS);
    expect(Object.keys(SALTED).sort()).toEqual(tables.salted);
    for (const [typ, schema] of Object.entries(TOKENS)) {
      const found = Object.entries(schema).map(([name, claim]) => [
        name,
        claim.required,
      ]);
      expect(Object.fromEntries(found), typ).toEqual(tables.tokens[typ]);
    }
  });
});

describe("verdicts", () => {
  test("on a situation for each reason", async () => {
    expect(situations.length).toBeGreaterThan(60);
    for (const item of situations) {
      const found = await judge(item);
      expect(essence(found), item.name).toEqual(essence(item.expected));
    }
  });

  test("words for people are the same too, where all is proven", async () => {
    const proven = situations.filter((item) => item.expected.verdict === "proven");
    for (const item of proven) expect(await judge(item)).toEqual(item.expected);
  });

  test("on damaged bundles", async () => {
    const damage = new Damage(SEED + 1);
    const cases: Case[] = [];
    for (let round = 0; round < 500 * TIMES; round += 1) {
      const item = damage.pick(situations);
      const text = Buffer.from(item.bundle, "base64").toString();
      const bundle = Buffer.from(damage.bundle(text)).toString("base64");
      cases.push({ ...item, bundle });
    }
    const expected = (await oracle.ask("judge", cases)) as unknown[];
    for (const [at, item] of cases.entries()) {
      const found = essence(await judge(item));
      expect(found, `${item.name}, round ${at}`).toEqual(essence(expected[at]));
    }
    const words = expected.map((item) =>
      typeof item === "string" ? item : (item as Judged).verdict,
    );
    // The damage is of all kinds: some harmless, some fatal.
    expect(new Set(words).size).toBeGreaterThan(3);
  });
});

describe("documents", () => {
  test("policies are read alike", async () => {
    const damage = new Damage(SEED + 2);
    const texts = situations.flatMap((item) => {
      const text = JSON.stringify(item.policy);
      return [text, ...Array.from({ length: 5 * TIMES }, () => damage.json(text))];
    });
    const expected = (await oracle.ask("policies", texts.map(encoded))) as unknown[];
    for (const [at, text] of texts.entries()) {
      const found = await Policy.fromJson(utf8(text)).then(
        (policy) => policy.toJson(),
        () => null,
      );
      const isSame = JSON.stringify(found) === JSON.stringify(expected[at]);
      expect(isSame, `${text}\n${JSON.stringify(found)}`).toBe(true);
    }
  });

  test("JSON is accepted, refused and written alike", async () => {
    const damage = new Damage(SEED + 3);
    const seeds = [...ODD_JSON, JSON.stringify({ a: [1, -2.5e-7, "ü\u2028", null] })];
    const texts = seeds.flatMap((text) => [
      text,
      ...Array.from({ length: 20 * TIMES }, () => damage.json(text)),
    ]);
    const expected = await oracle.ask("documents", texts.map(encoded));
    const found = await Promise.all(texts.map(document));
    expect(found).toEqual(expected);
  });
});

const ODD_JSON = [
  '{"a":1,"a":2}',
  '{"__proto__":{"x":1},"constructor":2}',
  '["\\ud800", "\\udc00\\ud800", "\\ud83d\\ude00"]',
  "[1.0, 1, -0, -0.0, 1e2, 0.1, 1e400]",
  "[9007199254740991, 9007199254740992, -9007199254740992]",
  `[${"9".repeat(64)}]`,
  `[${"9".repeat(65)}]`,
  "[NaN]",
  "[Infinity, -Infinity]",
  "\ufeff[]",
  "[01]",
  "[1.]",
  "[.5]",
  "[+1]",
  '["\t"]',
  '["\u007f\u0080"]',
  "\u00a0[]",
  "[]\u2028",
  "[1,]",
  "{,}",
  '{"a":1,}',
  "tru",
  "true false",
  `${"[".repeat(64)}${"]".repeat(64)}`,
  `${"[".repeat(65)}${"]".repeat(65)}`,
  `[${"[],".repeat(100)}"[[[[["]`,
  '"\\u00e9\\/\\b\\f\\n\\r\\t"',
  '"\\x41"',
  '"\\u12"',
  "",
  " ",
  '"open',
];

function encoded(text: string): string {
  return toBase64(utf8(text));
}

async function document(text: string): Promise<string> {
  let value;
  try {
    value = readJson(utf8(text), { maxBytes: 1 << 20 });
  } catch (error) {
    if (error instanceof FormatError) return "refused";
    throw error;
  }
  try {
    return await digest(canonical(value));
  } catch (error) {
    if (error instanceof FormatError) return "no canonical form";
    throw error;
  }
}

const RECORDED = `${ROOT}tests/vectors/vllm-0.32/`;
const KINDS: readonly (readonly [string, Dialect])[] = [
  ["chat", "chat"],
  ["completion", "completions"],
  ["messages", "messages"],
  ["responses", "responses"],
  ["embeddings", "pooling"],
];

function recorded(): (readonly [Dialect, Bytes])[] {
  return readdirSync(RECORDED).flatMap((name) => {
    const kind = KINDS.find(([prefix]) => name.startsWith(prefix));
    if (kind === undefined || name.endsWith(".md")) return [];
    return [[kind[1], new Uint8Array(readFileSync(RECORDED + name))] as const];
  });
}

describe("answers", () => {
  test("of a real engine, and damaged ones, say the same", async () => {
    const damage = new Damage(SEED + 4);
    const cases = recorded().flatMap(([dialect, body]) => [
      [dialect, body] as const,
      ...Array.from(
        { length: 12 * TIMES },
        () => [dialect, damage.bytes(body)] as const,
      ),
    ]);
    expect(cases.length).toBeGreaterThan(200);
    const asked = cases.map(([dialect, body]) => [dialect, toBase64(body)]);
    const expected = (await oracle.ask("answers", asked)) as unknown[];
    for (const [at, [dialect, body]] of cases.entries()) {
      const text = Buffer.from(body).toString();
      expect(await answer(dialect, body), text).toEqual(expected[at]);
    }
  });

  test("are cut into events alike, however they come", async () => {
    const damage = new Damage(SEED + 5);
    const streams = recorded()
      .filter(([, body]) => body[0] !== 0x7b)
      .map(([, body]) => body.slice(0, 2000));
    const cases = streams.flatMap((body) =>
      Array.from({ length: 8 * TIMES }, () => damage.chunks(damage.lineEnds(body))),
    );
    const asked = cases.map((chunks) => chunks.map(toBase64));
    expect(cases.map(events)).toEqual(await oracle.ask("streams", asked));
  });
});

function events(chunks: readonly Bytes[]): unknown[] {
  const splitter = new EventSplitter();
  const text = (data: Bytes | undefined) =>
    data === undefined ? null : toBase64(data);
  const found = chunks
    .flatMap((chunk) => splitter.feed(chunk))
    .map((event) => [
      text(event.raw),
      text(event.name),
      text(event.data),
      event.hasComments,
    ]);
  return [...found, text(splitter.flush())];
}

async function answer(dialect: Dialect, body: Bytes): Promise<unknown> {
  const read =
    body[0] === 0x7b
      ? Transcript.ofBody(body, dialect)
      : Transcript.ofStream(body, dialect);
  const outputs: Record<string, string> = {};
  for (const [index, output] of read.outputs()) {
    outputs[String(index)] = await outputDigest(output);
  }
  const { inputTokens, outputTokens } = read.usage;
  return {
    outcome: read.outcome(),
    outputs,
    reasons: read.finishReasons,
    choices: read.choiceCount,
    id: read.responseId ?? null,
    model: read.responseModel ?? null,
    usage: [inputTokens ?? null, outputTokens ?? null],
  };
}

const REQUESTS = [
  {
    model: "m",
    messages: [
      { role: "system", content: [{ type: "text", text: "a" }, "b", { x: 1.5e-9 }] },
      { role: "user", content: "é\ud83d\ude00" },
    ],
    temperature: 1e16,
    top_p: 0.00001,
    n: 2,
    stop: ["\u2028"],
    logit_bias: { "50256": -100, "9": 1.0 },
    stream: true,
  },
  { prompt: ["a", "b"], n: 3, min_p: 0.1, seed: 2 ** 60 },
  { prompt: [1, 2], max_tokens: 5 },
  { input: "x", instructions: "be kind", tools: [] },
  { input: [{ role: "developer", content: null }], tools: [{ type: "function" }] },
  {
    system: [{ type: "text", text: "s", cache_control: { type: "ephemeral" } }],
    messages: [{ role: "user", content: "hi" }],
  },
  { query: "q", documents: ["a"], encoding_format: "float" },
  { file: "sha256:0", language: "en" },
];

test("requests have the same facts", async () => {
  const damage = new Damage(SEED + 6);
  const bodies = REQUESTS.flatMap((value) => {
    const text = JSON.stringify(value);
    return [text, ...Array.from({ length: 10 * TIMES }, () => damage.json(text))];
  });
  const cases = bodies.flatMap((body) =>
    DIALECTS.map((dialect) => [dialect, encoded(body)] as const),
  );
  const expected = (await oracle.ask("requests", cases)) as unknown[];
  for (const [at, [dialect, body]] of cases.entries()) {
    const text = Buffer.from(body, "base64").toString();
    expect(await facts(dialect, fromBase64(body)), text).toEqual(expected[at]);
  }
});

async function facts(dialect: Dialect, body: Bytes): Promise<unknown> {
  try {
    const value = readObject(body, { maxBytes: 1 << 20 });
    const found = await requestFacts(value, dialect);
    const prompt = found.systemPrompt;
    return {
      model: found.model ?? null,
      stream: found.stream,
      choices: found.expectedChoices,
      sampling: found.sampling,
      prompt: prompt === undefined ? null : await digest(utf8(prompt)),
      semantic: (await semanticDigest(found)) ?? null,
    };
  } catch (error) {
    if (error instanceof FormatError) return null;
    throw error;
  }
}
