/** The page: takes a file and a key, verifies here, shows the report. */

import { readBundle } from "../bundle.js";
import { type Bytes, utf8 } from "../bytes.js";
import { AttestError } from "../errors.js";
import { isObject, member, readJson } from "../json.js";
import { PublicKey } from "../keys.js";
import { Policy } from "../policy.js";
import { verify } from "../verify.js";
import { type Report, report } from "./report.js";
import { render } from "./view.js";

const MAX_KEY_FILE = 256 * 1024;
const MAX_EVIDENCE = 160 * 1024 * 1024;
const ID = /^att_[A-Za-z0-9_-]{22}$/;

/** A policy of its own, or the default one about the key that was given. */
async function policyOf(text: string): Promise<Policy> {
  const data = utf8(text.trim());
  if (text.trimStart().startsWith("{")) {
    const value = readJson(data, { maxBytes: MAX_KEY_FILE });
    if (isObject(value) && member(value, "authorities") !== undefined) {
      return Policy.fromJson(data);
    }
  }
  return new Policy({ authorities: [await PublicKey.fromBytes(data)] });
}

/** The page's elements and what was given so far. */
class Page {
  private evidence: Bytes | undefined;
  private turn = 0;

  constructor(
    private readonly root: Document,
    private readonly now: () => number,
  ) {}

  start(): void {
    this.files("evidence-file", "evidence-drop", (data, name) => {
      this.evidence = data;
      this.tell("evidence-name", name);
    });
    this.files("key-file", "key-drop", (data) => {
      this.keyField.value = new TextDecoder().decode(data.subarray(0, MAX_KEY_FILE));
    });
    this.keyField.addEventListener("input", () => {
      this.check();
    });
    // A file that misses its place must not replace the page.
    for (const kind of ["dragover", "drop"]) {
      this.root.addEventListener(kind, (event) => {
        event.preventDefault();
      });
    }
    this.fromGateway();
  }

  private find(id: string): HTMLElement {
    const found = this.root.getElementById(id);
    if (found === null) throw new Error(`the page lacks ${id}`);
    return found;
  }

  private get keyField(): HTMLTextAreaElement {
    return this.find("key") as HTMLTextAreaElement;
  }

  private tell(id: string, text: string): void {
    this.find(id).textContent = text;
  }

  /** Take the files that are chosen or dropped in one place. */
  private files(
    input: string,
    drop: string,
    take: (data: Bytes, name: string) => void,
  ): void {
    const accept = (files: FileList | null | undefined) => {
      const file = files?.[0];
      if (file === undefined) return;
      this.run(async () => {
        if (file.size > MAX_EVIDENCE) throw new Error("the file is too large");
        take(new Uint8Array(await file.arrayBuffer()), file.name);
      });
    };
    const chooser = this.find(input) as HTMLInputElement;
    chooser.addEventListener("change", () => {
      accept(chooser.files);
    });
    const place = this.find(drop);
    place.addEventListener("drop", (event) => {
      accept(event.dataTransfer?.files);
    });
    for (const [kind, isOver] of [
      ["dragover", true],
      ["dragleave", false],
      ["drop", false],
    ] as const) {
      place.addEventListener(kind, () => {
        place.classList.toggle("over", isOver);
      });
    }
  }

  /** On a gateway's own page: evidence by its id, from this origin alone. */
  private fromGateway(): void {
    const { protocol, hash } = this.root.location;
    if (protocol !== "http:" && protocol !== "https:") return;
    const form = this.find("by-id");
    const field = this.find("id") as HTMLInputElement;
    form.hidden = false;
    const get = () => {
      const id = field.value.trim();
      this.run(async () => {
        if (!ID.test(id)) throw new Error("an id looks like att_ and 22 characters");
        // The page may lie below a path of a proxy, as the gateway's other routes do.
        const response = await fetch(`v1/attestations/${id}`, { redirect: "error" });
        if (!response.ok) throw new Error(`the gateway answered ${response.status}`);
        this.evidence = new Uint8Array(await response.arrayBuffer());
        this.tell("evidence-name", id);
      });
    };
    this.find("get").addEventListener("click", get);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") get();
    });
    const named = hash.slice(1);
    if (ID.test(named)) {
      field.value = named;
      get();
    }
  }

  /** Do something that takes evidence in, and check. */
  private run(action: () => Promise<void>): void {
    action().then(
      () => {
        this.check();
      },
      (error: unknown) => {
        this.complain(error);
      },
    );
  }

  private complain(error: unknown): void {
    const hint =
      error instanceof AttestError && error.hint !== "" ? ` (${error.hint})` : "";
    const message = error instanceof Error ? error.message : String(error);
    this.clear(`${message}${hint}`);
  }

  private clear(problem: string): void {
    this.tell("problem", problem);
    this.tell("status", "");
    this.find("result").replaceChildren();
  }

  private check(): void {
    this.turn += 1;
    const turn = this.turn;
    const [evidence, key] = [this.evidence, this.keyField.value];
    this.clear("");
    if (evidence === undefined || key.trim() === "") return;
    this.judged(evidence, key).then(
      (found) => {
        // Something else may have been given in the meantime.
        if (turn !== this.turn) return;
        this.find("result").replaceChildren(render(found));
        this.tell("status", `Result: ${found.headline}`);
      },
      (error: unknown) => {
        if (turn === this.turn) this.complain(error);
      },
    );
  }

  private async judged(evidence: Bytes, key: string): Promise<Report> {
    const policy = await policyOf(key);
    const bundle = readBundle(evidence);
    const verdict = await verify(bundle, policy, { at: Math.floor(this.now() / 1000) });
    return report(verdict, bundle);
  }
}

/** Bring a document to life. */
export function start(root: Document, now: () => number = Date.now): void {
  new Page(root, now).start();
}
