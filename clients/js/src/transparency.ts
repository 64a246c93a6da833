/**
 * Whether a statement stands in a log that witnesses watch, by a policy. With enough
 * cosignatures it can't be taken back, shown to one and hidden from another, or dated
 * before it was made.
 */

import type { Bytes } from "./bytes.js";
import { MAX_SKEW_SECONDS } from "./certificates.js";
import { ExpiredError, VerificationError } from "./errors.js";
import { type LogProof, type Logged, majority, verifyLogProof } from "./log/proof.js";
import type { Manifest } from "./manifest.js";
import type { Policy } from "./policy.js";

/** What a verified log proof adds. */
export interface Transparency {
  /** Why it does not reach tier T2, by its code; "" where it does. */
  readonly shortfall: "" | "log.unwitnessed" | "log.late";
  readonly detail: string;
  /** When enough witnesses had seen it, undefined where too few did. */
  readonly loggedAt: number | undefined;
}

/** Times of one statement, in seconds since the epoch, UTC. */
export interface Times {
  /** As the statement itself says. */
  readonly signedAt: number;
  /** The verifier's clock. */
  readonly at: number;
}

/**
 * Judge a log proof. The policy's logs and witnesses stand above the manifest's.
 *
 * @param leaf SHA-256 of the statement's signing input.
 *
 * Throws FormatError, SignatureError, VerificationError: the proof does not hold, or
 * witnesses saw the statement before it says that it was signed. Throws ExpiredError: it
 * was cosigned in the future of this clock.
 */
export async function checkLog(
  proof: LogProof,
  leaf: Bytes,
  times: Times,
  trust: { readonly manifest: Manifest; readonly policy: Policy },
): Promise<Transparency> {
  const { manifest, policy } = trust;
  const logs = policy.logs ?? manifest.logs;
  const witnesses = policy.witnesses ?? manifest.witnesses;
  const found = await verifyLogProof(proof, leaf, logs, witnesses);
  const [first, last] = [found.cosignatures.at(0), found.cosignatures.at(-1)];
  if (first !== undefined && times.signedAt > first.at + MAX_SKEW_SECONDS) {
    throw new VerificationError(
      `log: a witness saw the token ${times.signedAt - first.at} s before it says it ` +
        "was signed",
      { reason: "log.back_dated" },
    );
  }
  if (last !== undefined && last.at > times.at + MAX_SKEW_SECONDS) {
    throw new ExpiredError("log: cosigned in the future of this clock", {
      reason: "log.future",
    });
  }
  const { size, origin } = found.checkpoint;
  const where = `entry ${proof.index} of ${size} in ${origin}`;
  return witnessed(found, policy, times.signedAt, where);
}

function witnessed(
  found: Logged,
  policy: Policy,
  signedAt: number,
  where: string,
): Transparency {
  const needed = policy.witnessThreshold ?? majority(found.witnessCount);
  const made = found.cosignatures.length;
  const count = `${where}; ${made} of ${found.witnessCount} witnesses cosigned`;
  const loggedAt = found.cosignatures[needed - 1]?.at;
  if (loggedAt === undefined) {
    const detail = `${count}, ${needed} must for tier T2`;
    return { shortfall: "log.unwitnessed", detail, loggedAt };
  }
  const delay = Math.max(0, loggedAt - signedAt);
  if (delay > policy.maxLogDelaySeconds) {
    const detail = `${count}, but ${delay} s after iat: it could be back-dated`;
    return { shortfall: "log.late", detail, loggedAt };
  }
  return { shortfall: "", detail: `${count}, within ${delay} s`, loggedAt };
}
