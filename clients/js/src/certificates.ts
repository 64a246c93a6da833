/**
 * Key certificates: who vouches for the session key that signed something. The training
 * authority does, or a delegate that its manifest names.
 */

import { type CertificateClaims, checkClaims } from "./claims.js";
import { ExpiredError, SignatureError } from "./errors.js";
import type { JsonObject } from "./json.js";
import { PublicKey } from "./keys.js";
import { type Manifest, issuersOf } from "./manifest.js";
import { type Token, parseToken, verifyToken } from "./tokens.js";

/** Clocks of gateway and verifier may differ by this much (RFC 7519 §4.1.4 leeway). */
export const MAX_SKEW_SECONDS = 60;
const MAX_CERTIFICATE_SECONDS = 7 * 24 * 3600;
const TYP = "gateway-key+jwt";

/** A session key, the claims of its certificate, and the key that certified it. */
export interface Certified {
  readonly key: PublicKey;
  readonly claims: CertificateClaims;
  /** The claims as they came. */
  readonly raw: JsonObject;
  readonly issuer: PublicKey;
}

/** What a signed document rests on. */
export interface Trust {
  /** Names the delegates. */
  readonly manifest: Manifest;
  /** The training authorities that are trusted. */
  readonly authorities: readonly PublicKey[];
}

/** How a certificate names the key that issued it (RFC 9278). */
export function issuerUri(key: PublicKey): string {
  return `urn:ietf:params:oauth:jwk-thumbprint:sha-256:${key.thumbprint}`;
}

/**
 * The certified session key whose thumbprint is `kid`. Whether the certificate names the
 * manifest is NOT checked here. Certificates of other keys are only parsed.
 *
 * @param signedAt When the document was signed, in seconds since the epoch.
 *
 * Throws SignatureError: no certificate for `kid`, or one by somebody who may not. Throws
 * ExpiredError: signed outside the certificate's period, or that is too long. Throws
 * FormatError, AlgorithmError: a certificate breaks the rules of its form.
 */
export async function certifiedKey(
  certificates: readonly string[],
  kid: string,
  trust: Trust,
  signedAt: number,
): Promise<Certified> {
  for (const compact of certificates) {
    const certificate = parseToken(compact, TYP);
    checkClaims(certificate.claims, TYP);
    const claims = certificate.claims as unknown as CertificateClaims;
    const key = await PublicKey.fromJwk(claims.cnf.jwk);
    if (key.thumbprint === kid) {
      const issuer = await issuerOf(certificate, claims, trust);
      checkPeriod(claims, signedAt);
      return { key, claims, raw: certificate.claims, issuer };
    }
  }
  throw new SignatureError(`key: no certificate for ${kid}`, {
    reason: "key.uncertified",
    hint: "the token was signed by a key that nobody vouches for",
  });
}

async function issuerOf(
  certificate: Token,
  claims: CertificateClaims,
  { manifest, authorities }: Trust,
): Promise<PublicKey> {
  const issuers = [...authorities, ...issuersOf(manifest, claims.iat)];
  const issuer = issuers.find((key) => key.thumbprint === certificate.kid);
  if (issuer === undefined) {
    throw new SignatureError(
      `key: issuer ${certificate.kid} is neither an authority nor a delegate that the ` +
        "manifest names",
      { reason: "key.issuer" },
    );
  }
  await verifyToken(certificate, issuer);
  if (claims.iss !== issuerUri(issuer)) {
    throw new SignatureError("key: iss is not the key that signed");
  }
  return issuer;
}

function checkPeriod(claims: CertificateClaims, signedAt: number): void {
  const period = claims.exp - claims.nbf;
  if (!(period > 0 && period <= MAX_CERTIFICATE_SECONDS)) {
    throw new ExpiredError("key: certified for longer than seven days");
  }
  if (!(claims.nbf - MAX_SKEW_SECONDS <= signedAt && signedAt <= claims.exp)) {
    throw new ExpiredError("key: the token was signed outside the key's period");
  }
}
