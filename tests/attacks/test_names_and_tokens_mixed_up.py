"""A true signature on the wrong thing: another kind of token, another name, another id.

Nothing that a token says makes the verifier open a file or ask the network.
"""

import builtins
import os
import socket
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from fakes.verdicts import codes
from fakes.world import NOW, make_world

from attest import disclosures, tokens
from attest.digests import digest
from attest.keys import (
    Algorithm,
    b64url_decode,
    b64url_encode,
    der_to_jose,
    jose_to_der,
)
from attest.recall import StatusList
from attest.verify import verify

# Order of the group of P-256 (SEC 2, §2.4.2).
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

TYPES = (
    "inference-attestation+jwt",
    "gateway-key+jwt",
    "eat+jwt",
    "startup-refusal+jwt",
    "statuslist+jwt",
    "JWT",
)


def judge(world, bundle, **options):
    return verify(bundle, world.policy, at=NOW, **options)


@pytest.mark.parametrize("typ", TYPES[1:])
def test_a_token_of_another_kind_is_no_attestation(world, typ):
    bundle = world.bundle()
    claims = tokens.parse(disclosures.split(bundle.token)[0], typ=TYPES[0]).claims
    forged = replace(bundle, token=tokens.mint(typ, claims, world.session))
    assert judge(world, forged).problem.number == 0


@pytest.mark.parametrize("member", ["token", "certificate", "boot"])
@pytest.mark.parametrize("place", ["token", "certificate", "boot"])
def test_each_kind_counts_in_its_own_place_alone(world, place, member):
    bundle = world.bundle()
    compact = disclosures.split(bundle.token)[0]
    found = {"token": compact, "certificate": world.certificate, "boot": world.boot}
    given = found[member]
    forged = {
        "token": replace(bundle, token=given, request=None),
        "certificate": replace(bundle, key_certificates=(given,)),
        "boot": replace(bundle, boot_record=given),
    }[place]
    assert judge(world, forged).proven == (place == member)


def test_a_status_list_is_no_certificate(world):
    listed = StatusList.new("https://x", 8).sign(world.authority, now=NOW)
    bundle = replace(world.bundle(), key_certificates=(listed,))
    assert judge(world, bundle).problem.number == 2


@pytest.fixture
def alone(monkeypatch):
    """From here on, no file is opened and no connection made."""

    def never(*arguments, **options):
        raise AssertionError

    def cut():
        for module, name in (
            (builtins, "open"),
            (os, "open"),
            (os, "stat"),
            (socket, "socket"),
            (socket, "getaddrinfo"),
            (socket, "create_connection"),
        ):
            monkeypatch.setattr(module, name, never)

    return cut


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../../../dev/null",
        "/proc/self/environ",
        "https://attacker.test/key.pem",
        "x' UNION SELECT 'secret",
        "file:///etc/passwd",
        "",
        "\0",
        "*",
    ],
)
def test_a_kid_leads_nowhere(world, alone, kid):
    bundle = world.bundle()
    _, payload, signature = disclosures.split(bundle.token)[0].split(".")
    header = f'{{"alg":"EdDSA","kid":"{kid}","typ":"{TYPES[0]}"}}'.replace("\0", "\\0")
    forged = f"{b64url_encode(header.encode())}.{payload}.{signature}"
    alone()
    assert judge(world, replace(bundle, token=forged)).problem.number == 0


def test_the_verifier_needs_neither_files_nor_network(world, alone):
    bundle = world.bundle()
    alone()
    assert judge(world, bundle).proven


def test_the_other_spelling_of_a_signature_is_the_same_statement():
    """ES256: (r, n-s) verifies as (r, s) does. Nothing hangs on its bytes."""
    world = make_world(alg=Algorithm.ES256)
    bundle = world.bundle()
    compact, opened = disclosures.split(bundle.token)
    head, _, signature = compact.rpartition(".")
    r, s = decode_dss_signature(jose_to_der(b64url_decode(signature)))
    other = b64url_encode(der_to_jose(encode_dss_signature(r, _N - s)))
    twin = f"{head}.{other}"
    assert twin != compact
    found = judge(world, replace(bundle, token=disclosures.join(twin, opened)))
    assert found.proven
    assert found.claims["jti"] == judge(world, bundle).claims["jti"]
    # What a log lists, and what the next statement names, is the same for both.
    assert tokens.signing_digest(twin) == tokens.signing_digest(compact)
    assert digest(twin.encode()) != digest(compact.encode())


def test_another_model_answers_under_the_name_that_was_asked_for(world):
    """Both names are signed; that they differ is said. The root tells which it is."""
    bundle = world.bundle(claims={"gen_ai.response.model": "cheap\n10 policy ok"})
    verdict = judge(world, bundle)
    assert "agreement.model" in codes(verdict)
    assert "asked for 'tiny', 'cheap\\n10 policy ok' answered" in verdict.step(5).detail
    assert "agreement.model" not in codes(judge(world, world.bundle()))
