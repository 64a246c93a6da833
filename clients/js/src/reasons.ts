/**
 * Why a step of a verification is not simply passed: one stable code for each reason.
 *
 * Written by scripts/build-reasons.mjs from attest/reasons.py, which says what the codes
 * promise.
 */

/** One reason, as it was met. What is empty is left out. */
export interface Finding {
  readonly code: string;
  /** One line for people. It may hold words from outside, spelt in ASCII. */
  readonly detail: string;
  /** What it speaks of, such as the id of a principle. */
  readonly about?: string;
  readonly expected?: string;
  readonly found?: string;
}

/** What a step then is; a note is said of a step that is ok. */
export type ReasonStatus =
  "failed" | "unknown" | "not checked" | "content only" | "note";

export const REASONS: Readonly<
  Record<string, { readonly status: ReasonStatus; readonly meaning: string }>
> = {
  "form.format": {
    status: "failed",
    meaning: "the token breaks the strict rules of its form",
  },
  "form.algorithm": {
    status: "failed",
    meaning: "an algorithm that no gateway uses, such as none",
  },
  "form.disclosure": {
    status: "failed",
    meaning: "a disclosure that does not belong to this token",
  },
  "form.unsupported_version": {
    status: "unknown",
    meaning: "a format newer than this verifier: upgrade it",
  },
  "manifest.format": {
    status: "failed",
    meaning: "the manifest breaks the strict rules of its form",
  },
  "manifest.signature": {
    status: "failed",
    meaning: "too few of the trusted authorities signed it",
  },
  "manifest.expired": {
    status: "failed",
    meaning: "the token was signed outside the manifest's validity",
  },
  "manifest.unsupported_version": {
    status: "unknown",
    meaning: "a format newer than this verifier: upgrade it",
  },
  "manifest.not_given": {
    status: "not checked",
    meaning: "a refusal without a manifest",
  },
  "key.format": {
    status: "failed",
    meaning: "a key certificate breaks the strict rules of its form",
  },
  "key.algorithm": {
    status: "failed",
    meaning: "a signature algorithm that the key may not use",
  },
  "key.uncertified": {
    status: "failed",
    meaning:
      "no certificate at hand is for the key that signed: forged, or these are the documents of another replica or start",
  },
  "key.issuer": {
    status: "failed",
    meaning: "certified by neither an authority nor its delegate",
  },
  "key.signature": {
    status: "failed",
    meaning: "the certificate is not signed by its issuer",
  },
  "key.expired": {
    status: "failed",
    meaning: "signed outside the period of the certificate",
  },
  "key.evidence_unavailable": {
    status: "unknown",
    meaning: "what is needed to judge it is not there",
  },
  "key.unsupported_version": {
    status: "unknown",
    meaning: "a format newer than this verifier: upgrade it",
  },
  "boot.format": {
    status: "failed",
    meaning: "the boot record breaks the strict rules of its form",
  },
  "boot.algorithm": {
    status: "failed",
    meaning: "a signature algorithm that the key may not use",
  },
  "boot.signature": {
    status: "failed",
    meaning: "the boot record is not signed by the session key",
  },
  "boot.other_replica": {
    status: "failed",
    meaning: "the boot record is a true one, of another replica or start",
  },
  "boot.unsupported_version": {
    status: "unknown",
    meaning: "a format newer than this verifier: upgrade it",
  },
  "signature.algorithm": {
    status: "failed",
    meaning: "a signature algorithm that the key may not use",
  },
  "signature.signature": {
    status: "failed",
    meaning: "it is not signed by the certified key",
  },
  "agreement.boot": {
    status: "failed",
    meaning: "the token names another boot record",
  },
  "agreement.manifest": {
    status: "failed",
    meaning: "the token names another manifest",
  },
  "agreement.key_manifest": {
    status: "failed",
    meaning: "the key is not certified for this manifest",
  },
  "agreement.gateway": {
    status: "failed",
    meaning: "token, boot record and key are of several gateways",
  },
  "agreement.weights": {
    status: "failed",
    meaning: "the weights are not the manifest's",
  },
  "agreement.measurement": {
    status: "failed",
    meaning: "the token claims more than the boot record",
  },
  "agreement.constitution": {
    status: "failed",
    meaning: "the token states another constitution",
  },
  "agreement.engine": {
    status: "failed",
    meaning: "the manifest does not allow this engine",
  },
  "agreement.dtype": {
    status: "failed",
    meaning: "the manifest does not allow this number format",
  },
  "agreement.time": {
    status: "failed",
    meaning: "the token is older than its boot record",
  },
  "agreement.model": {
    status: "note",
    meaning: "another model name answered than was asked for",
  },
  "content.not_given": {
    status: "not checked",
    meaning: "neither request nor response is at hand",
  },
  "content.request_not_disclosed": {
    status: "unknown",
    meaning: "the request's digest is not disclosed",
  },
  "content.request_changed": {
    status: "failed",
    meaning: "another request was attested",
  },
  "content.request_form": {
    status: "content only",
    meaning:
      "messages, tools, model and sampling are as attested; only the spelling of the request differs",
  },
  "content.compressed": { status: "content only", meaning: "still compressed" },
  "content.bom": {
    status: "content only",
    meaning: "a byte order mark was put in front",
  },
  "content.newline": {
    status: "content only",
    meaning: "white space at the end was added or lost",
  },
  "content.whitespace": {
    status: "content only",
    meaning: "white space between JSON tokens was changed",
  },
  "content.escapes": {
    status: "content only",
    meaning: "characters in JSON strings were escaped otherwise",
  },
  "content.line_endings": {
    status: "content only",
    meaning: "line ends of the stream were changed",
  },
  "content.comments_added": {
    status: "content only",
    meaning: "comments were put into the stream",
  },
  "content.done_lost": {
    status: "content only",
    meaning: "the event that ends the stream was lost",
  },
  "content.reencoded": {
    status: "content only",
    meaning:
      "written anew, such as with its keys in another order; all that the token states of the answer is as attested, the rest is not proven",
  },
  "content.comments_lost": {
    status: "content only",
    meaning:
      "parts of the stream without text were lost, most likely comments; all that the token states of the answer is as attested",
  },
  "content.event_lost": {
    status: "content only",
    meaning: "the last event or events were lost; the text is whole and as attested",
  },
  "content.text_only": {
    status: "content only",
    meaning: "the text of a choice alone, as attested",
  },
  "content.other_response": {
    status: "failed",
    meaning: "it is another response: its id differs",
  },
  "content.answer_changed": {
    status: "failed",
    meaning: "a text of the answer was changed",
  },
  "content.tool_call_changed": { status: "failed", meaning: "a tool call was changed" },
  "content.finish_reason_changed": {
    status: "failed",
    meaning: "a finish reason was changed",
  },
  "content.model_changed": {
    status: "failed",
    meaning: "the name of the model was changed",
  },
  "content.usage_changed": { status: "failed", meaning: "token counts were changed" },
  "content.truncated": {
    status: "failed",
    meaning: "its end is missing; the rest cannot be told",
  },
  "content.not_disclosed": {
    status: "failed",
    meaning:
      "the bytes differ; whether the text does cannot be told, since the token's out.N are not disclosed",
  },
  "content.changed": {
    status: "failed",
    meaning: "the bytes differ, and no harmless change explains it",
  },
  "freshness.no_nonce": {
    status: "note",
    meaning: "no nonce was given: a replay would not be noticed",
  },
  "freshness.future": {
    status: "failed",
    meaning: "signed in the future of this clock",
  },
  "freshness.nonce": {
    status: "failed",
    meaning: "the nonce is not the one that was sent",
  },
  "freshness.audience": {
    status: "failed",
    meaning: "the token is for another audience",
  },
  "log.not_given": { status: "not checked", meaning: "the bundle holds no log proof" },
  "log.unnamed": {
    status: "not checked",
    meaning: "neither manifest nor policy names a log",
  },
  "log.format": {
    status: "failed",
    meaning: "checkpoint or proof breaks the strict rules of its form",
  },
  "log.signature": { status: "failed", meaning: "no known log signed the checkpoint" },
  "log.false": {
    status: "failed",
    meaning: "the token does not lead to the checkpoint's root",
  },
  "log.back_dated": {
    status: "failed",
    meaning: "a witness saw the token before it was signed",
  },
  "log.future": { status: "failed", meaning: "cosigned in the future of this clock" },
  "log.unwitnessed": {
    status: "note",
    meaning: "too few witnesses cosigned for tier T2",
  },
  "log.late": { status: "note", meaning: "witnesses saw it too late for tier T2" },
  "status.unnamed": {
    status: "not checked",
    meaning: "neither manifest nor key names a status list",
  },
  "status.not_given": { status: "not checked", meaning: "no status list is at hand" },
  "status.partly_given": {
    status: "note",
    meaning: "one of two status lists is not at hand",
  },
  "status.format": {
    status: "failed",
    meaning: "a reference or a status list breaks the strict rules of its form",
  },
  "status.manifest_revoked": {
    status: "failed",
    meaning: "the manifest was revoked before it was signed",
  },
  "status.key_revoked": {
    status: "failed",
    meaning: "the key was revoked before it was signed",
  },
  "status.key_revoked_since": {
    status: "unknown",
    meaning: "the key was revoked, and no witness shows that the token is older",
  },
  "status.revoked_later": { status: "note", meaning: "revoked after it was signed" },
  "status.missing": {
    status: "unknown",
    meaning: "the policy demands a list that is not at hand",
  },
  "status.old": {
    status: "unknown",
    meaning: "a list is older than the policy accepts",
  },
  "policy.tier": { status: "failed", meaning: "a lower tier than is demanded" },
  "policy.measurement": {
    status: "failed",
    meaning: "a weaker measurement of the weights",
  },
  "policy.outcome": {
    status: "failed",
    meaning: "the answer ended in a way that is not accepted",
  },
  "policy.system_prompt": {
    status: "failed",
    meaning: "the system prompt is not of an accepted kind",
  },
  "policy.overrides": {
    status: "failed",
    meaning: "the request was marked with other overrides",
  },
  "policy.age": { status: "failed", meaning: "older than is accepted" },
  "policy.constitution": {
    status: "failed",
    meaning: "the constitution is not among those allowed",
  },
  "policy.principle": {
    status: "failed",
    meaning: "a required principle is not in the manifest",
  },
  "policy.absorption": {
    status: "failed",
    meaning: "a principle was absorbed in its band too little",
  },
  "policy.resistance": {
    status: "failed",
    meaning: "a principle resists further training too little",
  },
};
