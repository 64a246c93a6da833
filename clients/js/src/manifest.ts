/**
 * The training manifest: what the training authority signs about a model.
 *
 * An in-toto Statement v1 in a DSSE envelope. `subject` lists every file of the model
 * directory; the predicate says which constitution and principles governed the training,
 * what was measured, and under which conditions the weights may be served.
 */

import { type Bytes, utf8 } from "./bytes.js";
import type { Constitution } from "./claims.js";
import { digest, digestOfHex } from "./digests.js";
import { MAX_ENVELOPE, openEnvelope } from "./envelope.js";
import {
  ExpiredError,
  FormatError,
  SignatureError,
  UnsupportedVersionError,
} from "./errors.js";
import {
  type Json,
  type JsonObject,
  isObject,
  member,
  readObject,
  rejectFloats,
} from "./json.js";
import { PublicKey } from "./keys.js";
import { NoteKey } from "./log/note.js";
import { Reader, moment } from "./reader.js";
import { type Reference, readReference } from "./recall.js";
import { type TensorDigest, tensorRoot } from "./weights.js";

const MANIFEST_TYPE = "application/vnd.in-toto+json";
const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE = "urn:attest-gateway:training-governance:v1";
const TREE_ALG = "rfc6962-sha256";
const ISSUER_ROLE = "gateway-key-issuer";
const MAX_FILES = 20_000;
const MAX_PATH = 1024;

/** A key that the authority lets certify gateway session keys. */
export interface Delegation {
  readonly key: PublicKey;
  readonly role: string;
  readonly notAfter: number;
}

/** How the weights may be served. An empty list allows nothing of its kind. */
export interface Runtime {
  readonly engines: readonly string[];
  readonly dtypes: readonly string[];
  readonly quantizations: readonly string[];
  readonly adapters: readonly string[];
  /** Name by digest. */
  readonly systemPrompts: ReadonlyMap<string, string>;
}

/** A manifest whose form was checked. Only `openManifest` checks signatures. */
export interface Manifest {
  /** Of the payload; how tokens refer to this manifest. */
  readonly digest: string;
  readonly modelName: string;
  readonly modelVersion: string;
  /** Text digest by file name, every file of the model directory. */
  readonly subjects: ReadonlyMap<string, string>;
  readonly tensorRoot: string;
  readonly tensorCount: number | bigint;
  /** Null for weights-only evidence. */
  readonly constitution: Constitution | null;
  readonly runtime: Runtime;
  readonly delegations: readonly Delegation[];
  /** Seconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Keys of the transparency logs that gateways may use. */
  readonly logs: readonly NoteKey[];
  /** Keys of those who cosign them. */
  readonly witnesses: readonly NoteKey[];
  /** Its place in a status list, undefined where it has none. */
  readonly status: Reference | undefined;
  /** Digest of the manifest that it replaces. */
  readonly supersedes: string | undefined;
  /** Digest of the manifest of the model that it was made from. */
  readonly parent: string | undefined;
  /** What was done to that model, in the trainer's words. */
  readonly transformation: string;
  /** The whole predicate as parsed, for display. */
  readonly predicate: JsonObject;
  /** Thumbprints of the trusted keys that signed. */
  readonly signedBy: readonly string[];
}

/** Throws ExpiredError when `at` (seconds, UTC) lies outside the manifest's validity. */
export function checkValidity(manifest: Manifest, at: number): void {
  if (manifest.notBefore <= at && at <= manifest.notAfter) return;
  throw new ExpiredError(
    `manifest: valid from ${moment(manifest.notBefore)} to ` +
      `${moment(manifest.notAfter)}, judged at ${moment(at)}`,
    { hint: "ask the training authority for a current manifest" },
  );
}

/** Keys, beside the authority's own, that could certify gateways at `at`. */
export function issuersOf(manifest: Manifest, at: number): PublicKey[] {
  return manifest.delegations
    .filter((item) => item.role === ISSUER_ROLE && at <= item.notAfter)
    .map((item) => item.key);
}

/** A safe relative POSIX path. Throws FormatError for any other value. */
function pathOf(name: Json | undefined): string {
  const isSafe =
    typeof name === "string" &&
    name !== "" &&
    utf8(name).length <= MAX_PATH &&
    !/[\\\0]/.test(name) &&
    !name.split("/").some((part) => part === "" || part === "." || part === "..");
  if (!isSafe) {
    throw new FormatError("manifest: a subject name is not a plain relative path");
  }
  return name;
}

function subjectsOf(statement: JsonObject): Map<string, string> {
  const items = member(statement, "subject");
  if (!Array.isArray(items) || items.length === 0 || items.length > MAX_FILES) {
    throw new FormatError(`manifest: expected 1 to ${MAX_FILES} subjects`);
  }
  const subjects = new Map<string, string>();
  for (const item of items) {
    const digests = isObject(item) ? member(item, "digest") : undefined;
    if (!isObject(item) || !isObject(digests)) {
      throw new FormatError("manifest: a subject has no digest object");
    }
    const name = pathOf(member(item, "name"));
    if (subjects.has(name))
      throw new FormatError("manifest: a subject is listed twice");
    // in-toto lets any one matching digest pass; here sha256 must be there.
    subjects.set(name, digestOfHex(member(digests, "sha256")));
  }
  return subjects;
}

function tensorOf(reader: Reader): TensorDigest {
  const shape = member(reader.value, "shape");
  const isSize = (size: Json) =>
    (typeof size === "number" || typeof size === "bigint") && size >= 0;
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw reader.refuse("shape", "must hold sizes");
  }
  return {
    name: reader.text("name"),
    dtype: reader.text("dtype"),
    shape,
    sha256: digestOfHex(member(reader.value, "sha256")).slice("sha256:".length),
  };
}

async function checkTree(weights: Reader, tree: Reader): Promise<void> {
  const tensors = weights.children("tensors").map(tensorOf);
  const [root, count] = [tree.digest("root"), tree.integer("count")];
  if (tensors.length === 0) return;
  if (tensors.length !== count || (await tensorRoot(tensors)) !== root) {
    throw new FormatError("manifest: weights.tensors do not give tensorTree.root");
  }
}

function runtimeOf(reader: Reader): Runtime {
  const prompts = reader.children("systemPrompts");
  return {
    engines: reader.texts("engines"),
    dtypes: reader.texts("dtypes"),
    quantizations: reader.texts("quantizations"),
    adapters: reader.texts("adapters"),
    systemPrompts: new Map(
      prompts.map((item) => [item.digest("digest"), item.text("name")]),
    ),
  };
}

async function delegationOf(reader: Reader): Promise<Delegation> {
  return {
    key: await PublicKey.fromJwk(member(reader.value, "jwk")),
    role: reader.text("role"),
    notAfter: reader.time("notAfter"),
  };
}

function constitutionOf(predicate: Reader): Constitution | null {
  const reader = predicate.optionalChild("constitution");
  if (reader === undefined) return null;
  return {
    id: reader.text("id"),
    version: reader.text("version"),
    digest: reader.digest("digest"),
  };
}

/**
 * Read the payload of a manifest. Signatures and validity are NOT checked here.
 *
 * Throws FormatError: the form is broken: duplicate keys, floats, unsafe or repeated
 * names, a missing or mistyped field, a tensor list that does not give the stated root.
 * Throws UnsupportedVersionError: another statement or predicate type.
 */
export async function parseStatement(payload: Bytes): Promise<Manifest> {
  const statement = readObject(payload, { maxBytes: MAX_ENVELOPE });
  if (
    member(statement, "_type") !== STATEMENT_TYPE ||
    member(statement, "predicateType") !== PREDICATE_TYPE
  ) {
    throw new UnsupportedVersionError(
      `manifest: expected ${STATEMENT_TYPE} with ${PREDICATE_TYPE}`,
      { hint: "upgrade: npm install attest-gateway@latest" },
    );
  }
  rejectFloats(statement);
  const predicate = new Reader(statement).child("predicate");
  const [model, weights] = [predicate.child("model"), predicate.child("weights")];
  const [tree, validity] = [weights.child("tensorTree"), predicate.child("validity")];
  const anchors = predicate.childOrEmpty("trustAnchors");
  const derivation = predicate.childOrEmpty("derivation");
  if (tree.text("alg") !== TREE_ALG) {
    throw new UnsupportedVersionError(`manifest: tensorTree.alg is not ${TREE_ALG}`);
  }
  await checkTree(weights, tree);
  return {
    digest: await digest(payload),
    modelName: model.text("name"),
    modelVersion: model.text("version"),
    subjects: subjectsOf(statement),
    tensorRoot: tree.digest("root"),
    tensorCount: tree.integer("count"),
    constitution: constitutionOf(predicate),
    runtime: runtimeOf(predicate.child("runtime")),
    delegations: await Promise.all(predicate.children("delegations").map(delegationOf)),
    notBefore: validity.time("notBefore"),
    notAfter: validity.time("notAfter"),
    logs: await Promise.all(anchors.texts("logs").map((text) => NoteKey.parse(text))),
    witnesses: await Promise.all(
      anchors.texts("witnesses").map((text) => NoteKey.parse(text)),
    ),
    status: readReference(member(predicate.value, "status")),
    supersedes: predicate.optionalDigest("supersedes"),
    parent: derivation.optionalDigest("parent"),
    transformation: derivation.text("transformation", "not stated"),
    predicate: predicate.value,
    signedBy: [],
  };
}

// A client meets the same manifest with every answer, and reading one of a thousand
// tensors takes as long as the rest of a verification many times over. The digest of the
// bytes is the key, so nothing else can be found under it.
const KEPT = 4;
const parsed = new Map<string, Promise<Manifest>>();

async function parseOnce(payload: Bytes): Promise<Manifest> {
  const name = await digest(payload);
  let found = parsed.get(name);
  if (found === undefined) {
    found = parseStatement(payload);
    parsed.set(name, found);
    const oldest = parsed.keys().next();
    if (parsed.size > KEPT && oldest.done !== true) parsed.delete(oldest.value);
  }
  return found;
}

/**
 * The manifest, when enough of the authorities signed these very bytes. Verifies first and
 * parses after. Validity is NOT checked: the caller knows the time to judge at.
 *
 * Throws SignatureError: not signed by `threshold` of `authorities`. Throws FormatError,
 * UnsupportedVersionError: as `parseStatement`.
 */
export async function openManifest(
  envelope: Bytes,
  authorities: readonly PublicKey[],
  threshold: number,
): Promise<Manifest> {
  if (authorities.length === 0) {
    throw new SignatureError(
      "manifest: no authority is trusted, so none can have signed",
    );
  }
  const opened = await openEnvelope(envelope, MANIFEST_TYPE, authorities, threshold);
  return { ...(await parseOnce(opened.payload)), signedBy: opened.signedBy };
}
