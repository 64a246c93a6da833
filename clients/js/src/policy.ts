/** What a relying party demands, as a value with a JSON form. */

import { byCodePoint, utf8 } from "./bytes.js";
import {
  MEASURED,
  type Measured,
  OUTCOMES,
  type Outcome,
  SYSTEM_PROMPTS,
  type SystemPrompt,
} from "./claims.js";
import { distinctKeys } from "./envelope.js";
import { AttestError, ConfigurationError, FormatError } from "./errors.js";
import { type Json, type JsonObject, isWhole, newObject, readObject } from "./json.js";
import { PublicKey } from "./keys.js";
import { NoteKey } from "./log/note.js";
import { ConstitutionRule, PrincipleRule } from "./rules.js";

const MAX_POLICY = 256 * 1024;
const MAX_RULES = 256;

/** How far a proof reaches, weakest first. */
export const TIERS = ["T0", "T1", "T2", "T3", "T4"] as const;
export type Tier = (typeof TIERS)[number];

/** What is proven at each tier, in one line. */
export const TIER_MEANINGS: Readonly<Record<Tier, string>> = {
  T0: "signed by some key; anyone could have made it",
  T1:
    "signed by a key that the training authority, or a delegate that it named, " +
    "certified for this manifest; the operator's engine could still lie",
  T2: "as T1, in a log that witnesses co-signed; nothing can be dropped unseen",
  T3: "as T2, with the key bound to a measured CPU enclave",
  T4: "as T3, with engine, weights and GPUs inside the same enclave",
};

/** The members of a policy. Only the authorities must be given; the rest is strict. */
export interface PolicyOptions {
  /** Public keys of the training authorities that are trusted. */
  readonly authorities: readonly PublicKey[];
  /** How many of them must have signed the manifest; 1. */
  readonly threshold?: number;
  /** The lowest tier that is accepted; T1. */
  readonly minTier?: Tier;
  /** The weakest measurement of the weights that is accepted; engine. */
  readonly minMeasured?: Measured;
  /** How a response may have ended; complete. */
  readonly outcomes?: readonly Outcome[];
  /** Which system prompts are accepted; all kinds. */
  readonly systemPrompts?: readonly SystemPrompt[];
  /** Which overrides a request may have been marked with, null for any; none. */
  readonly overrides?: readonly string[] | null;
  /** Oldest `iat` that is accepted, null for any age; null. */
  readonly maxAgeSeconds?: number | null;
  /** Keys of the only logs that count, null for the manifest's; null. */
  readonly logs?: readonly NoteKey[] | null;
  /** Keys of the only witnesses that count, null for the manifest's; null. */
  readonly witnesses?: readonly NoteKey[] | null;
  /** How many of them must have cosigned for T2, null for more than half; null. */
  readonly witnessThreshold?: number | null;
  /** How long after `iat` they may have seen the token for T2; 3600. */
  readonly maxLogDelaySeconds?: number;
  /** How old status lists may be, null where they may also be missing; null. */
  readonly maxStatusAgeSeconds?: number | null;
  /** Which constitutions the manifest may name, null for any and for none; null. */
  readonly constitutions?: readonly ConstitutionRule[] | null;
  /** Which principles it must name, and what must have been measured of each; none. */
  readonly principles?: readonly PrincipleRule[];
}

/** Expectations of one relying party. The defaults are strict. */
export class Policy {
  readonly authorities: readonly PublicKey[];
  readonly threshold: number;
  readonly minTier: Tier;
  readonly minMeasured: Measured;
  readonly outcomes: readonly Outcome[];
  readonly systemPrompts: readonly SystemPrompt[];
  readonly overrides: readonly string[] | null;
  readonly maxAgeSeconds: number | null;
  readonly logs: readonly NoteKey[] | null;
  readonly witnesses: readonly NoteKey[] | null;
  readonly witnessThreshold: number | null;
  readonly maxLogDelaySeconds: number;
  readonly maxStatusAgeSeconds: number | null;
  readonly constitutions: readonly ConstitutionRule[] | null;
  readonly principles: readonly PrincipleRule[];

  /** Throws ConfigurationError: a threshold that can't be met or is none. */
  constructor(options: PolicyOptions) {
    this.authorities = options.authorities;
    this.threshold = options.threshold ?? 1;
    this.minTier = options.minTier ?? "T1";
    this.minMeasured = options.minMeasured ?? "engine";
    this.outcomes = options.outcomes ?? ["complete"];
    this.systemPrompts = options.systemPrompts ?? SYSTEM_PROMPTS;
    this.overrides = options.overrides === undefined ? [] : options.overrides;
    this.maxAgeSeconds = options.maxAgeSeconds ?? null;
    this.logs = options.logs ?? null;
    this.witnesses = options.witnesses ?? null;
    this.witnessThreshold = options.witnessThreshold ?? null;
    this.maxLogDelaySeconds = options.maxLogDelaySeconds ?? 3600;
    this.maxStatusAgeSeconds = options.maxStatusAgeSeconds ?? null;
    this.constitutions = options.constitutions ?? null;
    this.principles = options.principles ?? [];
    const distinct = distinctKeys(this.authorities).size;
    if (!(this.threshold >= 1 && this.threshold <= distinct)) {
      throw new ConfigurationError(
        `policy: threshold ${this.threshold} with ${distinct} authorities`,
        { hint: "name at least one authority" },
      );
    }
    if (this.witnessThreshold !== null && this.witnessThreshold < 1) {
      throw new ConfigurationError("policy: witness_threshold must be at least 1");
    }
  }

  /**
   * Read the JSON form, which Python reads too; unknown members are refused, since each
   * could matter.
   *
   * @param source The bytes or the text, or the value as `JSON.parse` gives it.
   *
   * Throws ConfigurationError: not that form; the message names the member.
   */
  static async fromJson(source: Uint8Array | string | object): Promise<Policy> {
    let data: Uint8Array;
    if (source instanceof Uint8Array) data = source;
    else data = utf8(typeof source === "string" ? source : JSON.stringify(source));
    let value: JsonObject;
    try {
      value = readObject(data, { maxBytes: MAX_POLICY });
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      throw new ConfigurationError(`policy: ${error.message}`, { cause: error });
    }
    const options: Record<string, unknown> = {};
    for (const [name, item] of Object.entries(value)) {
      const row = Object.hasOwn(MEMBERS, name) ? MEMBERS[name] : undefined;
      if (row === undefined) {
        throw new ConfigurationError(`policy: unknown member '${name}'`);
      }
      const [option, read] = row;
      try {
        options[option] = await read(item);
      } catch (error) {
        if (!(error instanceof AttestError)) throw error;
        throw new ConfigurationError(
          `policy: ${name} is not usable: ${error.message}`,
          { cause: error },
        );
      }
    }
    if (!Object.hasOwn(value, "authorities")) {
      throw new ConfigurationError("policy: authorities is missing");
    }
    return new Policy(options as unknown as PolicyOptions);
  }

  /** The JSON form; `fromJson` of it gives an equal policy. */
  toJson(): JsonObject {
    const value = newObject();
    value["authorities"] = this.authorities.map((key) => ({ ...key.jwk }));
    value["threshold"] = this.threshold;
    value["min_tier"] = this.minTier;
    value["min_measured"] = this.minMeasured;
    value["outcomes"] = [...this.outcomes].sort(byCodePoint);
    value["system_prompts"] = [...this.systemPrompts].sort(byCodePoint);
    value["overrides"] = this.overrides && [...this.overrides].sort(byCodePoint);
    value["max_age_seconds"] = this.maxAgeSeconds;
    value["logs"] = this.logs && this.logs.map((key) => key.text);
    value["witnesses"] = this.witnesses && this.witnesses.map((key) => key.text);
    value["witness_threshold"] = this.witnessThreshold;
    value["max_log_delay_seconds"] = this.maxLogDelaySeconds;
    value["max_status_age_seconds"] = this.maxStatusAgeSeconds;
    value["constitutions"] =
      this.constitutions && this.constitutions.map((rule) => rule.toJson());
    value["principles"] = this.principles.map((rule) => rule.toJson());
    return value;
  }
}

type Read = (value: Json) => unknown;

const whole: Read = (value) => {
  if (!isWhole(value)) throw new FormatError("expected a whole number");
  return Number(value);
};

const list = (value: Json): Json[] => {
  if (!Array.isArray(value)) throw new FormatError("expected a list");
  return value;
};

const names: Read = (value) => {
  const items = list(value);
  if (!items.every((item) => typeof item === "string")) {
    throw new FormatError("expected a list of names");
  }
  return items;
};

const orNull =
  (read: Read): Read =>
  (value) =>
    value === null ? null : read(value);

const oneOf =
  (allowed: readonly string[]): Read =>
  (value) => {
    if (typeof value !== "string" || !allowed.includes(value)) {
      throw new FormatError(`expected one of ${allowed.join(", ")}`);
    }
    return value;
  };

const someOf =
  (allowed: readonly string[]): Read =>
  (value) => [...new Set(list(value).map(oneOf(allowed)))];

const keys: Read = (value) =>
  Promise.all(list(value).map((item) => PublicKey.fromJwk(item)));

const noteKeys: Read = (value) =>
  Promise.all(list(value).map((item) => NoteKey.parse(item)));

const rules =
  (read: Read): Read =>
  (value) => {
    const items = list(value);
    if (items.length > MAX_RULES) {
      throw new FormatError(`expected a list of at most ${MAX_RULES} rules`);
    }
    return items.map(read);
  };

/** The name here, and the reader, of each member of the JSON form. */
const MEMBERS: Readonly<Record<string, readonly [keyof PolicyOptions, Read]>> = {
  authorities: ["authorities", keys],
  threshold: ["threshold", whole],
  min_tier: ["minTier", oneOf(TIERS)],
  min_measured: ["minMeasured", oneOf(MEASURED)],
  outcomes: ["outcomes", someOf(OUTCOMES)],
  system_prompts: ["systemPrompts", someOf(SYSTEM_PROMPTS)],
  overrides: ["overrides", orNull(names)],
  max_age_seconds: ["maxAgeSeconds", orNull(whole)],
  logs: ["logs", orNull(noteKeys)],
  witnesses: ["witnesses", orNull(noteKeys)],
  witness_threshold: ["witnessThreshold", orNull(whole)],
  max_log_delay_seconds: ["maxLogDelaySeconds", whole],
  max_status_age_seconds: ["maxStatusAgeSeconds", orNull(whole)],
  constitutions: [
    "constitutions",
    orNull(rules((item) => ConstitutionRule.read(item))),
  ],
  principles: ["principles", rules((item) => PrincipleRule.read(item))],
};
