"""A manifest by somebody who may sign, made to be read as more than it says.

Nothing in it relaxes a rule: what is ignored, allowed or followed is fixed by us.
"""

import json

import pytest
from fakes.world import make_world, merged

from attest.digests import digest
from attest.envelope import seal
from attest.errors import FormatError, ManifestMismatchError, SignatureError
from attest.keys import PrivateKey
from attest.manifest import (
    MANIFEST_TYPE,
    check_files,
    open_manifest,
    parse_statement,
    sign_statement,
)
from attest.verify import verify

WORLD = make_world()
RELAXING = {
    "ignorePaths": ["**"],
    "ignore_paths": ["*.safetensors"],
    "allowSymlinks": True,
    "allow_symlinks": True,
    "serialization": {"ignore_paths": ["."], "allow_symlinks": True},
    "sharding": "anything",
}


def statement(*, names=("model.safetensors",), predicate=None):
    """A statement as somebody may write it by hand."""
    subjects = [
        {"name": name, "digest": {"sha256": digest(b"x")[7:]}} for name in names
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "urn:attest-gateway:training-governance:v1",
        "predicate": merged(WORLD.manifest.predicate, predicate or {}),
    }


def read(value):
    return parse_statement(
        value if isinstance(value, bytes) else json.dumps(value).encode()
    )


@pytest.mark.parametrize("name", RELAXING)
def test_no_member_makes_a_file_uncounted(name):
    """An unlisted file is a mismatch, whatever the manifest says of it."""
    manifest = read(statement(predicate={name: RELAXING[name], "weights": RELAXING}))
    assert not manifest.free_sharding
    found = {"model.safetensors": digest(b"x")}
    check_files(manifest, found)
    for extra in ("evil.py", "model-2.safetensors", ".git/config", "a/b.bin"):
        with pytest.raises(ManifestMismatchError) as caught:
            check_files(manifest, {**found, extra: digest(b"y")})
        assert caught.value.extra == (extra,)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "",
        "a\\b",
        "C:\\x",
        "a\0b",
        "x" * 1025,
        ["a"],
        None,
    ],
)
def test_paths_that_lead_out(name):
    with pytest.raises(FormatError, match=r"relative path|subject"):
        read(statement(names=[name]))


@pytest.mark.parametrize("name", ["*", "**/*.py", "model-?.safetensors", "[a-z]"])
def test_a_pattern_is_the_name_of_one_file(name):
    manifest = read(statement(names=[name]))
    check_files(manifest, {name: digest(b"x")})
    with pytest.raises(ManifestMismatchError):
        check_files(manifest, {"model-1.safetensors": digest(b"x")})


def test_one_file_twice():
    with pytest.raises(FormatError, match="listed twice"):
        read(statement(names=["a", "a"]))


def test_another_digest_beside_the_one_that_counts():
    """In-toto lets any one digest match; here it is SHA-256 or nothing."""
    value = statement()
    value["subject"][0]["digest"] = {"md5": "0" * 32, "sha512": "0" * 128}
    with pytest.raises(FormatError):
        read(value)


def test_no_subject_at_all():
    with pytest.raises(FormatError, match="subjects"):
        read(statement(names=[]))


def test_a_million_entries_are_not_read():
    value = json.dumps(statement(names=[f"f{i}" for i in range(60_000)])).encode()
    with pytest.raises(FormatError):
        read(value)
    with pytest.raises(FormatError):
        read(b'{"a":' + b"[" * 1_000_000)
    with pytest.raises(FormatError):
        read(b" " * (9 * 1024 * 1024))


@pytest.mark.parametrize(
    "text",
    [
        b'{"_type":"x","_type":"https://in-toto.io/Statement/v1"}',
        b'{"_type":NaN}',
        b"\xef\xbb\xbf{}",
        '{"_type":"x"}'.encode("utf-16"),
        b"{}{}",
    ],
)
def test_two_readings(text):
    with pytest.raises(FormatError):
        read(text)


def test_a_second_manifest_in_the_envelope_is_not_looked_at():
    """The signed bytes count; what stands beside them in the file means nothing."""
    other = make_world()
    value = json.loads(WORLD.envelope)
    beside = {**value, "payload2": json.loads(other.envelope)["payload"], "x": 1}
    manifest = open_manifest(json.dumps(beside).encode(), [WORLD.authority.public])
    assert manifest.digest == WORLD.manifest.digest
    twice = WORLD.envelope.replace(b'"payload":', b'"payload": "e30=", "payload":', 1)
    assert twice != WORLD.envelope
    with pytest.raises(FormatError, match="twice"):
        open_manifest(twice, [WORLD.authority.public])


def test_the_same_bytes_signed_as_something_else():
    payload = json.dumps(statement()).encode()
    sealed = seal(payload, "text/plain", [WORLD.authority])
    with pytest.raises(SignatureError, match="payloadType"):
        open_manifest(sealed, [WORLD.authority.public])
    assert open_manifest(
        seal(payload, MANIFEST_TYPE, [WORLD.authority]), [WORLD.authority.public]
    )


def test_a_delegate_cannot_make_delegates():
    """The manifest names who certifies; a manifest by a delegate is nobody's."""
    thief = PrivateKey.generate()
    predicate = merged(WORLD.manifest.predicate, {})
    forged = sign_statement(WORLD.manifest.subjects, predicate, [WORLD.issuer, thief])
    bundle = WORLD.bundle()
    verdict = verify(
        type(bundle).loads(
            json.dumps(bundle.to_json() | {"manifest": json.loads(forged)}).encode()
        ),
        WORLD.policy,
        at=WORLD.now,
    )
    assert verdict.problem.name == "manifest"
