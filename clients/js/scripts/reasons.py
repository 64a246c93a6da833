"""Write src/reasons.ts from attest/reasons.py.

    python clients/js/scripts/reasons.py && npm --prefix clients/js run format

The table has one home; a test holds the copy to it.
"""

import json
from pathlib import Path

from attest.reasons import REASONS

TARGET = Path(__file__).parents[1] / "src" / "reasons.ts"
HEAD = """\
/**
 * Why a step of a verification is not simply passed: one stable code for each reason.
 *
 * Written by scripts/reasons.py from attest/reasons.py, which says what the codes promise.
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
> = {
"""


def text() -> str:
    """The whole file, before Prettier."""
    rows = {
        reason.code: {"status": reason.status, "meaning": reason.meaning}
        for reason in REASONS.values()
    }
    return f"{HEAD[:-2]}{json.dumps(rows)};\n"


if __name__ == "__main__":
    TARGET.write_text(text())
