/** What the page says of a verdict, for somebody who is no engineer. */

import type { Measured, Outcome, SystemPrompt } from "../claims.js";
import type { Tier } from "../policy.js";
import type { Status } from "../steps.js";
import type { Word } from "../verdict.js";

/** Title, and what it means when the step is passed. */
export const STEPS: readonly (readonly [string, string])[] = [
  [
    "The evidence is well-formed",
    "Nothing in the signed statement can be read in two ways.",
  ],
  [
    "The authority signed this model's description",
    "The key that you gave signed the training manifest, and it was valid at that time.",
  ],
  [
    "The gateway's key is vouched for",
    "The authority, or somebody whom it named, certified the key that signed the answer.",
  ],
  [
    "The start-up record is the gateway's own",
    "It says which model was loaded, and how that was checked.",
  ],
  [
    "The gateway signed this very statement",
    "Nobody else can have made it, and not a letter of it was changed since.",
  ],
  [
    "All documents tell the same story",
    "Statement, start-up record, key and manifest name the same model and weights.",
  ],
  [
    "Question and answer are unchanged",
    "What is in this file is, byte for byte, what went through the gateway.",
  ],
  ["The time is plausible", "It was not signed in the future."],
  [
    "It stands in a public log",
    "Independent witnesses saw it there: it can't be taken back or dated back unseen.",
  ],
  [
    "Nothing was recalled",
    "Neither model nor key had been revoked when it was signed.",
  ],
  [
    "It meets what was demanded",
    "The tier, the measurement and the way the answer ended.",
  ],
];

/** One word per status, beside its sign. */
export const STATUSES: Readonly<
  Record<Status | "not reached", readonly [string, string]>
> = {
  ok: ["✓", "ok"],
  failed: ["✗", "failed"],
  unknown: ["?", "cannot tell"],
  "not checked": ["–", "not checked"],
  "content only": ["≈", "text only"],
  "not reached": ["·", "not reached"],
};

/** The headline, to which the tier is added where it is a yes, and a sentence below. */
export const HEADLINES: Readonly<Record<Word, readonly [string, string]>> = {
  proven: [
    "Proven",
    "The key that signed this is vouched for by the authority that you named, and " +
      "nothing was changed since.",
  ],
  content_only: [
    "The text is proven, this copy is not the original",
    "What the answer says is what was signed. Its bytes are others: it was written anew " +
      "or reformatted on the way.",
  ],
  false: ["Not proven", "A check failed, so do not rely on this. The reason:"],
  unknown: [
    "Cannot be told",
    "Nothing was found wrong, but something that is needed is missing, too old or too " +
      "new for this page:",
  ],
};

/** What is said instead where the file holds no answer. */
export const RECORD_ONLY =
  "The record of an answer is proven. The answer itself is not in this file, so nothing " +
  "is said about any text.";

/** How far each tier reaches, and who could still lie. */
export const TIERS: Readonly<Record<Tier, readonly [string, string]>> = {
  T0: ["Signed by some key.", "Anybody can have made it."],
  T1: [
    "The training authority, or somebody it named, vouches for the key that signed.",
    "The operator could still lie: by a patched program on his own machine, or with a " +
      "key that was certified in good faith. He signed for it, and is accountable.",
  ],
  T2: [
    "As T1, and the answer stands in a log that independent witnesses watch.",
    "The operator could still lie about what ran, but not silently: nothing can be " +
      "dropped, forked or dated back.",
  ],
  T3: [
    "As T2, and the signing key is bound to measured hardware.",
    "A model program outside that hardware could still be another.",
  ],
  T4: [
    "As T3, with the model program, weights and accelerators inside the same hardware.",
    "The makers of the hardware.",
  ],
};

/** What no tier says. */
export const NEVER_PROVEN =
  "It never says that the answer is true, safe or useful, or that it obeys the constitution.";

export const MEASUREMENTS: Readonly<Record<Measured, string>> = {
  engine:
    "every number of the model was hashed inside the program that ran it, in the very " +
    "memory that it was loaded from",
  files: "the model's files were hashed, not what was loaded from them",
  asserted: "nobody measured them; this is the operator's word",
};

export const OUTCOMES: Readonly<Record<Outcome, string>> = {
  complete: "the answer is whole",
  incomplete: "the model stopped without saying that it was done",
  truncated: "the end of the answer is missing",
  client_disconnected: "whoever asked left before the end",
  upstream_error: "the model program reported an error",
  upstream_malformed: "the model program sent something unreadable",
  refused: "the gateway refused the request",
};

export const PROMPTS: Readonly<Record<SystemPrompt, string>> = {
  governed: "one that the training authority lists",
  unlisted: "one that the training authority does not list",
  absent: "none",
};
