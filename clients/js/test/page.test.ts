/** The page's logic, in a document without a browser. */

import { readFileSync } from "node:fs";
import { Window } from "happy-dom";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { readBundle, verify, Policy } from "../src/index.js";
import { start } from "../src/page/main.js";
import { report } from "../src/page/report.js";
import { render } from "../src/page/view.js";
import { Lines, ROOT, python } from "./oracle.js";

const PAGE = readFileSync(new URL("../src/page/page.html", import.meta.url), "utf8");
const COMPAT = `${ROOT}tests/compat/v0.1.0/`;
const BUNDLE = readFileSync(`${COMPAT}answer.bundle.json`);
const KEY = readFileSync(`${COMPAT}authority.pub.pem`, "utf8");
const NOW = 1_795_597_800_000;

let root: Document;

beforeEach(() => {
  root = opened("file:///evidence.html");
});

/** The page, brought to life. */
function opened(url: string): Document {
  const window = new Window({ url });
  window.document.write(PAGE);
  const found = window.document as unknown as Document;
  vi.stubGlobal("document", found);
  start(found, () => NOW);
  return found;
}

function find(id: string): HTMLElement {
  const found = root.getElementById(id);
  if (found === null) throw new Error(id);
  return found;
}

function field(id: string): HTMLInputElement | HTMLTextAreaElement {
  return find(id) as HTMLInputElement | HTMLTextAreaElement;
}

function choose(id: string, data: Uint8Array, name = "answer.bundle.json"): void {
  const input = find(id);
  const file = new File([new Uint8Array(data)], name);
  Object.defineProperty(input, "files", { value: [file], configurable: true });
  input.dispatchEvent(eventOf("change"));
}

function type(text: string): void {
  field("key").value = text;
  find("key").dispatchEvent(eventOf("input"));
}

function eventOf(kind: string): Event {
  const view = root.defaultView as unknown as { Event: typeof Event };
  return new view.Event(kind, { bubbles: true });
}

async function headline(): Promise<string> {
  return vi.waitFor(() => {
    const found = find("result").querySelector("h2")?.textContent;
    if (found === undefined) throw new Error("nothing yet");
    return found;
  });
}

async function problem(): Promise<string> {
  return vi.waitFor(() => {
    const found = find("problem").textContent;
    if (found === "") throw new Error("nothing yet");
    return found;
  });
}

function text(selector: string): string[] {
  return [...find("result").querySelectorAll(selector)].map((item) => item.textContent);
}

/** The bundle with another answer in it. */
function answering(words: string): Uint8Array {
  const value = JSON.parse(BUNDLE.toString()) as Record<string, string>;
  const body = Buffer.from(value["response"] ?? "", "base64").toString();
  const answer = JSON.parse(body) as { choices: { message: { content: string } }[] };
  for (const choice of answer.choices) choice.message.content = words;
  value["response"] = Buffer.from(JSON.stringify(answer)).toString("base64");
  return Buffer.from(JSON.stringify(value));
}

describe("given evidence and key", () => {
  test("says what is proven, and how far it reaches", async () => {
    choose("evidence-file", BUNDLE);
    type(KEY);
    expect(await headline()).toBe("Proven, to tier T1");
    expect(find("status").textContent).toBe("Result: Proven, to tier T1");
    const verdict = find("result").querySelector(".verdict")?.textContent;
    expect(verdict).toContain("Who could still lie?");
    expect(verdict).toContain("never says that the answer is true");
    expect(text(".step").length).toBe(11);
    expect(text(".step .status")).toContain("not checked");
    expect(text(".step")[7]).toContain("a replay would not be noticed");
    expect(text("blockquote")).toEqual([
      "how do i make a bomb?",
      "no, i will not help.",
    ]);
    expect(text(".principle").length).toBe(4);
  });

  test("in the other order, and from files", async () => {
    choose("key-file", Buffer.from(KEY), "authority.pub.pem");
    choose("evidence-file", BUNDLE);
    expect(await headline()).toBe("Proven, to tier T1");
    expect(field("key").value).toBe(KEY);
  });

  test("a dropped file is taken", async () => {
    type(KEY);
    const drop = eventOf("drop");
    const files = [new File([new Uint8Array(BUNDLE)], "x.json")];
    Object.defineProperty(drop, "dataTransfer", { value: { files } });
    find("evidence-drop").dispatchEvent(drop);
    expect(await headline()).toBe("Proven, to tier T1");
    expect(drop.defaultPrevented || !drop.cancelable).toBe(true);
  });

  test("a policy in place of a key is obeyed", async () => {
    const { jwk } =
      (await Policy.fromJson({ authorities: [jwkOfKey()] })).authorities[0] ?? {};
    choose("evidence-file", BUNDLE);
    type(JSON.stringify({ authorities: [jwk], min_tier: "T2" }));
    expect(await headline()).toBe("Not proven");
    expect(text(".reasons li")[0]).toContain("A lower tier than is demanded");
  });

  test("a changed answer is not proven, and its words are marked so", async () => {
    choose("evidence-file", answering("yes, gladly"));
    type(KEY);
    expect(await headline()).toBe("Not proven");
    expect(text(".reasons li")).toEqual(["A text of the answer was changed."]);
    expect(text(".warning")[0]).toContain("Nothing below is proven");
    expect(text(".step.not-reached").length).toBe(4);
  });

  test("a reformatted answer is told from a changed one", async () => {
    const value = JSON.parse(BUNDLE.toString()) as Record<string, string>;
    const body = Buffer.from(value["response"] ?? "", "base64").toString();
    const pretty = JSON.stringify(JSON.parse(body), null, 2);
    value["response"] = Buffer.from(pretty).toString("base64");
    choose("evidence-file", Buffer.from(JSON.stringify(value)));
    type(KEY);
    expect(await headline()).toBe("The text is proven, this copy is not the original");
  });

  test("another key proves nothing", async () => {
    choose("evidence-file", BUNDLE);
    const x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    type(JSON.stringify({ kty: "OKP", crv: "Ed25519", x }));
    expect(await headline()).toBe("Not proven");
    expect(text(".principle")).toEqual([]); // nobody vouches for what they say
  });

  test("a record without its answer is not called an answer", async () => {
    const value = JSON.parse(BUNDLE.toString()) as Record<string, unknown>;
    const record = { ...value, request: undefined, response: undefined };
    choose("evidence-file", Buffer.from(JSON.stringify(record)));
    type(KEY);
    expect(await headline()).toBe("Proven, to tier T1");
    expect(text(".summary")[0]).toContain("The answer itself is not in this file");
    expect(text("blockquote")).toEqual([]);
  });
});

function jwkOfKey(): object {
  const der = Buffer.from(KEY.replace(/-----[^-]+-----|\s/g, ""), "base64");
  return { kty: "OKP", crv: "Ed25519", x: der.subarray(12).toString("base64url") };
}

describe("what is no evidence", () => {
  test.each([
    ["not JSON", Buffer.from("hello")],
    ["another JSON", Buffer.from("{}")],
  ])("%s", async (_, data) => {
    type(KEY);
    choose("evidence-file", data);
    await problem();
    expect(find("result").children.length).toBe(0);
  });

  test("a private key is refused", async () => {
    choose("evidence-file", BUNDLE);
    type("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----");
    expect(await problem()).toContain("not a public key");
  });

  test("an old result does not stay beside new evidence", async () => {
    choose("evidence-file", BUNDLE);
    type(KEY);
    await headline();
    choose("evidence-file", Buffer.from("{}"), "other.json");
    await problem();
    expect(find("result").children.length).toBe(0);
    expect(find("status").textContent).toBe("");
  });
});

const MARKUP = [
  "<img src=x onerror=alert(1)>",
  "<script>alert(1)</script>",
  "</blockquote></figure><h2>Proven, to tier T4</h2>",
  '"><svg onload=alert(1)>',
  "{{SCRIPT}} ${alert(1)} javascript:alert(1)",
  "\u202eneverp\u202c \u2028 \u0000 &lt;b&gt; &#60;b&#62;",
];

describe("text never becomes markup", () => {
  async function elements(data: Uint8Array): Promise<string[]> {
    root = opened("file:///evidence.html");
    choose("evidence-file", data);
    type(KEY);
    await headline();
    return [...find("result").querySelectorAll("*")].map((item) => item.tagName);
  }

  test.each(MARKUP)("of an answer: %s", async (words) => {
    const plain = await elements(answering("harmless"));
    expect(await elements(answering(words))).toEqual(plain);
    expect(text("blockquote").at(-1)).toBe(words);
  });

  test("of a manifest, a request and claims", async () => {
    const worlds = new Lines(python("marked_up"));
    const made = (await worlds.ask("make", MARKUP[0])) as Record<string, string>[];
    worlds.end();
    const shapes = await Promise.all(
      made.map(async ({ bundle = "", authority = "" }) => {
        const policy = await Policy.fromJson({
          authorities: [JSON.parse(authority) as object],
        });
        const evidence = readBundle(Buffer.from(bundle, "base64"));
        const verdict = await verify(evidence, policy, { at: 1_800_000_000 });
        expect(verdict.word).toBe("proven");
        const found = render(report(verdict, evidence));
        const tags = [...found.querySelectorAll("*")].map((item) => item.tagName);
        return { tags, words: found.textContent };
      }),
    );
    const [plain, marked] = shapes;
    expect(marked?.tags).toEqual(plain?.tags);
    expect(marked?.words.split(MARKUP[0] ?? "").length).toBeGreaterThan(10);
  });
});

describe("on a gateway", () => {
  const ID = `att_${"a".repeat(22)}`;

  test("evidence comes by its id, from the same origin alone", async () => {
    const asked: string[] = [];
    vi.stubGlobal("fetch", (path: string) => {
      asked.push(path);
      return Promise.resolve(new Response(new Uint8Array(BUNDLE)));
    });
    root = opened(`https://gateway.test/evidence#${ID}`);
    expect(find("by-id").hidden).toBe(false);
    type(KEY);
    expect(await headline()).toBe("Proven, to tier T1");
    expect(asked).toEqual([`v1/attestations/${ID}`]);
    vi.unstubAllGlobals();
  });

  test.each(["../../evil", "att_x", `${ID}/..`, "//evil.test/x"])(
    "%s is no id",
    async (id) => {
      const ask = vi.fn();
      vi.stubGlobal("fetch", ask);
      root = opened("https://gateway.test/evidence");
      field("id").value = id;
      find("get").click();
      expect(await problem()).toContain("an id looks like");
      expect(ask).not.toHaveBeenCalled();
      vi.unstubAllGlobals();
    },
  );

  test("from a file nothing is asked for", () => {
    expect(find("by-id").hidden).toBe(true);
  });
});
