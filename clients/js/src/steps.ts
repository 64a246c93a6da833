/** A verification in numbered steps: each is a line of the verdict. */

import {
  AttestError,
  ContentOnlyError,
  EvidenceUnavailableError,
  UnsupportedVersionError,
} from "./errors.js";
import type { Finding } from "./reasons.js";

/** What became of one step. */
export type Status = "ok" | "failed" | "unknown" | "not checked" | "content only";

/** One line of the verdict. */
export interface Step {
  readonly number: number;
  readonly name: string;
  readonly status: Status;
  readonly detail: string;
  /** Class of the error when the status is failed, unknown or content only, else "". */
  readonly code: string;
  /**
   * Why the step is not simply passed, by the codes of `reasons.ts`; a step that is ok
   * may have some too.
   */
  readonly findings: readonly Finding[];
}

/** A step that is ok, and what must be said of it. */
export interface Passed {
  readonly detail: string;
  readonly findings: readonly Finding[];
}

/** A step that has nothing to look at, and the reason for that; no error. */
export class NotChecked {
  readonly findings: readonly Finding[];

  constructor(
    readonly detail: string,
    reason: string,
  ) {
    this.findings = [{ code: reason, detail }];
  }
}

/** One check: gives its line, or throws. */
export type Check = () => Promise<string | Passed | NotChecked>;

/** The lines of some checks, numbered from 0, up to the first failed or unknown. */
export async function runSteps(
  checks: readonly (readonly [string, Check])[],
): Promise<Step[]> {
  const steps: Step[] = [];
  for (const [number, [name, check]] of checks.entries()) {
    const step = await runStep(number, name, check);
    steps.push(step);
    if (step.status === "failed" || step.status === "unknown") break;
  }
  return steps;
}

async function runStep(number: number, name: string, check: Check): Promise<Step> {
  try {
    const found = await check();
    if (typeof found === "string") {
      return { number, name, status: "ok", detail: found, code: "", findings: [] };
    }
    const status = found instanceof NotChecked ? "not checked" : "ok";
    const { detail, findings } = found;
    return { number, name, status, detail, code: "", findings };
  } catch (error) {
    // A fault of this program is no verdict about anybody's evidence.
    if (!(error instanceof AttestError)) throw error;
    const { message: detail, code } = error;
    const own = [{ code: `${name}.${code}`, detail }];
    const findings = error.findings.length > 0 ? error.findings : own;
    return { number, name, status: statusOf(error), detail, code, findings };
  }
}

/**
 * Some errors leave the question open; every other is a definite no, since evidence that
 * breaks its form proves nothing and never will.
 */
function statusOf(error: AttestError): Status {
  if (error instanceof ContentOnlyError) return "content only";
  const cannotTell =
    error instanceof EvidenceUnavailableError ||
    error instanceof UnsupportedVersionError;
  return cannotTell ? "unknown" : "failed";
}
