/**
 * What became of a request or a response whose bytes are not the attested ones.
 *
 * Only a real change is called one. A copy whose spelling alone was changed is told from
 * it by two means: the change is undone and the signed digest says so (`restore.ts`), or
 * what the copy says is compared with what the token states: the salted digest of each
 * choice (`out.N`), finish reasons, model, token counts and the id. The second proves
 * what was compared and nothing else.
 *
 * Several findings may hold; where there is a real change, nothing else is said.
 */

import { type Bytes, utf8Text } from "./bytes.js";
import type { TokenClaims } from "./claims.js";
import { DIALECTS, type Dialect } from "./dialects/index.js";
import { FormatError } from "./errors.js";
import { Comparison, finding } from "./comparison.js";
import { type Json, type JsonObject, member, newObject, readObject } from "./json.js";
import { type Finding, REASONS } from "./reasons.js";
import { requestFacts, semanticDigest } from "./request.js";
import { covered, restored, unwrapped } from "./restore.js";
import { EventSplitter, asciiView } from "./sse.js";
import { MAX_BODY, Transcript, outputDigest } from "./transcript.js";

const STREAM_START = /^[ \t\n\r\v\f]*(?:data:|event:|:|id:|retry:)/;
const SIGNS: readonly (readonly [string, Dialect])[] = [
  ['"object":"chat.completion', "chat"],
  ['"object":"text_completion"', "completions"],
  ['"object":"response"', "responses"],
  ['"type":"message"', "messages"],
];

/** What was found. */
export interface Diagnosis {
  /**
   * What the copy says is what was attested; false where it is not, and where that cannot
   * be told.
   */
  readonly contentProven: boolean;
  /** Why the bytes differ; none where they don't. */
  readonly findings: readonly Finding[];
}

/** Proven when all findings are of the harmless kind. */
export function diagnosisOf(findings: readonly Finding[]): Diagnosis {
  const isHarmless = (item: Finding) => REASONS[item.code]?.status === "content only";
  return { contentProven: findings.every(isHarmless), findings };
}

/**
 * Why a request is not the one that `request.digest` names; that must be disclosed.
 *
 * @param copy The request at hand, of another digest.
 * @param claims Of the verified token.
 * @param disclosed What its disclosures proved.
 */
export async function diagnoseRequest(
  copy: Bytes,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<Diagnosis> {
  const stated = disclosed["request.digest"] as string;
  const attested = { digest: stated, size: undefined, isStream: false };
  const isSame =
    (await restored(copy, attested)) !== undefined ||
    (await meansTheSame(copy, claims, disclosed));
  const word = isSame ? "request_form" : "request_changed";
  return diagnosisOf([finding(`content.${word}`)]);
}

/** Whether messages, tools, model and sampling are those of the token. */
async function meansTheSame(
  copy: Bytes,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<boolean> {
  const expected = member(disclosed, "request.semantic_digest");
  const value = objectOrNone((await unwrapped(copy))[0]);
  if (expected === undefined || value === undefined) return false;
  for (const dialect of DIALECTS) {
    try {
      const facts = await requestFacts(value, dialect);
      if ((await semanticDigest(facts)) !== expected) continue;
      const model = claims["gen_ai.request.model"];
      const sampling = samplingOf(claims, disclosed);
      return facts.model === model && isSameSampling(facts.sampling, sampling);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
    }
  }
  return false;
}

/** The sampling that the token states; undefined where that may be hidden. */
function samplingOf(claims: TokenClaims, disclosed: JsonObject): Json | undefined {
  // A gateway states none for a request that asks for none. Without it only a token that
  // hides nothing says so.
  const hidesNothing = Object.keys(disclosed).length === claims._sd.length;
  return (
    member(disclosed, "request.sampling") ?? (hidesNothing ? newObject() : undefined)
  );
}

function isSameSampling(
  found: Readonly<Record<string, string>>,
  stated: unknown,
): boolean {
  if (typeof stated !== "object" || stated === null) return false;
  const names = Object.keys(found);
  const expected = stated as Readonly<Record<string, unknown>>;
  return (
    names.length === Object.keys(expected).length &&
    names.every(
      (name) => Object.hasOwn(expected, name) && expected[name] === found[name],
    )
  );
}

function objectOrNone(data: Bytes): JsonObject | undefined {
  try {
    return readObject(data, { maxBytes: MAX_BODY });
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/**
 * Why a response is not the one that `res.content_digest` names.
 *
 * @param copy The response at hand, of another digest.
 * @param claims Of the verified token.
 * @param disclosed What its disclosures proved.
 */
export async function diagnoseResponse(
  copy: Bytes,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<Diagnosis> {
  const { content_digest, content_bytes, stream } = claims.res;
  const attested = { digest: content_digest, size: content_bytes, isStream: stream };
  const codes = (await restored(copy, attested)) ?? [];
  if (codes.length > 0) return diagnosisOf(codes.map((code) => finding(code)));
  const [body] = await unwrapped(copy);
  const dialect = dialectOf(body);
  if (dialect === undefined) {
    return diagnosisOf([finding(await ofBareText(body, claims, disclosed))]);
  }
  const isStreamed = isStream(body);
  const read = isStreamed
    ? Transcript.ofStream(body, dialect)
    : Transcript.ofBody(body, dialect);
  const { length } = covered(body, isStreamed);
  const comparison = new Comparison(
    { body, isStreamed, length },
    read,
    claims,
    disclosed,
  );
  return diagnosisOf(await comparison.findings());
}

/** Whether some bytes look like a stream of events. */
export function isStream(body: Bytes): boolean {
  return STREAM_START.test(asciiView(body.subarray(0, 4096)));
}

/** The dialect of an answer by its first object, undefined where it is no answer. */
export function dialectOf(body: Bytes): Dialect | undefined {
  for (const data of isStream(body) ? dataOf(body) : [body]) {
    const value = objectOrNone(data);
    // A body that was cut: what it was going to be stands at its beginning.
    if (value === undefined) return dialectOfFragment(data);
    const found = dialectOfObject(value);
    if (found !== undefined) return found;
  }
  return undefined;
}

function dataOf(stream: Bytes): Bytes[] {
  try {
    const events = new EventSplitter().feed(stream);
    return events.flatMap(({ data }) => (data === undefined ? [] : [data]));
  } catch (error) {
    if (error instanceof FormatError) return [];
    throw error;
  }
}

function dialectOfObject(value: JsonObject): Dialect | undefined {
  const [kind, form] = [member(value, "type"), member(value, "object")];
  if (Array.isArray(member(value, "choices"))) {
    return form === "text_completion" ? "completions" : "chat";
  }
  const type = typeof kind === "string" ? kind : "";
  if (form === "response" || type.startsWith("response.")) return "responses";
  const isMessage = type.startsWith("message") || type.startsWith("content_block");
  return isMessage ? "messages" : undefined;
}

function dialectOfFragment(data: Bytes): Dialect | undefined {
  const start = asciiView(data).replace(/[ \t\n\r\v\f]+/g, "");
  if (!start.startsWith("{")) return undefined;
  return SIGNS.find(([sign]) => start.includes(sign))?.[1];
}

/**
 * The code for a copy that is no answer of an API: perhaps somebody kept the text. With it
 * must have been said nothing else: no reasoning, refusal or tool call.
 */
async function ofBareText(
  body: Bytes,
  claims: TokenClaims,
  disclosed: JsonObject,
): Promise<string> {
  let text: string;
  try {
    text = utf8Text(body);
  } catch (error) {
    if (error instanceof FormatError) return "content.changed";
    throw error;
  }
  const texts = new Set([text, text.replace(/[\r\n]+$/, "")]);
  texts.delete(""); // an empty file says nothing, whatever was attested
  const reasons = claims["gen_ai.response.finish_reasons"] ?? [];
  for (const [index, reason] of reasons.entries()) {
    const expected = member(disclosed, `out.${index}`);
    for (const output of [...texts].flatMap((one) => outputsOf(one, index, reason))) {
      if (expected !== undefined && (await outputDigest(output)) === expected) {
        return "content.text_only";
      }
    }
  }
  return "content.changed";
}

function outputsOf(text: string, index: number, reason: string | null): JsonObject[] {
  const chat = {
    index,
    role: "assistant",
    content: text,
    refusal: null,
    reasoning: null,
    tool_calls: [],
    finish_reason: reason,
  };
  return [chat, { index, text, finish_reason: reason }];
}
