/** Keys, texts and streams: what the vectors don't reach. */

import { createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createParser } from "eventsource-parser";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";

import {
  type Bytes,
  characters,
  fromBase64,
  fromBase64Url,
  isAtMost,
  toBase64,
  toBase64Url,
  utf8,
  utf8Text,
} from "../src/bytes.js";
import {
  ConfigurationError,
  EvidenceUnavailableError,
  FormatError,
  Policy,
  PublicKey,
  SignatureError,
  readBundle,
  verify,
} from "../src/index.js";
import { subtle } from "../src/digests.js";
import { Decimal } from "../src/rules.js";
import { ascii } from "../src/spelling.js";
import { EventSplitter, asciiView } from "../src/sse.js";

const KINDS = {
  EdDSA: () => generateKeyPairSync("ed25519"),
  ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
};

describe.each(["EdDSA", "ES256"] as const)("%s keys", (alg) => {
  const { publicKey, privateKey } = KINDS[alg]();
  const pem = publicKey.export({ type: "spki", format: "pem" }) as string;
  const message = utf8("hello");
  const hash = alg === "ES256" ? "sha256" : null;
  const made = (dsaEncoding: "ieee-p1363" | "der") =>
    new Uint8Array(sign(hash, message, { key: privateKey, dsaEncoding }));

  test("are the same from PEM and JWK", async () => {
    const key = await PublicKey.fromBytes(utf8(pem));
    expect(key.alg).toBe(alg);
    const jwk = JSON.stringify(publicKey.export({ format: "jwk" }));
    expect((await PublicKey.fromBytes(utf8(jwk))).thumbprint).toBe(key.thumbprint);
  });

  test("verify what they signed, and nothing else", async () => {
    const key = await PublicKey.fromBytes(utf8(pem));
    await key.verify(made("ieee-p1363"), message);
    await key.verifyDer(made("der"), message);
    const lies: [Bytes, Bytes][] = [
      [made("ieee-p1363"), utf8("hellp")],
      [made("ieee-p1363").slice(1), message],
      [new Uint8Array(64), message],
      [new Uint8Array(), message],
    ];
    for (const [signature, data] of lies) {
      await expect(key.verify(signature, data)).rejects.toThrow(SignatureError);
      await expect(key.verifyDer(signature, data)).rejects.toThrow(SignatureError);
    }
  });
});

describe("keys that are refused", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey;
  const curve = generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey;
  const own = KINDS.ES256();
  const jwk = own.publicKey.export({ format: "jwk" });

  test.each([
    ["RSA", rsa.export({ type: "spki", format: "pem" }) as string],
    ["P-384", curve.export({ type: "spki", format: "pem" }) as string],
    ["private PEM", own.privateKey.export({ type: "pkcs8", format: "pem" }) as string],
    ["private JWK", JSON.stringify(own.privateKey.export({ format: "jwk" }))],
    ["off the curve", JSON.stringify({ ...jwk, x: jwk.y })],
    ["short", JSON.stringify({ ...jwk, x: "AAAA" })],
    ["key twice", `{"kty":"OKP",${JSON.stringify(jwk).slice(1)}`],
    ["symmetric", '{"kty":"oct","k":"AAAA"}'],
    ["Ed448", '{"kty":"OKP","crv":"Ed448","x":"AAAA"}'],
    ["nothing", ""],
    ["too long", " ".repeat(20_000)],
  ])("%s", async (_, text) => {
    await expect(PublicKey.fromBytes(utf8(text))).rejects.toThrow(FormatError);
  });

  test("every point that OpenSSL takes is on the curve", () => {
    for (let round = 0; round < 20; round += 1) {
      const { publicKey } = KINDS.ES256();
      const found = publicKey.export({ format: "jwk" });
      expect(createPublicKey({ key: found, format: "jwk" }).type).toBe("public");
    }
  });
});

test("a platform without WebCrypto cannot tell, and says so", () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "crypto");
  Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
  try {
    expect(() => subtle()).toThrow(EvidenceUnavailableError);
  } finally {
    if (own !== undefined) Object.defineProperty(globalThis, "crypto", own);
  }
});

test("a platform without the algorithm cannot tell, which is no definite no", async () => {
  const compat = new URL("../../../tests/compat/v0.1.0/", import.meta.url);
  const file = (name: string) => readFileSync(new URL(name, compat));
  const key = await PublicKey.fromBytes(file("authority.pub.pem"));
  const lacking = vi.spyOn(crypto.subtle, "importKey");
  lacking.mockRejectedValue(new DOMException("Unrecognized name", "NotSupportedError"));
  try {
    const policy = new Policy({ authorities: [key] });
    const bundle = readBundle(file("answer.bundle.json"));
    const verdict = await verify(bundle, policy, { at: 1_795_597_800 });
    expect([verdict.word, verdict.tier]).toEqual(["unknown", "T0"]);
    expect(verdict.error).toBeInstanceOf(EvidenceUnavailableError);
  } finally {
    lacking.mockRestore();
  }
});

describe("texts", () => {
  test("base64 has one spelling and comes back", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (found) => {
        const data = new Uint8Array(found);
        expect(fromBase64(toBase64(data), "x")).toEqual(data);
        expect(fromBase64Url(toBase64Url(data))).toEqual(data);
        expect(toBase64(data)).toBe(Buffer.from(data).toString("base64"));
      }),
    );
    for (const text of ["A", "AB==C", "AB\n==", "AAAA=", "AB=", " AAA", "é"]) {
      expect(() => fromBase64(text, "x"), text).toThrow(FormatError);
    }
    for (const text of ["A", "AB==", "AB+/", "AC", "A B", "é"]) {
      expect(() => fromBase64Url(text), text).toThrow(FormatError);
    }
  });

  test("are counted in characters", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(characters(text)).toBe(Array.from(text).length);
        expect(isAtMost(text, Array.from(text).length)).toBe(true);
        expect(isAtMost(`${text}x`, Array.from(text).length)).toBe(false);
      }),
    );
  });

  test("are strict UTF-8", () => {
    for (const data of [
      [0xff],
      [0xc0, 0x80],
      [0xed, 0xa0, 0x80],
      [0xf5, 0x80, 0x80, 0x80],
    ]) {
      expect(() => utf8Text(Uint8Array.from(data))).toThrow(FormatError);
    }
    expect(utf8Text(Uint8Array.of(0xef, 0xbb, 0xbf))).toBe("\ufeff");
  });

  test("of others are shown in ASCII", () => {
    expect(ascii("a'b\n\u202e\u{1f600}")).toBe('"a\'b\\n\\u202e\\U0001f600"');
  });

  test("decimals are exact", () => {
    const read = (text: string) => Decimal.read(text);
    const [small, large] = [read("0.1"), read("0.100000000000000001")];
    if (small === undefined || large === undefined) throw new Error("not read");
    expect(small.isBelow(large)).toBe(true);
    expect(large.isBelow(small)).toBe(false);
    for (const text of ["1e3", "", ".5", "1.", "+1", "0x1", "1,0", "NaN"]) {
      expect(read(text), text).toBeUndefined();
    }
    expect(Decimal.read(1)).toBeUndefined();
  });
});

describe("streams", () => {
  const piece = fc.constantFrom(
    ...[
      "data: a",
      "data:b",
      "data",
      "event: x",
      ":c",
      "id: 1",
      "\n",
      "\n\n",
      "\r",
      "\r\n",
    ],
    ...["data: é\u2028z", " ", ":", "retry: 1", "\ufeff", "data: [DONE]"],
  );

  test("have the events that a parser of text finds", () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const text = pieces.join("");
        fc.pre(!/\ufeff/.test(text.slice(1)) && !text.includes("\r"));
        const expected: string[] = [];
        const parser = createParser({ onEvent: ({ data }) => expected.push(data) });
        parser.feed(text.replace(/^\ufeff/, ""));
        const found = new EventSplitter().feed(utf8(text));
        const data = found.flatMap((event) =>
          event.data === undefined ? [] : [utf8Text(event.data)],
        );
        expect(data).toEqual(expected);
      }),
      { numRuns: 300 },
    );
  });

  test("lose no byte, however they are cut", () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), fc.nat(), (pieces, seed) => {
        const body = utf8(pieces.join(""));
        const at = body.length === 0 ? 0 : seed % body.length;
        const splitter = new EventSplitter();
        const events = [body.slice(0, at), body.slice(at)].flatMap((chunk) =>
          splitter.feed(chunk),
        );
        const raw = events.map((event) => asciiView(event.raw)).join("");
        expect(raw + asciiView(splitter.flush())).toBe(asciiView(body));
      }),
    );
  });
});

describe("policies", () => {
  const jwk = KINDS.EdDSA().publicKey.export({ format: "jwk" });

  test("come back from their JSON form", async () => {
    const policy = await Policy.fromJson({
      authorities: [jwk],
      min_tier: "T2",
      overrides: null,
      constitutions: [{ id: "civic", versions: ">=1.2,<2" }],
      principles: [{ id: "honesty", min_in_band: "0.60", min_steps_below_half: 5 }],
    });
    const again = await Policy.fromJson(JSON.stringify(policy.toJson()));
    expect(again.toJson()).toEqual(policy.toJson());
  });

  test("are strict by default, and trust nobody", async () => {
    const policy = await Policy.fromJson({ authorities: [jwk] });
    expect([policy.minTier, policy.minMeasured, policy.outcomes]).toEqual([
      "T1",
      "engine",
      ["complete"],
    ]);
    await expect(Policy.fromJson({})).rejects.toThrow("authorities is missing");
    expect(() => new Policy({ authorities: [] })).toThrow(ConfigurationError);
  });

  test.each([
    { min_teir: "T1" },
    { threshold: 2 },
    { threshold: 0 },
    { threshold: 1.5 },
    { outcomes: ["fine"] },
    { logs: {} },
    { witness_threshold: 0 },
  ])("refuse %j", async (members) => {
    const policy = Policy.fromJson({ authorities: [jwk], ...members });
    await expect(policy).rejects.toThrow(ConfigurationError);
  });
});
