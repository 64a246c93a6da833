/** Selective disclosure: salted digests of claims (RFC 9901, SD-JWT). */

import { fromBase64Url, toBase64Url, utf8 } from "./bytes.js";
import { sha256 } from "./digests.js";
import { FormatError } from "./errors.js";
import { type JsonObject, member, newObject, readJson } from "./json.js";

const MAX_DISCLOSURES = 256;
// 128 choices, the most that is served, make 27 kB; an ordinary chat makes 2.5.
const MAX_PRESENTATION = 64 * 1024;
const MAX_DISCLOSURE = 8 * 1024;
// eslint-disable-next-line no-control-regex -- ASCII is what is asked for
const ASCII = /^[\u0000-\u007f]*$/;

/**
 * The token and the disclosures of `token~disclosure~…~`; a bare token has none.
 *
 * Throws FormatError: no `~` at the end, or larger than any token of ours.
 */
export function splitPresentation(text: string): [string, string[]] {
  if (text.length > MAX_PRESENTATION) {
    throw new FormatError(
      `token: more than ${MAX_PRESENTATION} bytes with disclosures`,
    );
  }
  const [token = "", ...rest] = text.split("~");
  if (rest.length === 0) return [token, []];
  if (rest.pop() !== "") {
    // Something after the last ~ would be a key-binding JWT, which no gateway issues.
    throw new FormatError("disclosures: the compact form must end with ~");
  }
  if (rest.length > MAX_DISCLOSURES) {
    throw new FormatError(`disclosures: more than ${MAX_DISCLOSURES}`);
  }
  return [token, rest];
}

function digestsOf(claims: JsonObject): Set<string> {
  const digests = member(claims, "_sd") ?? [];
  if (!Array.isArray(digests) || !digests.every((item) => typeof item === "string")) {
    throw new FormatError("disclosures: _sd is not a list of digests");
  }
  const known = new Set(digests);
  if (known.size !== digests.length) {
    throw new FormatError("disclosures: a digest stands twice in _sd");
  }
  return known;
}

/**
 * The claims that the disclosures prove, by name. Follows RFC 9901 §7.1: every
 * disclosure must match exactly one digest of the token.
 *
 * Throws FormatError: malformed, a digest that the token does not hold or holds twice, a
 * disclosure or a name given twice, or a name that the token states in the clear.
 */
export async function reveal(
  claims: JsonObject,
  disclosures: readonly string[],
): Promise<JsonObject> {
  const known = digestsOf(claims);
  const revealed = newObject();
  for (const disclosure of disclosures) {
    const found = ASCII.test(disclosure)
      ? toBase64Url(await sha256(utf8(disclosure)))
      : "";
    if (!known.delete(found)) {
      throw new FormatError("disclosures: one does not belong to this token", {
        reason: "form.disclosure",
      });
    }
    const item = readJson(fromBase64Url(disclosure), { maxBytes: MAX_DISCLOSURE });
    if (!Array.isArray(item) || item.length !== 3) throw malformed();
    const [salt, name, value] = item;
    if (typeof salt !== "string" || salt === "" || typeof name !== "string") {
      throw malformed();
    }
    const isTaken = Object.hasOwn(claims, name) || Object.hasOwn(revealed, name);
    if (isTaken || name === "_sd" || name === "..." || value === undefined) {
      throw new FormatError("disclosures: a claim is stated twice");
    }
    revealed[name] = value;
  }
  return revealed;
}

function malformed(): FormatError {
  return new FormatError("disclosures: expected [salt, name, value]");
}
