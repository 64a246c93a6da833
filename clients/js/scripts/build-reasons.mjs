/** Writes src/reasons.ts from attest/reasons.py: the table has one home. */

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { format } from "prettier";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const root = here("../../../");
const { stdout } = spawnSync(`${root}.venv/bin/python`, ["-m", "fakes.js.oracle"], {
  cwd: root,
  env: { ...process.env, PYTHONPATH: `${root}tests` },
  input: '["tables"]\n',
});
const { reasons } = JSON.parse(stdout);
const text = `
/**
 * Why a step of a verification is not simply passed: one stable code for each reason.
 *
 * Written by scripts/build-reasons.mjs from attest/reasons.py, which says what the codes
 * promise.
 */

/** One reason, as it was met. What is empty is left out. */
export interface Finding {
  readonly code: string;
  /** One line for people. It may hold words from outside, spelt in ASCII. */
  readonly detail: string;
  /** What it speaks of, such as the id of a principle. */
  readonly about?: string;
  readonly expected?: string;
  readonly found?: string;
}

/** What a step then is; a note is said of a step that is ok. */
export type ReasonStatus = "failed" | "unknown" | "not checked" | "content only" | "note";

export const REASONS: Readonly<
  Record<string, { readonly status: ReasonStatus; readonly meaning: string }>
> = ${JSON.stringify(reasons)};
`;
const options = { parser: "typescript", printWidth: 88 };
writeFileSync(here("../src/reasons.ts"), await format(text, options));
