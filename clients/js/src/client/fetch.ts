/**
 * A `fetch` that hands on no answer that is not proven, for every SDK that takes one.
 *
 *     const client = new OpenAI({ baseURL, fetch: attestedFetch(policy) });
 *
 * A POST is sent with a fresh `Attestation-Nonce`, and its answer is handed on when it is
 * proven:
 *
 * - a body as a whole, untouched;
 * - a stream event by event as it comes. Its end, from the attestation or the terminal
 *   event on, is kept back until the whole is proven; the attestation's comment is taken
 *   out. Whoever stops reading before the end has an unproven answer. In the mode
 *   `before-use` nothing of it is handed on before that;
 * - an error (status 400 and above) at once, for the SDK to raise; it is no answer.
 *
 * Other requests pass untouched.
 */

import { type Bytes, concat, toBase64Url } from "../bytes.js";
import { ATTESTATION_HEADER, NONCE_HEADER, StreamGate } from "../delivery.js";
import { END_WORDS } from "../dialects/index.js";
import { AttestError, EvidenceUnavailableError, FormatError } from "../errors.js";
import type { Policy } from "../policy.js";
import {
  type Exchange,
  Examiner,
  type Fetched,
  MAX_EVIDENCE,
  type OnEvidence,
  attestationId,
} from "./examiner.js";

const MAX_ANSWER = 64 * 1024 * 1024;
const CREDENTIALS = ["authorization", "x-api-key", "api-key"];
/** They answer about text, not with text of the model. */
const UNATTESTED = ["/tokenize", "/detokenize", "/v1/messages/count_tokens"];
/** Responses that `fetch` lets have no body. */
const BODILESS = [204, 205, 304];
/**
 * The SDKs of OpenAI and Anthropic send it. They take a `fetch` that fails for a broken
 * connection, and ask again; what fails while they read the answer they let through.
 */
const STAINLESS = "x-stainless-lang";

/** How answers are checked. */
export interface AttestedFetchOptions {
  /**
   * When a stream is handed on: `at-end` event by event, the last one when the whole is
   * proven; `before-use` as a whole when it is proven. A body is always handed on as a
   * whole.
   */
  readonly mode?: "at-end" | "before-use";
  /** Called with the verdict and the bundle of every attested answer. */
  readonly onEvidence?: OnEvidence;
  /** What sends the requests; the platform's. */
  readonly fetch?: typeof fetch;
  /** Seconds since the epoch, UTC. */
  readonly clock?: () => number;
}

/**
 * A `fetch` whose answers are proven by `policy`.
 *
 * It rejects with an AttestError where an answer is not proven; a stream, and anything
 * asked by the SDKs of OpenAI and Anthropic, does so when it is read. A VerificationError
 * is a definite no, an EvidenceUnavailableError means that nobody can tell.
 */
export function attestedFetch(
  policy: Policy,
  options: AttestedFetchOptions = {},
): typeof fetch {
  const clock = options.clock ?? (() => Date.now() / 1000);
  const examiner = new Examiner(policy, clock, options.onEvidence);
  const isBuffered = options.mode === "before-use";
  return async (input, init) => {
    const send = options.fetch ?? globalThis.fetch;
    if (!isAttested(input, init)) return send(input, init);
    const request = new Request(input, init);
    const asked = new Asked(request, new Uint8Array(await request.arrayBuffer()), send);
    const response = await asked.send(init);
    try {
      return await examine(asked, response, examiner, isBuffered);
    } catch (error) {
      await response.body?.cancel().catch(() => undefined);
      if (!(error instanceof AttestError) || !asked.isStainless) throw error;
      return failing(error);
    }
  };
}

function isAttested(input: RequestInfo | URL, init: RequestInit | undefined): boolean {
  const isRequest = input instanceof Request;
  const method = init?.method ?? (isRequest ? input.method : "GET");
  const url = isRequest ? input.url : String(input);
  const path = /^(?:[a-z][a-z0-9+.-]*:\/\/[^/?#]*)?([^?#]*)/i.exec(url)?.[1] ?? "";
  return method.toUpperCase() === "POST" && !UNATTESTED.includes(path);
}

/** A request, and what it takes to ask the same gateway for evidence. */
class Asked {
  readonly nonce = toBase64Url(crypto.getRandomValues(new Uint8Array(24)));

  constructor(
    private readonly request: Request,
    readonly body: Bytes,
    private readonly fetch: typeof globalThis.fetch,
  ) {}

  get isStainless(): boolean {
    return this.request.headers.has(STAINLESS);
  }

  send(init: RequestInit | undefined): Promise<Response> {
    const headers = new Headers(this.request.headers);
    headers.set(NONCE_HEADER, this.nonce);
    // Browsers don't let it be set, and unpack what they get.
    headers.set("accept-encoding", "identity");
    const { url, method, signal } = this.request;
    const own = {
      method,
      headers,
      body: this.body,
      redirect: "manual",
      signal,
    } as const;
    return this.fetch(url, { ...init, ...own });
  }

  exchange(response: Response): Exchange {
    const url = new URL(this.request.url);
    // The gateway may lie below a path of a proxy; the API's own begins with /v1/.
    const at = url.pathname.lastIndexOf("/v1/");
    const gateway = url.origin + url.pathname.slice(0, Math.max(0, at));
    return {
      gateway,
      request: this.body,
      nonce: this.nonce,
      status: response.status,
      attestationId: attestationId(response.headers),
      get: (path) => this.get(gateway, path),
    };
  }

  private async get(gateway: string, path: string): Promise<Fetched> {
    const headers = new Headers();
    for (const name of CREDENTIALS) {
      const value = this.request.headers.get(name);
      if (value !== null) headers.set(name, value);
    }
    const { signal, credentials } = this.request;
    const init = { headers, signal, credentials, redirect: "manual" } as const;
    try {
      const response = await this.fetch(gateway + path, init);
      return {
        status: response.status,
        body: await readAll(response, MAX_EVIDENCE),
        retryAfter: response.headers.get("retry-after"),
      };
    } catch (error) {
      if (error instanceof AttestError || signal.aborted) throw error;
      throw new EvidenceUnavailableError(
        `${path}: not reached while fetching evidence`,
        {
          hint: "the answer came, but its evidence did not; ask again",
          cause: error,
        },
      );
    }
  }
}

async function examine(
  asked: Asked,
  response: Response,
  examiner: Examiner,
  isBuffered: boolean,
): Promise<Response> {
  const exchange = asked.exchange(response);
  const token = response.headers.get(ATTESTATION_HEADER) ?? undefined;
  if (response.type === "opaqueredirect" || Math.floor(response.status / 100) === 3) {
    throw new EvidenceUnavailableError(
      `${exchange.gateway}: answered with a redirect, which is not followed`,
      { hint: "give the gateway's own URL as base URL" },
    );
  }
  if (response.status >= 400) {
    if (!examiner.keeps || token === undefined) return response;
    const body = await readAll(response, MAX_ANSWER);
    await examiner.judge(exchange, token, body).catch(unlessOurs);
    return handedOn(response, body);
  }
  const kind = response.headers.get("content-type") ?? "";
  if (kind.toLowerCase().startsWith("text/event-stream") && response.body !== null) {
    const stream = new CheckedStream(response.body, isBuffered, (found, body) =>
      examiner.judge(exchange, found, body),
    );
    return handedOn(response, stream.readable());
  }
  const body = await readAll(response, MAX_ANSWER);
  await examiner.judge(exchange, token, body);
  return handedOn(response, body);
}

function unlessOurs(error: unknown): void {
  if (!(error instanceof AttestError)) throw error;
}

/** The bytes of a stream, handed on as they are checked. */
class CheckedStream {
  private readonly gate = new StreamGate(END_WORDS);
  private readonly reader: ReadableStreamDefaultReader<Bytes>;
  private readonly received: Bytes[] = [];
  private readonly held: Bytes[] = [];
  private size = 0;

  constructor(
    body: ReadableStream<Bytes>,
    private readonly isBuffered: boolean,
    private readonly judge: (token: string | undefined, body: Bytes) => Promise<void>,
  ) {
    this.reader = body.getReader();
  }

  readable(): ReadableStream<Bytes> {
    return new ReadableStream<Bytes>(
      {
        pull: (controller) => this.pull(controller),
        cancel: (reason) => this.reader.cancel(reason),
      },
      { highWaterMark: 0 },
    );
  }

  private async pull(
    controller: ReadableStreamDefaultController<Bytes>,
  ): Promise<void> {
    try {
      for (;;) {
        const next = await this.reader.read();
        if (next.done) break;
        const ready = this.feed(next.value);
        if (this.isBuffered) this.held.push(ready);
        else if (ready.length > 0) {
          controller.enqueue(ready);
          return;
        }
      }
      const [rest, token] = this.gate.finish();
      await this.judge(token, concat(...this.received));
      const last = concat(...this.held, rest);
      if (last.length > 0) controller.enqueue(last);
      controller.close();
    } catch (error) {
      await this.reader.cancel(error).catch(() => undefined);
      throw error;
    }
  }

  private feed(chunk: Bytes): Bytes {
    this.received.push(chunk);
    this.size += chunk.length;
    if (this.size > MAX_ANSWER) {
      throw new EvidenceUnavailableError("the stream is over 64 MiB long");
    }
    try {
      return this.gate.feed(chunk);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      throw new EvidenceUnavailableError(
        `the answer cannot be checked: ${error.message}`,
      );
    }
  }
}

async function readAll(response: Response, limit: number): Promise<Bytes> {
  const parts: Bytes[] = [];
  let size = 0;
  const reader = response.body?.getReader();
  for (
    let next = await reader?.read();
    next?.done === false;
    next = await reader?.read()
  ) {
    parts.push(next.value);
    size += next.value.length;
    if (size > limit) {
      await reader?.cancel();
      throw new EvidenceUnavailableError(
        `an answer of over ${limit >> 20} MiB is not checked`,
      );
    }
  }
  return concat(...parts);
}

/** The response with another body; it is neither packed nor of the stated length. */
function handedOn(response: Response, body: BodyInit): Response {
  const headers = new Headers(response.headers);
  headers.delete("content-encoding");
  headers.delete("content-length");
  const { status, statusText, url } = response;
  const content = BODILESS.includes(status) ? null : body;
  const own = new Response(content, { status, statusText, headers });
  return Object.defineProperty(own, "url", { value: url });
}

/** An answer that fails when it is read, and not before. */
function failing(error: AttestError): Response {
  const body = new ReadableStream<Bytes>({
    start: (controller) => {
      controller.error(error);
    },
  });
  return new Response(body, { headers: { "content-type": "application/json" } });
}
