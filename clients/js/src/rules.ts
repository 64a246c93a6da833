/**
 * What a relying party may demand of the training: constitutions and principles. Values
 * with a JSON form, members of a policy. They are matched against the signed manifest:
 * what stands there is the training authority's own account.
 */

import { isAtMost } from "./bytes.js";
import type { Constitution } from "./claims.js";
import { FormatError } from "./errors.js";
import { type Json, type JsonObject, isObject, isWhole, member } from "./json.js";
import type { Finding } from "./reasons.js";
import { ascii } from "./spelling.js";

const COMPARATOR = /^(>=|<=|>|<|=)([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})$/;
const VERSION = /^[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}$/;
const DECIMAL = /^(-?)([0-9]{1,9})(?:\.([0-9]{1,18}))?$/;
const OPERATORS: Readonly<Record<string, (order: number) => boolean>> = {
  ">=": (order) => order >= 0,
  "<=": (order) => order <= 0,
  ">": (order) => order > 0,
  "<": (order) => order < 0,
  "=": (order) => order === 0,
};
const MAX_TEXT = 256;

/** The number of a decimal text, as signed documents hold it: exact, never a float. */
export class Decimal {
  private constructor(
    private readonly scaled: bigint,
    private readonly text: string,
  ) {}

  /** Undefined for all but a decimal text. */
  static read(value: Json | undefined): Decimal | undefined {
    const match = typeof value === "string" ? DECIMAL.exec(value) : null;
    if (match === null) return undefined;
    const [, sign = "", whole = "", fraction = ""] = match;
    const scaled = BigInt(sign + whole + fraction.padEnd(18, "0"));
    const text = sign + whole.replace(/^0+(?=\d)/, "");
    return new Decimal(scaled, fraction === "" ? text : `${text}.${fraction}`);
  }

  isBelow(other: Decimal): boolean {
    return this.scaled < other.scaled;
  }

  toString(): string {
    return this.text;
  }
}

/** Three numbers; those that are left out are 0. Undefined for any other version. */
function numbers(version: string): readonly number[] | undefined {
  if (!VERSION.test(version)) return undefined;
  return [...version.split(".").map(Number), 0, 0].slice(0, 3);
}

function order(left: readonly number[], right: readonly number[]): number {
  return (
    left.map((part, at) => part - (right[at] ?? 0)).find((part) => part !== 0) ?? 0
  );
}

function text(value: JsonObject, name: string): string {
  const found = member(value, name);
  if (typeof found !== "string" || found === "" || !isAtMost(found, MAX_TEXT)) {
    throw new FormatError(`${name} must be a text`);
  }
  return found;
}

function only(value: Json, names: readonly string[]): JsonObject {
  if (!isObject(value) || !Object.keys(value).every((name) => names.includes(name))) {
    throw new FormatError(`expected an object with ${names.join(", ")}`);
  }
  return value;
}

/** A constitution that is allowed, in some of its versions. */
export class ConstitutionRule {
  private constructor(
    readonly id: string,
    /**
     * Comparators joined by commas that must all hold, such as `>=1.2,<2`; "" for any
     * version. A version has one to three numbers, and those left out are 0; one in
     * another form meets no comparator.
     */
    readonly versions: string,
  ) {}

  /** Read {id, versions}, the second of which may be left out. Throws FormatError. */
  static read(value: Json): ConstitutionRule {
    const members = only(value, ["id", "versions"]);
    const versions = Object.hasOwn(members, "versions")
      ? text(members, "versions")
      : "";
    if (
      versions !== "" &&
      !versions.split(",").every((part) => COMPARATOR.test(part))
    ) {
      throw new FormatError("versions must be comparators such as >=1.2,<2");
    }
    return new ConstitutionRule(text(members, "id"), versions);
  }

  toJson(): JsonObject {
    const { id, versions } = this;
    return versions === "" ? { id } : { id, versions };
  }

  /** Whether it is this constitution, in one of the versions. */
  allows(constitution: Constitution): boolean {
    if (constitution.id !== this.id) return false;
    if (this.versions === "") return true;
    const version = numbers(constitution.version);
    return (
      version !== undefined &&
      this.versions.split(",").every((comparator) => holds(comparator, version))
    );
  }

  toString(): string {
    return `${this.id} ${this.versions}`.trim();
  }
}

function holds(comparator: string, version: readonly number[]): boolean {
  const [, sign = "", limit = ""] = COMPARATOR.exec(comparator) ?? [];
  const found = numbers(limit);
  return found !== undefined && OPERATORS[sign]?.(order(version, found)) === true;
}

/** A principle that the manifest must name, and what must have been measured of it. */
export class PrincipleRule {
  private constructor(
    readonly id: string,
    /**
     * The least share that must have been absorbed within its band; only a profile that
     * calls itself valid counts.
     */
    readonly minInBand: Decimal | undefined,
    /**
     * The least number of steps that the worst of the tried attacks must have needed to
     * bring it below half.
     */
    readonly minStepsBelowHalf: number | bigint | undefined,
  ) {}

  /**
   * Read {id, min_in_band, min_steps_below_half}; only `id` must be there. A share is a
   * decimal text, never a float. Throws FormatError.
   */
  static read(value: Json): PrincipleRule {
    const members = only(value, ["id", "min_in_band", "min_steps_below_half"]);
    const given = member(members, "min_in_band") ?? null;
    const steps = member(members, "min_steps_below_half") ?? undefined;
    const share = Decimal.read(given);
    if (given !== null && share === undefined) {
      throw new FormatError("min_in_band must be a decimal text");
    }
    if (steps !== undefined && !isWhole(steps)) {
      throw new FormatError("min_steps_below_half must be a whole number");
    }
    return new PrincipleRule(text(members, "id"), share, steps);
  }

  toJson(): JsonObject {
    const value: JsonObject = { id: this.id };
    if (this.minInBand !== undefined) value["min_in_band"] = String(this.minInBand);
    if (this.minStepsBelowHalf !== undefined) {
      value["min_steps_below_half"] = this.minStepsBelowHalf;
    }
    return value;
  }

  /** What the member `principles` of a manifest does not meet. */
  misses(principles: Json | undefined): Finding[] {
    const items = Array.isArray(principles) ? principles.filter(isObject) : [];
    const [named, ...others] = items.filter((item) => member(item, "id") === this.id);
    if (named === undefined || others.length > 0) {
      const count = named === undefined ? 0 : others.length + 1;
      return [this.miss("principle", "once in the manifest", `${count} times`)];
    }
    return [...this.absorption(named), ...this.resistance(named)];
  }

  private absorption(principle: JsonObject): Finding[] {
    const least = this.minInBand;
    if (least === undefined) return [];
    const profile = objectAt(principle, "profile");
    const share = Decimal.read(member(profile, "inBand"));
    const expected = `at least ${String(least)} in its band`;
    if (share === undefined) return [this.miss("absorption", expected, "not measured")];
    if (member(profile, "valid") !== true) {
      return [
        this.miss("absorption", expected, `${String(share)}, not a valid profile`),
      ];
    }
    return share.isBelow(least)
      ? [this.miss("absorption", expected, String(share))]
      : [];
  }

  private resistance(principle: JsonObject): Finding[] {
    const least = this.minStepsBelowHalf;
    if (least === undefined) return [];
    const measured = objectAt(objectAt(principle, "resistance"), "measured");
    const steps = member(objectAt(measured, "worst"), "stepsBelowHalf");
    const expected = `at least ${least} steps until below half`;
    if (typeof steps !== "number" && typeof steps !== "bigint") {
      return [this.miss("resistance", expected, "not measured")];
    }
    return steps < least ? [this.miss("resistance", expected, `${steps} steps`)] : [];
  }

  private miss(word: string, expected: string, found: string): Finding {
    const detail = `principle ${ascii(this.id)}: expected ${expected}, found ${found}`;
    return { code: `policy.${word}`, detail, about: this.id, expected, found };
  }
}

function objectAt(value: JsonObject, name: string): JsonObject {
  const found = member(value, name);
  return isObject(found) ? found : {};
}
