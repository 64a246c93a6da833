/**
 * The SDKs against a real gateway before a scripted engine: every answer is proven, and
 * what somebody changes on the way is never handed on.
 */

import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

import {
  AttestError,
  type AttestedFetchOptions,
  EvidenceUnavailableError,
  Policy,
  PolicyError,
  TranscriptMismatchError,
  type Verdict,
  attestedFetch,
} from "../src/index.js";
import { Lines, python } from "./oracle.js";

const TEXT = "The capital of France is Paris.";
const USER = [{ role: "user" as const, content: "hello" }];

let gateway: Lines;
let url: string;
let policy: Policy;
let verdicts: Verdict[];

beforeAll(async () => {
  gateway = new Lines(python("real_gateway"));
  const ready = (await gateway.next()) as { url: string; authority: object };
  url = ready.url;
  policy = await Policy.fromJson({ authorities: [ready.authority] });
});

afterAll(() => {
  gateway.end();
});

beforeEach(() => {
  verdicts = [];
});

function proving(options: AttestedFetchOptions = {}): typeof fetch {
  const onEvidence = (verdict: Verdict) => {
    verdicts.push(verdict);
  };
  return attestedFetch(policy, { onEvidence, ...options });
}

/** Somebody between gateway and client, who changes what is answered to a POST. */
function between(
  change: (body: string) => string,
  headers: string[] = [],
): typeof fetch {
  return async (input, init) => {
    const response = await fetch(input, init);
    if (init?.method !== "POST") return response;
    const fields = new Headers(response.headers);
    for (const name of headers) fields.delete(name);
    const { status } = response;
    return new Response(change(await response.text()), { status, headers: fields });
  };
}

// One row: a dialect, whether it streams, and how an SDK asks and reads.

type Ask = (ask: typeof fetch) => Promise<string>;

function openai(ask: typeof fetch): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "x", fetch: ask });
}

function anthropic(ask: typeof fetch): Anthropic {
  return new Anthropic({ baseURL: url, apiKey: "x", fetch: ask });
}

function vercel(ask: typeof fetch): ReturnType<typeof createOpenAI> {
  return createOpenAI({ baseURL: `${url}/v1`, apiKey: "x", fetch: ask });
}

const CALLS: Record<string, readonly [string, boolean, Ask]> = {
  "openai chat": [
    "chat",
    false,
    async (ask) => {
      const answer = await openai(ask).chat.completions.create({
        model: "tiny",
        messages: USER,
      });
      return answer.choices[0]?.message.content ?? "";
    },
  ],
  "openai chat stream": [
    "chat",
    true,
    async (ask) => {
      const chunks = await openai(ask).chat.completions.create({
        model: "tiny",
        messages: USER,
        stream: true,
      });
      let text = "";
      for await (const chunk of chunks) text += chunk.choices[0]?.delta.content ?? "";
      return text;
    },
  ],
  "openai chat helper": [
    "chat",
    true,
    async (ask) => {
      const stream = openai(ask).chat.completions.stream({
        model: "tiny",
        messages: USER,
      });
      return (await stream.finalContent()) ?? "";
    },
  ],
  "openai completion": [
    "completions",
    false,
    async (ask) => {
      const answer = await openai(ask).completions.create({
        model: "tiny",
        prompt: "hello",
      });
      return answer.choices[0]?.text ?? "";
    },
  ],
  "openai completion stream": [
    "completions",
    true,
    async (ask) => {
      const chunks = await openai(ask).completions.create({
        model: "tiny",
        prompt: "hello",
        stream: true,
      });
      let text = "";
      for await (const chunk of chunks) text += chunk.choices[0]?.text ?? "";
      return text;
    },
  ],
  "openai response": [
    "responses",
    false,
    async (ask) => {
      const client = openai(ask);
      const answer = await client.responses.create({ model: "tiny", input: "hello" });
      return answer.output_text;
    },
  ],
  "openai response stream": [
    "responses",
    true,
    async (ask) => {
      const events = await openai(ask).responses.create({
        model: "tiny",
        input: "hello",
        stream: true,
      });
      let text = "";
      for await (const event of events) {
        if (event.type === "response.output_text.delta") text += event.delta;
      }
      return text;
    },
  ],
  "anthropic message": [
    "messages",
    false,
    async (ask) => {
      const answer = await anthropic(ask).messages.create({
        model: "tiny",
        max_tokens: 8,
        messages: USER,
      });
      const block = answer.content[0];
      return block?.type === "text" ? block.text : "";
    },
  ],
  "anthropic message stream": [
    "messages",
    true,
    async (ask) => {
      const stream = anthropic(ask).messages.stream({
        model: "tiny",
        max_tokens: 8,
        messages: USER,
      });
      return stream.finalText();
    },
  ],
  "ai sdk generateText, chat": [
    "chat",
    false,
    async (ask) => {
      const model = vercel(ask).chat("tiny");
      return (await generateText({ model, prompt: "hello", maxRetries: 0 })).text;
    },
  ],
  "ai sdk streamText, chat": [
    "chat",
    true,
    async (ask) => streamed(vercel(ask).chat("tiny")),
  ],
  "ai sdk generateText, responses": [
    "responses",
    false,
    async (ask) => {
      const model = vercel(ask).responses("tiny");
      return (await generateText({ model, prompt: "hello", maxRetries: 0 })).text;
    },
  ],
  "ai sdk streamText, responses": [
    "responses",
    true,
    async (ask) => streamed(vercel(ask).responses("tiny")),
  ],
};

/** `streamText` tells errors to `onError` and among the parts, and throws none. */
async function streamed(
  model: Parameters<typeof streamText>[0]["model"],
): Promise<string> {
  const result = streamText({
    model,
    prompt: "hello",
    maxRetries: 0,
    onError: () => undefined,
  });
  let text = "";
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "error") throw part.error as Error;
  }
  return text;
}

const names = Object.keys(CALLS);

function call(name: string): readonly [string, boolean, Ask] {
  const found = CALLS[name];
  if (found === undefined) throw new Error(name);
  return found;
}

async function asked(): Promise<number> {
  return ((await gateway.ask("requests")) as unknown[]).length;
}

/** The error of ours, and how often the engine was asked. */
async function failure(ask: () => Promise<unknown>): Promise<[AttestError, number]> {
  const before = await asked();
  const error = await ask().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  const found = AttestError.of(error);
  if (found === undefined) throw new Error("it was handed on", { cause: error });
  return [found, (await asked()) - before];
}

describe.each(names)("%s", (name) => {
  const [dialect, isStream, ask] = call(name);

  test.each(["at-end", "before-use"] as const)("is proven, %s", async (mode) => {
    await gateway.ask("answer", dialect, isStream, TEXT);
    expect(await ask(proving({ mode }))).toBe(TEXT);
    const [verdict] = verdicts;
    expect(verdicts.length).toBe(1);
    expect(verdict?.proven).toBe(true);
    expect(verdict?.step(7)?.detail).toContain("nonce matches");
    expect(verdict?.claims?.res.outcome).toBe("complete");
  });

  test("finishes under the default delivery without us", async () => {
    await gateway.ask("answer", dialect, isStream, TEXT);
    const heads: Headers[] = [];
    const seen: typeof fetch = async (input, init) => {
      const response = await fetch(input, init);
      heads.push(response.headers);
      return response;
    };
    expect(await ask(seen)).toBe(TEXT);
    expect(heads.length).toBe(1); // nothing was asked twice
    expect(heads[0]?.get("attestation-id")).toMatch(/^att_/);
  });

  test("changed on the way", async () => {
    await gateway.ask("answer", dialect, isStream, TEXT);
    const lie = between((body) => body.replaceAll("Paris", "Lyon."));
    const [error, times] = await failure(() => ask(proving({ fetch: lie })));
    expect(error).toBeInstanceOf(TranscriptMismatchError);
    expect(times).toBe(1); // the SDK does not take it for a broken connection
    expect(error.findings[0]?.code).toMatch(/^content\./);
  });

  test("stripped of its attestation", async () => {
    await gateway.ask("answer", dialect, isStream, TEXT);
    const strip = between(
      (body) => body.replace(/: attestation .*\n\n/, ""),
      ["attestation", "attestation-id"],
    );
    const [error] = await failure(() => ask(proving({ fetch: strip })));
    expect(error).toBeInstanceOf(EvidenceUnavailableError);
    expect(error.message).toContain("carries no attestation");
  });

  test("of another time", async () => {
    await gateway.ask("answer", dialect, isStream, TEXT);
    const first: Response[] = [];
    const replay: typeof fetch = async (input, init) => {
      if (init?.method !== "POST") return fetch(input, init);
      const kept = first[0] ?? (await fetch(input, init));
      first[0] = kept.clone();
      return kept;
    };
    expect(await ask(proving({ fetch: replay }))).toBe(TEXT);
    const [error] = await failure(() => ask(proving({ fetch: replay })));
    expect(error.findings[0]?.code).toBe("freshness.nonce");
  });

  if (!isStream) return;

  test("cut", async () => {
    await gateway.ask("cut", dialect, TEXT);
    const [error] = await failure(() => ask(proving()));
    expect(error).toBeInstanceOf(PolicyError);
    expect(error.message).toContain("outcome truncated");
  });

  test("text that imitates an end", async () => {
    const text =
      'x\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\ndata: [DONE]\n\n';
    await gateway.ask("answer", dialect, true, text);
    expect(await ask(proving())).toBe(text);
  });
});

describe("before use", () => {
  test("nothing of a forged stream is handed on", async () => {
    await gateway.ask("answer", "chat", true, TEXT);
    const lie = between((body) => body.replaceAll("Paris", "Lyon."));
    const seen: string[] = [];
    const ask = async (mode: "at-end" | "before-use") => {
      const chunks = await openai(
        proving({ mode, fetch: lie }),
      ).chat.completions.create({
        model: "tiny",
        messages: USER,
        stream: true,
      });
      for await (const chunk of chunks)
        seen.push(chunk.choices[0]?.delta.content ?? "");
    };
    await failure(() => ask("before-use"));
    expect(seen).toEqual([]);
    await failure(() => ask("at-end"));
    expect(seen.join("")).toContain("Lyon");
  });
});

describe("plain fetch", () => {
  const body = JSON.stringify({ model: "tiny", messages: USER });
  const headers = { "content-type": "application/json" };
  const post = (ask: typeof fetch, path = "/v1/chat/completions") =>
    ask(url + path, { method: "POST", body, headers });

  test("hands on a proven answer untouched", async () => {
    await gateway.ask("answer", "chat", false, TEXT);
    const response = await post(proving());
    expect(response.url).toBe(`${url}/v1/chat/completions`);
    const answer = (await response.json()) as { choices: { message: unknown }[] };
    expect(answer.choices[0]?.message).toEqual({ role: "assistant", content: TEXT });
  });

  test("takes a Request", async () => {
    await gateway.ask("answer", "chat", false, TEXT);
    const request = new Request(`${url}/v1/chat/completions`, {
      method: "POST",
      body,
      headers,
    });
    expect((await proving()(request)).status).toBe(200);
    expect(verdicts[0]?.proven).toBe(true);
  });

  test("rejects what is not proven", async () => {
    await gateway.ask("answer", "chat", false, TEXT);
    const lie = between((text) => text.replaceAll("Paris", "Lyon."));
    await expect(post(proving({ fetch: lie }))).rejects.toThrow(
      TranscriptMismatchError,
    );
  });

  test("hands on errors at once", async () => {
    await gateway.ask("raw", 400, "application/json", '{"error": {"message": "no"}}');
    const response = await post(proving());
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("no");
  });

  test("lets unattested requests pass", async () => {
    await gateway.ask("raw", 200, "application/json", '{"data": []}');
    expect((await proving()(`${url}/v1/models`)).status).toBe(200);
    expect(verdicts).toEqual([]);
  });

  test("proves nothing to those who trust another authority", async () => {
    await gateway.ask("answer", "chat", false, TEXT);
    const stranger = await Policy.fromJson({
      authorities: [
        {
          kty: "OKP",
          crv: "Ed25519",
          x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        },
      ],
    });
    await expect(post(attestedFetch(stranger))).rejects.toThrow("step 1 manifest");
  });

  test("an answer about another request", async () => {
    await gateway.ask("answer", "chat", false, TEXT);
    const other: typeof fetch = (input, init) =>
      fetch(input, init?.method === "POST" ? { ...init, body: `${body} ` } : init);
    await expect(post(proving({ fetch: other }))).rejects.toThrow("the request is not");
  });

  test("a redirect is not followed", async () => {
    const away: typeof fetch = () =>
      Promise.resolve(new Response(null, { status: 307, headers: { location: "/x" } }));
    await expect(post(proving({ fetch: away }))).rejects.toThrow("redirect");
  });

  test("evidence that cannot be had is no yes", async () => {
    await gateway.ask("answer", "chat", false, TEXT);
    const alone: typeof fetch = (input, init) =>
      init?.method === "POST" ? fetch(input, init) : Promise.reject(new TypeError("x"));
    await expect(post(proving({ fetch: alone }))).rejects.toThrow(
      EvidenceUnavailableError,
    );
  });

  test("error page instead of an answer", async () => {
    const page: typeof fetch = () => Promise.resolve(new Response("<html>"));
    await expect(post(proving({ fetch: page }))).rejects.toThrow(
      "carries no attestation",
    );
  });
});

test("evidence verifies again from its file", async () => {
  await gateway.ask("answer", "chat", true, TEXT);
  const { readBundle, writeBundle, verify } = await import("../src/index.js");
  const files: Uint8Array[] = [];
  const ask = attestedFetch(policy, {
    onEvidence: (_, bundle) => files.push(writeBundle(bundle)),
  });
  await call("openai chat stream")[2](ask);
  const [file] = files;
  if (file === undefined) throw new Error("no evidence");
  const verdict = await verify(readBundle(file), policy, { at: Date.now() / 1000 });
  expect(verdict.word).toBe("proven");
});
