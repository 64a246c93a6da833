/**
 * The verifier: one bundle, one policy, one clock reading in; a verdict out.
 *
 * It opens no file and no socket. The steps, in the order in which they run; each relies
 * on those before it:
 *
 *     0 form        the token is strictly well-formed
 *     1 manifest    enough trusted authorities signed the manifest, and it was valid
 *     2 key         an authority, or a delegate, certified the session key
 *     3 boot        the session key signed the boot record
 *     4 signature   the session key signed the token, with the algorithm bound to it
 *     5 agreement   token, boot record, certificate, manifest and weights say the same
 *     6 content     request and response at hand are the attested ones
 *     7 freshness   nonce, audience and time
 *     8 log         the token is in a witnessed log
 *     9 status      key and manifest were not revoked when it was signed
 *     10 policy     the policy's demands are met
 *
 * A step is `ok`, `failed`, `unknown` (evidence is missing that the policy needs), `not
 * checked`, or `content only` (step 6: the answer is proven, the bytes at hand are not the
 * attested ones), with the reasons of `reasons.ts`. Nothing after a failed or unknown step
 * is looked at. Steps, statuses, codes and tiers are those of `attest/verify.py`.
 */

import type { Bundle } from "./bundle.js";
import { type Certified, MAX_SKEW_SECONDS, certifiedKey } from "./certificates.js";
import {
  type BootClaims,
  type Constitution,
  MEASURED,
  type TokenClaims,
  checkClaims,
  checkSalted,
} from "./claims.js";
import { checkContent } from "./content.js";
import { checkDemands } from "./demands.js";
import { parseDigest } from "./digests.js";
import { reveal, splitPresentation } from "./disclosures.js";
import {
  AttestError,
  ExpiredError,
  SignatureError,
  TranscriptMismatchError,
  VerificationError,
} from "./errors.js";
import { type JsonObject, member, newObject } from "./json.js";
import { type Manifest, checkValidity, openManifest } from "./manifest.js";
import type { Policy, Tier } from "./policy.js";
import { type Finding, REASONS } from "./reasons.js";
import { ascii, shown } from "./spelling.js";
import { checkStanding } from "./standing.js";
import { type Check, NotChecked, type Passed, runSteps } from "./steps.js";
import { type Token, parseToken, tokenDigest, verifyToken } from "./tokens.js";
import { checkLog } from "./transparency.js";
import { Verdict } from "./verdict.js";

const MAX_SHOWN = 8;

/** What the verifier is told besides bundle and policy. */
export interface VerifyOptions {
  /** The verifier's clock, in seconds since the epoch, UTC. */
  readonly at: number;
  /** What was sent as Attestation-Nonce, if anything was. */
  readonly nonce?: string | undefined;
  /** What `aud` must be, if anything. */
  readonly audience?: string | undefined;
}

/** A value that an earlier step has set, or we are not here. */
function sure<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("an earlier step has not passed");
  return value;
}

/** State of one verification: what earlier steps established for later ones. */
class Run {
  token: Token | undefined;
  disclosed: JsonObject = newObject();
  manifest: Manifest | undefined;
  certified: Certified | undefined;
  tier: Tier = "T0";
  private boot: Token | undefined;
  private loggedAt: number | undefined;

  constructor(
    private readonly bundle: Bundle,
    private readonly policy: Policy,
    private readonly options: VerifyOptions,
  ) {}

  get claims(): TokenClaims {
    return sure(this.token).claims as unknown as TokenClaims;
  }

  steps(): (readonly [string, Check])[] {
    return [
      ["form", () => this.form()],
      ["manifest", () => this.manifestSignature()],
      ["key", () => this.keyCertificate()],
      ["boot", () => this.bootRecord()],
      ["signature", () => this.tokenSignature()],
      ["agreement", () => this.agreement()],
      ["content", () => checkContent(this.bundle, this.claims, this.disclosed)],
      ["freshness", () => Promise.resolve().then(() => this.freshness())],
      ["log", () => this.log()],
      ["status", () => this.status()],
      ["policy", () => Promise.resolve().then(() => this.demands())],
    ];
  }

  private async form(): Promise<string> {
    const [compact, given] = splitPresentation(this.bundle.token);
    const typ = "inference-attestation+jwt";
    this.token = parseToken(compact, typ);
    const unknown = checkClaims(this.token.claims, typ);
    this.disclosed = await reveal(this.token.claims, given);
    checkSalted(this.disclosed);
    // Nothing is signed yet: a name must not forge a line of a log, or fill it.
    const names = unknown.slice(0, MAX_SHOWN).map((name) => ascii(name).slice(0, 40));
    const note =
      names.length > 0 ? `; unknown claims ignored: ${names.join(", ")}` : "";
    return `well-formed, ${given.length} disclosures${note}`;
  }

  private async manifestSignature(): Promise<string> {
    const { authorities, threshold } = this.policy;
    const manifest = await openManifest(this.bundle.manifest, authorities, threshold);
    checkValidity(manifest, this.claims.iat);
    this.manifest = manifest;
    const { modelName, modelVersion, signedBy } = manifest;
    return `${modelName} ${modelVersion}, signed by ${signedBy.join(", ")}`;
  }

  private async keyCertificate(): Promise<string> {
    const found = await this.certifiedKey(sure(this.token).kid, this.claims.iat);
    this.certified = found;
    const issuer = found.issuer.thumbprint;
    const isAuthority = this.policy.authorities.some(
      (key) => key.thumbprint === issuer,
    );
    const kind = isAuthority ? "authority" : "delegate";
    return `key ${found.key.thumbprint} certified by ${kind} ${issuer}`;
  }

  private certifiedKey(kid: string, signedAt: number): Promise<Certified> {
    const trust = {
      manifest: sure(this.manifest),
      authorities: this.policy.authorities,
    };
    return certifiedKey(this.bundle.keyCertificates, kid, trust, signedAt);
  }

  private async bootRecord(): Promise<string> {
    const typ = "eat+jwt";
    const boot = parseToken(this.bundle.bootRecord, typ);
    this.boot = boot;
    await this.checkSignerOfBoot(boot);
    checkClaims(boot.claims, typ);
    const { engine } = boot.claims as unknown as BootClaims;
    return `${engine.name} ${engine.version}, dtype ${engine.dtype}`;
  }

  private async checkSignerOfBoot(boot: Token): Promise<void> {
    try {
      await verifyToken(boot, sure(this.certified).key);
    } catch (error) {
      const isOther =
        error instanceof SignatureError && boot.kid !== sure(this.token).kid;
      if (!isOther || !(await this.isOfSibling(boot))) throw error;
      throw new SignatureError(`boot: signed by ${boot.kid}, which is certified too`, {
        hint: "it is the boot record of another replica or start",
        reason: "boot.other_replica",
        cause: error,
      });
    }
  }

  /** Whether another certified key signed the boot record. */
  private async isOfSibling(boot: Token): Promise<boolean> {
    const iat = member(boot.claims, "iat") ?? this.claims.iat;
    if (typeof iat !== "number") return false;
    try {
      const found = await this.certifiedKey(boot.kid, iat);
      await verifyToken(boot, found.key);
      return true;
    } catch (error) {
      if (error instanceof AttestError) return false;
      throw error;
    }
  }

  private async tokenSignature(): Promise<string> {
    const [token, { key }] = [sure(this.token), sure(this.certified)];
    await verifyToken(token, key);
    return `${token.alg} by ${key.thumbprint}`;
  }

  private async agreement(): Promise<string | Passed> {
    const [token, record, manifest] = [
      this.claims,
      sure(this.boot),
      sure(this.manifest),
    ];
    const boot = record.claims as unknown as BootClaims;
    const { runtime } = manifest;
    const { claims: certificate } = sure(this.certified);
    const [measured, atBoot] = [token.weights.measured, boot.weights.measured];
    const rules: Record<string, boolean> = {
      boot: token.boot === (await tokenDigest(record)),
      manifest:
        token.manifest.digest === boot.manifest.digest &&
        boot.manifest.digest === manifest.digest,
      key_manifest: certificate.manifests.includes(manifest.digest),
      gateway: token.iss === boot.iss && boot.iss === certificate.sub,
      weights:
        token.weights.root === boot.weights.root &&
        boot.weights.root === manifest.tensorRoot,
      measurement: MEASURED.indexOf(measured) <= MEASURED.indexOf(atBoot),
      constitution: isSame(token.constitution, manifest.constitution),
      engine: runtime.engines.includes(boot.engine.name),
      dtype:
        runtime.dtypes.includes(boot.engine.dtype) ||
        // Not seen, which only a measurement in the engine could have.
        (boot.engine.dtype === "unknown" && atBoot !== "engine"),
      time: boot.iat <= token.iat + MAX_SKEW_SECONDS,
    };
    const broken = Object.keys(rules).find((word) => rules[word] !== true);
    if (broken !== undefined) {
      const reason = `agreement.${broken}`;
      throw new VerificationError(REASONS[reason]?.meaning ?? reason, { reason });
    }
    this.tier = "T1";
    const detail = `weights ${manifest.tensorRoot}, measured by ${measured}`;
    // Names are labels, the root says what answered; but nobody should be misled.
    const [asked, answered] = [
      token["gen_ai.request.model"],
      token["gen_ai.response.model"],
    ];
    if (asked === undefined || answered === undefined || asked === answered) {
      return detail;
    }
    const words = `asked for ${shown(asked)}, ${shown(answered)} answered`;
    const findings = [{ code: "agreement.model", detail: words }];
    return { detail: `${detail}; ${words}`, findings };
  }

  private freshness(): Passed {
    const { at, nonce, audience } = this.options;
    const [claims, notes, findings]: [TokenClaims, string[], Finding[]] = [
      this.claims,
      [],
      [],
    ];
    if (claims.iat > at + MAX_SKEW_SECONDS) {
      const reason = "freshness.future";
      throw new ExpiredError("token: signed in the future of this clock", { reason });
    }
    if (nonce === undefined) {
      const detail = "no nonce was given, so a replay would not be noticed";
      notes.push(detail);
      findings.push({ code: "freshness.no_nonce", detail });
    } else if (claims.eat_nonce === nonce) {
      notes.push("nonce matches");
    } else {
      throw new TranscriptMismatchError("the nonce is not the one that was sent", {
        reason: "freshness.nonce",
      });
    }
    if (audience !== undefined) {
      if (claims.aud !== audience) {
        throw new TranscriptMismatchError("the token is for another audience", {
          reason: "freshness.audience",
        });
      }
      notes.push("audience matches");
    }
    notes.push(`signed ${Math.max(0, at - claims.iat)} s ago`);
    return { detail: notes.join("; "), findings };
  }

  private async log(): Promise<Passed | NotChecked> {
    const [proof, manifest, policy] = [
      this.bundle.log,
      sure(this.manifest),
      this.policy,
    ];
    if (proof === undefined) {
      return new NotChecked("the bundle holds no log proof", "log.not_given");
    }
    if ((policy.logs ?? manifest.logs).length === 0) {
      const detail = "neither manifest nor policy names the key of a log";
      return new NotChecked(detail, "log.unnamed");
    }
    const leaf = parseDigest(await tokenDigest(sure(this.token)));
    const times = { signedAt: this.claims.iat, at: this.options.at };
    const found = await checkLog(proof, leaf, times, { manifest, policy });
    this.loggedAt = found.loggedAt;
    const { shortfall, detail } = found;
    if (shortfall !== "") return { detail, findings: [{ code: shortfall, detail }] };
    this.tier = "T2";
    return { detail, findings: [] };
  }

  private status(): Promise<Passed | NotChecked> {
    return checkStanding(
      this.bundle.statusLists ?? [],
      sure(this.manifest),
      sure(this.certified),
      this.policy,
      { signedAt: this.claims.iat, loggedAt: this.loggedAt, at: this.options.at },
    );
  }

  private demands(): string {
    const { policy, claims, manifest, tier } = this;
    return checkDemands(policy, claims, sure(manifest), tier, this.options.at);
  }
}

/** Whether a token states this constitution, and nothing else of it. */
function isSame(stated: Constitution | null, found: Constitution | null): boolean {
  if (stated === null || found === null) return stated === found;
  const names = Object.keys(stated);
  return (
    names.length === Object.keys(found).length &&
    (["id", "version", "digest"] as const).every((name) => stated[name] === found[name])
  );
}

/**
 * Judge one bundle by one policy.
 *
 * It never throws for bad evidence. Without content in the bundle it proves the record
 * alone, and step 6 says so.
 */
export async function verify(
  bundle: Bundle,
  policy: Policy,
  options: VerifyOptions,
): Promise<Verdict> {
  const run = new Run(bundle, policy, options);
  const steps = await runSteps(run.steps());
  const hasFailed = steps.at(-1)?.status === "failed";
  return new Verdict(
    hasFailed ? "T0" : run.tier,
    steps,
    steps[0]?.status === "ok" ? run.claims : undefined,
    run.disclosed,
    run.manifest,
    run.certified?.issuer.thumbprint,
  );
}
