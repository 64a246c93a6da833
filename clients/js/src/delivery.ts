/**
 * How an attestation travels beside an answer: a JSON answer carries the token in a
 * header while it fits; a stream carries it in one SSE comment before its last event.
 */

import { type Bytes, concat } from "./bytes.js";
import { EventSplitter, asciiView } from "./sse.js";

export const ATTESTATION_HEADER = "attestation";
export const ID_HEADER = "attestation-id";
export const NONCE_HEADER = "attestation-nonce";
export const WELL_KNOWN = "/.well-known/attestation";

// A blank line that CRLF ends may reach us in two pieces; its LF then opens the next
// event (see EventSplitter), which is this one.
const COMMENT = /^(\n?): attestation ([A-Za-z0-9._~-]+)\n\n$/;

/**
 * Lets a stream through as it comes, and keeps its end back.
 *
 * Kept back is everything from the first event on that is an attestation comment or in
 * which one of `words` stands. `[DONE]` is such a word: a reader that sees it looks at
 * nothing more. It counts anywhere in an event, since some readers also break lines where
 * server-sent events do not.
 */
export class StreamGate {
  /** How much is kept back. There is no bound here. */
  heldBytes = 0;
  private readonly splitter = new EventSplitter();
  private readonly held: Bytes[] = [];

  constructor(private readonly words: readonly string[] = []) {}

  /**
   * What may be handed on now: whole events, unchanged.
   *
   * Throws FormatError: an event is larger than 8 MiB.
   */
  feed(chunk: Bytes): Bytes {
    const ready: Bytes[] = [];
    for (const { raw } of this.splitter.feed(chunk)) {
      if (this.held.length > 0 || this.stops(raw)) this.hold(raw);
      else ready.push(raw);
    }
    return concat(...ready);
  }

  /**
   * The rest of what the token covers, and the token.
   *
   * The covered bytes are all but the attestation comment. Only the last comment counts:
   * the gateway writes one, and an earlier one that somebody slipped in stays among the
   * covered bytes, where it breaks their digest.
   */
  finish(): [Bytes, string | undefined] {
    this.hold(this.splitter.flush());
    for (let at = this.held.length - 1; at >= 0; at -= 1) {
      const raw = this.held[at];
      const match = raw === undefined ? null : COMMENT.exec(asciiView(raw));
      if (raw === undefined || match === null) continue;
      this.held[at] = raw.subarray(0, match[1]?.length ?? 0);
      return [concat(...this.held), match[2]];
    }
    return [concat(...this.held), undefined];
  }

  private stops(raw: Bytes): boolean {
    const view = asciiView(raw);
    return COMMENT.test(view) || this.words.some((word) => view.includes(word));
  }

  private hold(raw: Bytes): void {
    this.held.push(raw);
    this.heldBytes += raw.length;
  }
}

/**
 * The bytes of a whole stream that the token covers, and the token.
 *
 * Throws FormatError: an event is larger than 8 MiB.
 */
export function splitStream(body: Bytes): [Bytes, string | undefined] {
  const gate = new StreamGate();
  const head = gate.feed(body);
  const [rest, token] = gate.finish();
  return [concat(head, rest), token];
}
