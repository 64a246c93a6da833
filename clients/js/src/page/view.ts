/**
 * A report as elements. Every text becomes a text node: nothing that a model, a manifest
 * or a file says can become markup. There is no innerHTML here, and the page's policy for
 * trusted types would refuse it.
 */

import type { Cell, Principle } from "./principles.js";
import type { Fact, Line, Report, Said } from "./report.js";
import { NEVER_PROVEN, STATUSES } from "./words.js";

type Child = Node | string;
type Attributes = Readonly<Record<string, string>>;

/** An element with attributes and children; texts become text nodes. */
export function el(
  tag: string,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElement {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The whole report. */
export function render(report: Report): HTMLElement {
  return el(
    "article",
    { class: "report" },
    headline(report),
    section(
      "What was checked",
      el("ol", { class: "steps" }, ...report.lines.map(line)),
    ),
    ...said(report),
    ...facts("About this answer", report.facts),
    ...facts("About the model, as the training authority signed it", report.training),
    ...principles(report.principles),
    ...limits(report.limits),
  );
}

function section(title: string, ...children: readonly Child[]): HTMLElement {
  return el("section", {}, el("h2", {}, title), ...children);
}

function headline(report: Report): HTMLElement {
  const { word, tier } = report;
  const reasons = report.reasons.map((reason) => el("li", {}, reason));
  const reaches = [
    el("p", {}, el("strong", {}, `Tier ${tier.name}. `), tier.proves),
    el("p", {}, el("strong", {}, "Who could still lie? "), tier.left),
  ];
  const isYes = word === "proven" || word === "content_only";
  return el(
    "header",
    { class: `verdict ${word}` },
    el("h2", {}, report.headline),
    el("p", { class: "summary" }, report.summary),
    ...(reasons.length > 0 ? [el("ul", { class: "reasons" }, ...reasons)] : []),
    ...(isYes ? [...reaches, el("p", {}, NEVER_PROVEN)] : []),
  );
}

function line(item: Line): HTMLElement {
  const [sign, word] = STATUSES[item.status];
  const name = item.status.replace(" ", "-");
  const codes = item.codes.length > 0 ? ` [${item.codes.join(", ")}]` : "";
  const technical = el(
    "details",
    {},
    el("summary", {}, "details"),
    el("p", { class: "technical" }, `step ${item.number}: ${item.detail}${codes}`),
  );
  const shown = item.status === "ok" ? item.words : item.detail;
  return el(
    "li",
    { class: `step ${name}`, value: String(item.number) },
    el("span", { class: "sign", "aria-hidden": "true" }, sign),
    el("span", { class: "title" }, item.title),
    el("span", { class: "status" }, word),
    ...(shown === "" ? [] : [el("p", { dir: "auto" }, shown)]),
    ...(item.detail === "" ? [] : [technical]),
  );
}

function said(report: Report): HTMLElement[] {
  const { question, answer, saidIsProven } = report;
  if (question.length + answer.length === 0) return [];
  const warning = saidIsProven
    ? "The words in the frames are the user's and the model's, not this page's."
    : "Nothing below is proven. These are the words of the file, not this page's.";
  return [
    section(
      "Question and answer",
      el("p", { class: saidIsProven ? "note" : "warning" }, warning),
      ...question.map((item) => frame(item, "asked")),
      ...answer.map((item) => frame(item, "answered")),
    ),
  ];
}

/** Words of others, in a frame that they can't leave. */
function frame(item: Said, kind: string): HTMLElement {
  return el(
    "figure",
    { class: `said ${kind}` },
    el("figcaption", {}, el("bdi", {}, item.who)),
    el("blockquote", { dir: "auto" }, item.text),
  );
}

function facts(title: string, items: readonly Fact[]): HTMLElement[] {
  if (items.length === 0) return [];
  const rows = items.map(([name, text]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, text))),
  );
  return [section(title, el("dl", {}, ...rows))];
}

function principles(items: readonly Principle[]): HTMLElement[] {
  if (items.length === 0) return [];
  const words =
    "Each strip is the model from its first layer to its last. Framed layers were " +
    "allowed to change while the principle was trained; the darker a layer, the more of " +
    "it was absorbed there. All of it is the training authority's own account.";
  return [
    section("Principles", el("p", { class: "note" }, words), ...items.map(principle)),
  ];
}

function principle(item: Principle): HTMLElement {
  const rows: Fact[] = [
    ["Allowed to change", item.band],
    ["Absorbed", item.profile],
    ["Withstood further training", item.resistance],
  ];
  if (item.evaluation !== "") rows.push(["Tested", item.evaluation]);
  const kind = item.kind === "" ? [] : [el("span", { class: "kind" }, item.kind)];
  return el(
    "div",
    { class: "principle" },
    el("h3", {}, el("bdi", {}, item.title), " ", ...kind),
    ...(item.cells.length > 0 ? [strip(item)] : []),
    el(
      "dl",
      {},
      ...rows.map(([name, text]) =>
        el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, text))),
      ),
    ),
  );
}

function strip(item: Principle): HTMLElement {
  const label = `Layers of the model. Allowed to change: ${item.band}. ${item.profile}.`;
  return el(
    "div",
    { class: "strip", role: "img", "aria-label": label },
    ...item.cells.map(cell),
  );
}

function cell({ heat, isInBand }: Cell, layer: number): HTMLElement {
  const classes = ["cell", heat === undefined ? "unmeasured" : `heat${heat}`];
  if (isInBand) classes.push("band");
  return el("span", { class: classes.join(" "), title: `layer ${layer}` });
}

function limits(items: readonly string[]): HTMLElement[] {
  if (items.length === 0) return [];
  const list = items.map((item) => el("li", {}, el("bdi", {}, item)));
  return [section("What training says that it does not show", el("ul", {}, ...list))];
}
