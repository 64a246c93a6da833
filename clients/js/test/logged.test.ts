/** Where tier T2 is demanded: the head of the log that covers an answer comes after it. */

import { afterAll, beforeAll, expect, test } from "vitest";

import {
  EvidenceUnavailableError,
  Policy,
  TranscriptMismatchError,
  type Verdict,
  attestedFetch,
} from "../src/index.js";
import { Lines, python } from "./oracle.js";

const TEXT = "The capital of France is Paris.";

let gateway: Lines;
let url: string;
let authority: object;

beforeAll(async () => {
  gateway = new Lines(python("real_gateway", "log"));
  const ready = (await gateway.next()) as { url: string; authority: object };
  ({ url, authority } = ready);
});

afterAll(() => {
  gateway.end();
});

async function post(ask: typeof fetch, stream: boolean): Promise<string> {
  const body = JSON.stringify({
    model: "tiny",
    messages: [{ role: "user", content: "hello" }],
    stream,
  });
  const headers = { "content-type": "application/json" };
  const path = `${url}/v1/chat/completions`;
  return (await ask(path, { method: "POST", body, headers })).text();
}

test.each([false, true])("it is waited for, streamed: %s", async (stream) => {
  await gateway.ask("answer", "chat", stream, TEXT);
  const policy = await Policy.fromJson({ authorities: [authority], min_tier: "T2" });
  const verdicts: Verdict[] = [];
  const onEvidence = (verdict: Verdict) => {
    verdicts.push(verdict);
  };
  expect(await post(attestedFetch(policy, { onEvidence }), stream)).toContain("Paris");
  expect(verdicts.map((verdict) => verdict.tier)).toEqual(["T2"]);
});

test("but not for ever", async () => {
  await gateway.ask("answer", "chat", false, TEXT);
  // More cosignatures than there are witnesses.
  const policy = await Policy.fromJson({
    authorities: [authority],
    min_tier: "T2",
    witness_threshold: 9,
  });
  const error: unknown = await post(attestedFetch(policy), false).catch(
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(EvidenceUnavailableError);
  expect((error as Error).message).toContain("no witnessed checkpoint covers");
});

test("nor for what it would not mend", async () => {
  await gateway.ask("answer", "chat", false, TEXT);
  const policy = await Policy.fromJson({ authorities: [authority], min_tier: "T2" });
  const lie: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (init?.method !== "POST") return response;
    const body = (await response.text()).replaceAll("Paris", "Lyon.");
    return new Response(body, { headers: response.headers });
  };
  const asking = post(attestedFetch(policy, { fetch: lie }), false);
  await expect(asking).rejects.toThrow(TranscriptMismatchError);
});

test("an id that another process may know is asked for again", async () => {
  await gateway.ask("answer", "chat", false, TEXT);
  const policy = await Policy.fromJson({ authorities: [authority], min_tier: "T2" });
  const refusing = (times: number): typeof fetch => {
    let left = times;
    return (input, init) => {
      if (init?.method === "POST" || left === 0) return fetch(input, init);
      left -= 1;
      const headers = { "retry-after": "0" };
      return Promise.resolve(new Response(null, { status: 404, headers }));
    };
  };
  const text = await post(attestedFetch(policy, { fetch: refusing(2) }), false);
  expect(text).toContain("Paris");
  const asking = post(attestedFetch(policy, { fetch: refusing(99) }), false);
  await expect(asking).rejects.toThrow(EvidenceUnavailableError);
});
