/** The decisions about one exchange: what evidence it needs, and whether that proves it. */

import {
  type Bundle,
  type Endorsements,
  readBundle,
  readEndorsements,
} from "../bundle.js";
import { type Bytes, utf8 } from "../bytes.js";
import { ID_HEADER, WELL_KNOWN } from "../delivery.js";
import { splitPresentation } from "../disclosures.js";
import {
  AttestError,
  EvidenceUnavailableError,
  InputError,
  TranscriptMismatchError,
} from "../errors.js";
import { member, readObject } from "../json.js";
import type { Policy } from "../policy.js";
import { parseToken, tokenDigest } from "../tokens.js";
import type { Verdict } from "../verdict.js";
import { verify } from "../verify.js";

/** A manifest of 8 MiB with room for the certificates. */
export const MAX_EVIDENCE = 16 * 1024 * 1024;
const ID = /^[A-Za-z0-9_-]{1,128}$/;
const MAX_WAIT_SECONDS = 10;
/** Of an id that is unknown where it was asked for. */
const MAX_TRIES = 3;
/** A gateway signs a head once a second, and asks its witnesses then. */
const LOG_PAUSES = [0.5, 1, 1.5] as const;
const NOT_YET_LOGGED = ["log.not_given", "log.unwitnessed"];
/** Replicas behind one address have a boot each. */
const MAX_BOOTS = 16;
const UNREADABLE: Endorsements = {
  keyCertificates: [],
  bootRecord: "",
  manifest: utf8("{}"),
};

/** Called with what was found about each attested answer, before it is handed on. */
export type OnEvidence = (verdict: Verdict, bundle: Bundle) => void;

/** What came of asking the gateway for a path. */
export interface Fetched {
  readonly status: number;
  readonly body: Bytes;
  readonly retryAfter: string | null;
}

/** One request that must be attested, and what the head of its answer says. */
export interface Exchange {
  /** URL under which the gateway's paths lie, without a slash at the end. */
  readonly gateway: string;
  readonly request: Bytes;
  readonly nonce: string;
  readonly status: number;
  /** The attestation's id, undefined where the answer names none. */
  readonly attestationId: string | undefined;
  /**
   * GET a path of the gateway with the credentials of the exchange. Throws
   * EvidenceUnavailableError.
   */
  readonly get: (path: string) => Promise<Fetched>;
}

/** The id in the head of an answer; it becomes part of a URL. */
export function attestationId(headers: Headers): string | undefined {
  const found = headers.get(ID_HEADER) ?? "";
  return ID.test(found) ? found : undefined;
}

/**
 * Judges the answers that one `fetch` gets. Endorsements are kept by the digest of their
 * boot record, whoever served them: they carry their own proof.
 */
export class Examiner {
  private readonly boots = new Map<string, Endorsements>();

  constructor(
    private readonly policy: Policy,
    private readonly clock: () => number,
    private readonly onEvidence: OnEvidence | undefined,
  ) {}

  /** Whether somebody wants the evidence. */
  get keeps(): boolean {
    return this.onEvidence !== undefined;
  }

  /**
   * Return when the answer is proven; the evidence is handed over either way. Where tier
   * T2 is demanded, the gateway is asked again for up to 3 s until a witnessed checkpoint
   * covers the attestation.
   *
   * @param token The attestation, when it came with the answer.
   * @param response The whole body, as received.
   *
   * Throws VerificationError: a definite no. Throws EvidenceUnavailableError: cannot tell.
   */
  async judge(
    exchange: Exchange,
    token: string | undefined,
    response: Bytes,
  ): Promise<void> {
    let [verdict, bundle] = await this.examined(exchange, token, response);
    let waiting = awaitsLog(verdict, this.policy);
    for (const pause of LOG_PAUSES) {
      if (!waiting) break;
      await sleep(pause);
      [verdict, bundle] = await this.examined(exchange, token, response);
      waiting = awaitsLog(verdict, this.policy);
    }
    this.onEvidence?.(verdict, bundle);
    if (waiting) {
      throw new EvidenceUnavailableError(
        "no witnessed checkpoint covers the attestation after 3 s, and the policy " +
          "demands T2",
        { hint: "ask for the bundle again later; are log and witnesses up?" },
      );
    }
    verdict.throwUnlessProven();
    const attested = verdict.claims?.res.status;
    if (attested !== exchange.status) {
      throw new TranscriptMismatchError(
        `the answer came with status ${exchange.status}, attested is ${attested ?? "none"}`,
      );
    }
  }

  private async examined(
    exchange: Exchange,
    token: string | undefined,
    response: Bytes,
  ): Promise<[Verdict, Bundle]> {
    const found =
      token === undefined || demandsMore(this.policy)
        ? await this.byId(exchange)
        : { ...(await this.endorsements(exchange, token)), token };
    const bundle = { ...found, request: exchange.request, response };
    const verdict = await verify(bundle, this.policy, {
      at: Math.floor(this.clock()),
      nonce: exchange.nonce,
    });
    return [verdict, bundle];
  }

  private async endorsements(exchange: Exchange, token: string): Promise<Endorsements> {
    const boot = namedBoot(token);
    if (boot === undefined) return UNREADABLE;
    const kept = this.boots.get(boot);
    if (kept !== undefined) return kept;
    let found: Endorsements | undefined;
    let problem: EvidenceUnavailableError | undefined;
    // A replica may answer for another one; a shared store knows the boots of all.
    for (const source of [() => wellKnown(exchange), () => this.byId(exchange)]) {
      try {
        found = await source();
      } catch (error) {
        if (!(error instanceof EvidenceUnavailableError)) throw error;
        problem ??= error;
        continue;
      }
      if ((await this.remember(found)) === boot) return found;
    }
    if (found === undefined && problem !== undefined) throw problem;
    return found ?? UNREADABLE;
  }

  private async byId(exchange: Exchange): Promise<Bundle> {
    const id = exchange.attestationId;
    if (id === undefined) {
      throw new EvidenceUnavailableError("the answer carries no attestation", {
        hint: `is it a gateway's? See ${exchange.gateway}${WELL_KNOWN}`,
      });
    }
    const path = `/v1/attestations/${id}`;
    let fetched = await exchange.get(path);
    let tries = MAX_TRIES;
    for (let waited = 0; ;) {
      // 404 with Retry-After: another process of the gateway may still have it open.
      const elsewhere = fetched.status === 404 && fetched.retryAfter !== null;
      if (fetched.status !== 202 && !(elsewhere && tries > 0)) break;
      if (elsewhere) tries -= 1;
      const pause = pauseOf(fetched.retryAfter);
      waited += pause;
      if (waited > MAX_WAIT_SECONDS) {
        throw new EvidenceUnavailableError(
          `${path}: not ready after ${MAX_WAIT_SECONDS} s`,
          { hint: "ask for it again later; the answer is not proven until then" },
        );
      }
      await sleep(pause);
      fetched = await exchange.get(path);
    }
    return usable(fetched, path, () => readBundle(fetched.body));
  }

  private async remember(found: Endorsements): Promise<string | undefined> {
    let boot: string;
    try {
      boot = await tokenDigest(parseToken(found.bootRecord, "eat+jwt"));
    } catch (error) {
      if (error instanceof AttestError) return undefined;
      throw error;
    }
    const oldest = this.boots.keys().next();
    if (this.boots.size >= MAX_BOOTS && oldest.done !== true) {
      this.boots.delete(oldest.value);
    }
    const { keyCertificates, bootRecord, manifest } = found;
    this.boots.set(boot, { keyCertificates, bootRecord, manifest });
    return boot;
  }
}

async function wellKnown(exchange: Exchange): Promise<Endorsements> {
  const fetched = await exchange.get(WELL_KNOWN);
  return usable(fetched, WELL_KNOWN, () =>
    readEndorsements(readObject(fetched.body, { maxBytes: MAX_EVIDENCE })),
  );
}

/** Whether a log proof or status lists are needed: the gateway's bundle has them. */
function demandsMore(policy: Policy): boolean {
  const needsNoMore = policy.minTier === "T0" || policy.minTier === "T1";
  return !needsNoMore || policy.maxStatusAgeSeconds !== null;
}

/** Whether a checkpoint that is still to come could be all that is missing. */
function awaitsLog(verdict: Verdict, policy: Policy): boolean {
  const { problem, manifest } = verdict;
  const logged = verdict.step(8);
  if (problem === undefined || logged === undefined || manifest === undefined) {
    return false;
  }
  return (
    policy.minTier === "T2" &&
    (policy.logs ?? manifest.logs).length > 0 &&
    problem.findings.length > 0 &&
    problem.findings.every(({ code }) => code === "policy.tier") &&
    logged.findings.some(({ code }) => NOT_YET_LOGGED.includes(code))
  );
}

async function sleep(seconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** The boot record that a token names, undefined when it can't be read. */
function namedBoot(token: string): string | undefined {
  try {
    const [compact] = splitPresentation(token);
    const { claims } = parseToken(compact, "inference-attestation+jwt");
    const boot = member(claims, "boot");
    return typeof boot === "string" ? boot : undefined;
  } catch (error) {
    if (error instanceof AttestError) return undefined;
    throw error;
  }
}

function usable<T>(fetched: Fetched, path: string, read: () => T): T {
  if (fetched.status !== 200) {
    throw new EvidenceUnavailableError(
      `${path}: the gateway answered ${fetched.status}`,
      { hint: "is this an attest gateway, and is the API key right?" },
    );
  }
  try {
    return read();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new EvidenceUnavailableError(`${path}: ${error.message}`, {
      hint: error.hint,
      cause: error,
    });
  }
}

/** Seconds to wait; a date (RFC 9110 §10.2.3) or nonsense counts as one second. */
function pauseOf(retryAfter: string | null): number {
  const isCount = retryAfter !== null && /^[0-9]{1,3}$/.test(retryAfter);
  return isCount ? Math.max(0.1, Number(retryAfter)) : 1;
}
