/**
 * Writes gateway/static/evidence.html: the page, its style and its program in one file
 * that loads nothing, with a policy that names exactly these by their digest.
 *
 *     node scripts/build-page.mjs            write it
 *     node scripts/build-page.mjs --check    fail where the file is another
 */

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const TARGET = here("../../../gateway/static/evidence.html");

async function bundled(entry) {
  const { outputFiles } = await build({
    entryPoints: [here(`../src/page/${entry}`)],
    bundle: true,
    minify: true,
    write: false,
    format: "iife",
    target: "es2022",
    platform: "browser",
    charset: "ascii",
    legalComments: "none",
  });
  return outputFiles[0].text.trim();
}

function source(text) {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

const [script, style] = [await bundled("entry.ts"), await bundled("page.css")];
if (/<\/script|<!--/i.test(script) || /<\//.test(style)) {
  throw new Error("the program or the style would end its own element");
}
const policy = [
  "default-src 'none'",
  `script-src ${source(script)}`,
  `style-src ${source(style)}`,
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");
const licence = readFileSync(here("../node_modules/jose/LICENSE.md"), "utf8");
const values = {
  POLICY: policy,
  JOSE: /Copyright.*/.exec(licence)[0],
  STYLE: style,
  SCRIPT: script,
};
const template = readFileSync(here("../src/page/page.html"), "utf8");
let page = template;
for (const [name, value] of Object.entries(values)) {
  if (page.split(`{{${name}}}`).length !== 2) throw new Error(`{{${name}}} once`);
  page = page.replace(`{{${name}}}`, () => value);
}

if (process.argv.includes("--check")) {
  if (readFileSync(TARGET, "utf8") !== page) {
    console.error("gateway/static/evidence.html is not current; type: make js-page");
    process.exit(1);
  }
} else {
  writeFileSync(TARGET, page);
  console.log(`${TARGET}: ${page.length} bytes, script ${script.length}`);
}
