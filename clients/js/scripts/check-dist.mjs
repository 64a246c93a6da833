/** Imports the built package as a program would, and proves the bundle of each release. */

import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Policy, PublicKey, readBundle, verify } from "attest-gateway";

const compat = fileURLToPath(new URL("../../../tests/compat/", import.meta.url));
const releases = readdirSync(compat).filter((name) => name.startsWith("v"));
for (const release of releases) {
  const file = (name) => readFileSync(`${compat}${release}/${name}`);
  const key = await PublicKey.fromBytes(file("authority.pub.pem"));
  const bundle = readBundle(file("answer.bundle.json"));
  const policy = new Policy({ authorities: [key] });
  const verdict = await verify(bundle, policy, { at: 4e9 });
  verdict.throwUnlessProven();
  console.log(`${release}: ${verdict.word}, tier ${verdict.tier}`);
}
if (releases.length === 0) throw new Error("there is no release to prove");
