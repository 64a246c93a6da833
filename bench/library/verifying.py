"""What verifying costs: one token, one bundle, with and without a log's proof.

    python bench/library/verifying.py [--quick]

The evidence is made by the gateway's own attester and store, in front of an engine
that answers from a script; every answer has a token of its own. `One token` is what a
client has left to do that knows the session key already: disclosures, claims and
signature. `One bundle` is the whole verifier, with the manifest's cache emptied before
each; it proves all, or the script ends.
"""

import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Result, arguments, finish, medians, started
from fakes.gateway import chat_body, running_gateway
from fakes.log import SignedLog
from fakes.upstream import json_answer
from fakes.world import ANSWER, NOW, World, make_world

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.claims import check_claims, check_salted
from attest.digests import digest, to_hex
from attest.manifest import parse_statement
from attest.verify import verify
from attest.weights import TensorDigest, tensor_root

_TYPE = "inference-attestation+jwt"
# Tensors that the manifest lists: of the demo's model, and of a Llama of 8 billion.
_SMALL, _LARGE = 58, 291


def _world(count: int, anchors: dict[str, Any]) -> World:
    tensors = [
        TensorDigest(
            f"model.layers.{n // 9}.self_attn.proj_{n}.weight",
            "BF16",
            (4096, 4096),
            digest(str(n).encode()),
        )
        for n in range(count)
    ]
    listed = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "sha256": to_hex(tensor.sha256),
        }
        for tensor in tensors
    ]
    tree = {"alg": "rfc6962-sha256", "root": tensor_root(tensors), "count": count}
    weights = {"tensorTree": tree, "tensors": listed}
    return make_world(predicate={"weights": weights, "trustAnchors": anchors})


async def _bundles(world: World, count: int) -> list[Bundle]:
    """As many answers, each as a client would keep it."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        async with running_gateway(Path(folder), world=world) as gateway:
            for number in range(count):
                gateway.engine.answer(json_answer(ANSWER))
                response = await gateway.chat(chat_body(seed=number))
                name = response.headers["attestation-id"]
                kept = await gateway.attester.bundle(name)
                request, body = response.request.content, response.content
                found.append(replace(kept, request=request, response=body))
    return found


def _token(world: World) -> Any:
    key = world.session.public

    def work(bundle: Bundle) -> None:
        compact, given = disclosures.split(bundle.token)
        token = tokens.parse(compact, typ=_TYPE)
        check_claims(token.claims, _TYPE)
        check_salted(disclosures.reveal(token.claims, given))
        tokens.verify(token, key)

    return work


def _whole(world: World, tier: str, *, fresh: bool) -> Any:
    def work(bundle: Bundle) -> None:
        if fresh:
            parse_statement.cache_clear()
        verdict = verify(bundle, world.policy, at=NOW)
        verdict.raise_unless_proven()
        if verdict.tier != tier:
            raise SystemExit(f"verifying: expected tier {tier}, found {verdict.tier}")

    return work


async def _measure(count: int) -> tuple[list[Result], dict[str, Any]]:
    results, detail = [], {}

    def measure(
        text: str, work: Any, items: list[Bundle], bar: float | None = None
    ) -> None:
        wall, cpu, every = medians(work, items)
        detail[text] = {"cpu_ms": 1e3 * cpu, "wall_ms": [1e3 * w for w in every]}
        results.append(Result(text, 1e3 * wall, "ms", bar))
        print(text, file=sys.stderr, flush=True)

    for size, bar in ((_SMALL, 3.0), (_LARGE, None)):
        log = SignedLog()
        world = _world(size, log.anchors)
        bundles = await _bundles(world, count)
        logged = [log.prove(bundle) for bundle in bundles]
        name = f"manifest of {size} tensors"
        if size == _SMALL:
            measure("one token, session key known", _token(world), bundles, 0.5)
        measure(f"one bundle, {name}", _whole(world, "T1", fresh=True), bundles, bar)
        measure(
            f"one bundle with log proof, {name}",
            _whole(world, "T2", fresh=True),
            logged,
            bar,
        )
        measure(
            f"the next bundle of a client, {name}",
            _whole(world, "T1", fresh=False),
            bundles,
        )
    return results, detail


def main() -> None:
    options = arguments(__doc__, lambda _parser: None)
    begun = started()
    results, detail = asyncio.run(_measure(31 if options.quick else 301))
    finish(results, detail, options, begun)


if __name__ == "__main__":
    main()
