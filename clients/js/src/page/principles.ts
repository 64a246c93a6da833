/** The principles of a manifest: where each was allowed to change the model, and where it did. */

import { type Json, type JsonObject, isObject, member } from "../json.js";
import type { Manifest } from "../manifest.js";
import { Decimal } from "../rules.js";

const MAX_PRINCIPLES = 64;
const MAX_LAYERS = 512;
const MAX_WORDS = 300;
const BAND = /^([0-9]{1,4})-([0-9]{1,4})$/;
const BLOCK = /(?:^|\.)(?:layers|blocks|h)\.([0-9]{1,4})\./;
/** Steps of the heat strip. */
export const HEAT = 9;

/** One layer of the strip. */
export interface Cell {
  /** 0 to 9, the darkest for the largest share; undefined where nothing was measured. */
  readonly heat: number | undefined;
  /** Whether training was allowed to change it. */
  readonly isInBand: boolean;
}

/** One principle, in words and as a strip. */
export interface Principle {
  readonly title: string;
  readonly id: string;
  readonly kind: string;
  readonly band: string;
  readonly cells: readonly Cell[];
  /** The strip in words. */
  readonly profile: string;
  readonly resistance: string;
  readonly evaluation: string;
}

/** The principles; what is of another form than it should be is left out. */
export function principlesOf(manifest: Manifest): Principle[] {
  const items = member(manifest.predicate, "principles");
  if (!Array.isArray(items)) return [];
  const depth = depthOf(manifest.predicate);
  return items
    .filter(isObject)
    .slice(0, MAX_PRINCIPLES)
    .map((item) => principleOf(item, depth));
}

/** How many blocks the names of the tensors tell of; 0 where they tell of none. */
function depthOf(predicate: JsonObject): number {
  const tensors = member(objectAt(predicate, "weights"), "tensors");
  if (!Array.isArray(tensors)) return 0;
  const found = tensors.filter(isObject).map((tensor) => {
    const name = member(tensor, "name");
    const match = typeof name === "string" ? BLOCK.exec(name) : null;
    return match === null ? -1 : Number(match[1]);
  });
  return found.reduce((deepest, number) => Math.max(deepest, number), -1) + 1;
}

function principleOf(item: JsonObject, depth: number): Principle {
  const [routing, profile] = [objectAt(item, "routing"), objectAt(item, "profile")];
  const layers = numbersAt(routing, "layers");
  const shares = sharesAt(profile);
  const id = textAt(item, "id") || "unnamed";
  return {
    title: textAt(item, "title") || id,
    id,
    kind: textAt(item, "class"),
    band: bandOf(routing, layers),
    cells: cellsOf(layers, shares, depth),
    profile: profileOf(profile, layers, shares),
    resistance: resistanceOf(objectAt(item, "resistance")),
    evaluation: evaluationOf(objectAt(item, "evaluation")),
  };
}

function cellsOf(
  layers: readonly number[],
  shares: readonly number[],
  depth: number,
): Cell[] {
  const count = Math.max(depth, shares.length, ...layers.map((layer) => layer + 1));
  const top = Math.max(0, ...shares);
  return Array.from({ length: Math.min(count, MAX_LAYERS) }, (_, layer) => {
    const share = shares[layer];
    const isMeasured = share !== undefined && top > 0;
    return {
      heat: isMeasured ? Math.round((HEAT * Math.max(0, share)) / top) : undefined,
      isInBand: layers.includes(layer),
    };
  });
}

/** A band is written in thousandths of the depth; in older manifests it is a text. */
function bandOf(routing: JsonObject, layers: readonly number[]): string {
  const band = member(routing, "band");
  const [, start, end] = (typeof band === "string" ? BAND.exec(band) : null) ?? [];
  const [from, to] = isObject(band)
    ? [member(band, "from"), member(band, "to")]
    : [start, end].map(Number);
  const parts: string[] = [];
  if (typeof from === "number" && typeof to === "number" && from < to) {
    parts.push(`${from / 10} % to ${to / 10} % of the depth`);
  }
  if (layers.length > 0) parts.push(`layers ${rangesOf(layers)}`);
  return parts.join(", ") || "no layer was set apart for it";
}

/** Numbers as ranges: 0–2, 5. */
function rangesOf(layers: readonly number[]): string {
  const sorted = [...new Set(layers)].sort((left, right) => left - right);
  const ranges: [number, number][] = [];
  for (const layer of sorted) {
    const last = ranges.at(-1);
    if (last !== undefined && layer === last[1] + 1) last[1] = layer;
    else ranges.push([layer, layer]);
  }
  return ranges
    .slice(0, MAX_LAYERS)
    .map(([from, to]) => (from === to ? String(from) : `${from}–${to}`))
    .join(", ");
}

function profileOf(
  profile: JsonObject,
  layers: readonly number[],
  shares: readonly number[],
): string {
  if (member(profile, "of") === "parent") return "measured in the parent model only";
  if (shares.length === 0) return "where it was absorbed was not measured";
  const inBand = Decimal.read(member(profile, "inBand"));
  const most = shares.indexOf(Math.max(...shares));
  const words = [`most of it was absorbed in layer ${most}`];
  if (inBand !== undefined && layers.length > 0) {
    words.push(`${percent(inBand)} within the layers that were allowed to change`);
  }
  if (member(profile, "valid") === false) {
    words.push("the measurement itself says that it does not add up");
  }
  if (member(profile, "carried") === true)
    words.push("taken over from the parent model");
  return words.join("; ");
}

function resistanceOf(resistance: JsonObject): string {
  if (Object.keys(resistance).length === 0) return "not measured";
  const required = objectAt(resistance, "required");
  const worst = objectAt(objectAt(resistance, "measured"), "worst");
  const [steps, need] = [
    member(worst, "stepsBelowHalf"),
    member(required, "minStepsBelowHalf"),
  ];
  const parts: string[] = [];
  if (typeof steps === "number") {
    const more = member(worst, "censored") === true ? "more than " : "";
    const attack = textAt(worst, "attack");
    const under = attack === "" ? "" : ` under the attack “${attack}”`;
    parts.push(`lasted ${more}${steps} steps of further training${under}`);
  } else {
    parts.push("not measured");
  }
  if (typeof need === "number") {
    const isMet = member(resistance, "met") === true;
    parts.push(`required: ${need}, ${isMet ? "met" : "NOT met"}`);
  }
  return parts.join("; ");
}

function evaluationOf(evaluation: JsonObject): string {
  const [before, after] = ["before", "after"].map((name) =>
    Decimal.read(member(evaluation, name)),
  );
  if (before === undefined || after === undefined) return "";
  const count = member(evaluation, "count");
  const of = typeof count === "number" ? ` of ${count} test questions` : "";
  return `passed ${percent(before)}${of} before training, ${percent(after)} after`;
}

function percent(share: Decimal): string {
  return `${Math.round(Number(String(share)) * 1000) / 10} %`;
}

function objectAt(value: JsonObject, name: string): JsonObject {
  const found = member(value, name);
  return isObject(found) ? found : {};
}

function textAt(value: JsonObject, name: string): string {
  const found = member(value, name);
  return typeof found === "string" ? found.slice(0, MAX_WORDS) : "";
}

function numbersAt(value: JsonObject, name: string): number[] {
  const found = member(value, name);
  const isLayer = (item: Json): item is number =>
    typeof item === "number" && item >= 0 && item < MAX_LAYERS;
  return Array.isArray(found) ? found.filter(isLayer) : [];
}

/** The shares of a profile; none where one of them is no decimal text. */
function sharesAt(profile: JsonObject): number[] {
  const found = member(profile, "layers");
  if (!Array.isArray(found) || found.length > MAX_LAYERS) return [];
  const shares = found.map((item) => Decimal.read(item));
  const numbers = shares.flatMap((share) =>
    share === undefined ? [] : [Number(String(share))],
  );
  return numbers.length === found.length ? numbers : [];
}
