/** The vectors that every implementation is held to: tests/vectors. */

import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";

import { Policy, readBundle, verify } from "../src/index.js";

const VECTORS = new URL("../../../tests/vectors/", import.meta.url);

interface Case {
  name: string;
  changes: Record<string, unknown>;
  policy?: object;
  expected: {
    verdict: string;
    tier: string;
    problem: string | null;
    reasons: string[];
  };
}

interface Vector {
  at: number;
  policy: object;
  bundle: Record<string, unknown>;
  cases: Case[];
}

const names = ["damage", "verdicts"].flatMap((folder) =>
  readdirSync(new URL(folder, VECTORS))
    .filter((name) => name.endsWith(".json"))
    .map((name) => `${folder}/${name}`),
);

test("there are vectors", () => {
  expect(names.length).toBeGreaterThan(10);
});

describe.each(names)("%s", (file) => {
  const vector = JSON.parse(readFileSync(new URL(file, VECTORS), "utf8")) as Vector;

  test.each(vector.cases.map((item) => [item.name, item] as const))(
    "%s",
    async (_, item) => {
      const changed = { ...vector.bundle, ...item.changes };
      const kept = Object.entries(changed).filter(([, value]) => value !== null);
      const text = JSON.stringify(Object.fromEntries(kept));
      const bundle = readBundle(new TextEncoder().encode(text));
      const policy = await Policy.fromJson({ ...vector.policy, ...item.policy });
      const verdict = await verify(bundle, policy, { at: vector.at });
      const problem = verdict.problem;
      expect({
        verdict: verdict.word,
        tier: verdict.tier,
        problem: problem?.name ?? null,
        reasons: (problem?.findings ?? []).map((finding) => finding.code).sort(),
      }).toEqual({
        verdict: item.expected.verdict,
        tier: item.expected.tier,
        problem: item.expected.problem,
        reasons: [...item.expected.reasons].sort(),
      });
    },
  );
});
