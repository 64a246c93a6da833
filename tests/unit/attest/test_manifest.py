import json
from copy import deepcopy

import pytest
from fakes.world import ABSENT, NOW, make_world, merged
from hypothesis import given
from hypothesis import strategies as st

from attest.digests import digest
from attest.envelope import seal
from attest.errors import (
    AttestError,
    ExpiredError,
    FormatError,
    ManifestMismatchError,
    SignatureError,
    UnsupportedVersionError,
)
from attest.keys import PrivateKey
from attest.manifest import (
    ISSUER_ROLE,
    MANIFEST_TYPE,
    check_files,
    check_path,
    check_tensors,
    open_manifest,
    parse_statement,
    sign_statement,
)
from attest.weights import TensorDigest, tensor_root

WORLD = make_world()
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [
        {"name": name, "digest": {"sha256": value[7:]}}
        for name, value in WORLD.manifest.subjects.items()
    ],
    "predicateType": "urn:attest-gateway:training-governance:v1",
    "predicate": WORLD.manifest.predicate,
}


def statement(predicate=None, **members):
    value = deepcopy({**STATEMENT, **members})
    value["predicate"] = merged(value["predicate"], predicate or {})
    return parse_statement(json.dumps(value).encode())


def manifest(**changes):
    return make_world(predicate=changes).manifest


def test_what_a_manifest_says():
    found = statement()
    assert (found.model_name, found.model_version) == ("tiny", "1")
    assert set(found.subjects) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert found.tensor_count == len(found.tensors) == 2
    assert found.tensor_root == tensor_root(found.tensors)
    assert found.runtime.engines == ("vllm",)
    assert found.runtime.dtypes == ("float32",)
    assert found.runtime.adapters == found.runtime.quantizations == ()
    assert found.constitution["id"] == "toy"
    assert not found.free_sharding
    assert found.signed_by == ()
    assert found.logs == found.witnesses == ()


def test_it_opens_for_those_who_trust_its_authority():
    found = open_manifest(WORLD.envelope, [WORLD.authority.public])
    assert found.signed_by == (WORLD.authority.public.thumbprint,)
    with pytest.raises(SignatureError, match="no authority"):
        open_manifest(WORLD.envelope, [])
    with pytest.raises(SignatureError):
        open_manifest(WORLD.envelope, [PrivateKey.generate().public])


def test_the_digest_is_the_payload_s():
    """A second signature makes no other manifest."""
    keys = [PrivateKey.generate() for _ in range(2)]
    subjects, predicate = WORLD.manifest.subjects, WORLD.manifest.predicate
    public = [key.public for key in keys]
    once = open_manifest(sign_statement(subjects, predicate, keys[:1]), public)
    twice = open_manifest(
        sign_statement(subjects, predicate, keys), public, threshold=2
    )
    assert once.digest == twice.digest
    assert len(twice.signed_by) == 2


def test_nothing_is_read_before_it_is_signed():
    """A payload that would not parse is a matter of signatures first."""
    key = PrivateKey.generate()
    envelope = seal(b"not json", MANIFEST_TYPE, [key])
    with pytest.raises(SignatureError):
        open_manifest(envelope, [WORLD.authority.public])
    with pytest.raises(FormatError):
        open_manifest(envelope, [key.public])


def test_nothing_is_signed_that_would_be_refused():
    with pytest.raises(FormatError):
        sign_statement({}, WORLD.manifest.predicate, [PrivateKey.generate()])


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "a b", "é", "...", "..a", "a..", ".hidden", "a" * 1024],
)
def test_plain_paths(name):
    assert check_path(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "a/.",
        "a\\b",
        "a\0",
        "a" * 1025,
        "é" * 600,
        None,
        1,
        ["a"],
    ],
)
def test_other_paths(name):
    with pytest.raises(FormatError):
        check_path(name)


@given(st.text())
def test_arbitrary_paths_stay_inside(name):
    try:
        check_path(name)
    except FormatError:
        return
    assert not name.startswith("/")
    assert ".." not in name.split("/")


HEX = "0" * 64
BAD_MEMBERS = {
    "no subject": {"subject": []},
    "null subject": {"subject": None},
    "subject without name": {"subject": [{"digest": {"sha256": HEX}}]},
    "subject without digest": {"subject": [{"name": "a"}]},
    "subject as text": {"subject": ["a"]},
    "subject without sha256": {"subject": [{"name": "a", "digest": {"sha512": HEX}}]},
    "upper-case sha256": {"subject": [{"name": "a", "digest": {"sha256": "A" * 64}}]},
    "subject twice": {"subject": [{"name": "a", "digest": {"sha256": HEX}}] * 2},
    "path outside": {"subject": [{"name": "../a", "digest": {"sha256": HEX}}]},
    "predicate as a list": {"predicate": []},
}


@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_malformed_statements(name):
    value = {**STATEMENT, **BAD_MEMBERS[name]}
    with pytest.raises(FormatError):
        parse_statement(json.dumps(value).encode())


BAD_FIELDS = {
    "model missing": {"model": ABSENT},
    "empty model name": {"model": {"name": ""}},
    "model name too long": {"model": {"name": "x" * 5000}},
    "model name as a number": {"model": {"name": 1}},
    "float": {"model": {"temperature": 0.5}},
    "count as a boolean": {"weights": {"tensorTree": {"count": True}}},
    "count as text": {"weights": {"tensorTree": {"count": "2"}}},
    "count missing": {"weights": {"tensorTree": {"count": ABSENT}}},
    "another count": {"weights": {"tensorTree": {"count": 3}}},
    "another root": {"weights": {"tensorTree": {"root": digest(b"")}}},
    "root of no form": {"weights": {"tensorTree": {"root": "x"}}},
    "tensors as an object": {"weights": {"tensors": {}}},
    "tensors as text": {"weights": {"tensors": ["x"]}},
    "negative size": {"weights": {"tensors": [{"shape": [-1]}]}},
    "boolean size": {"weights": {"tensors": [{"shape": [True]}]}},
    "no shape": {"weights": {"tensors": [{"name": "w"}]}},
    "time without zone": {"validity": {"notBefore": "2026-01-01T00:00:00"}},
    "time with offset": {"validity": {"notBefore": "2026-01-01T00:00:00+00:00"}},
    "time as a number": {"validity": {"notAfter": 1}},
    "no such day": {"validity": {"notAfter": "2026-02-30T00:00:00Z"}},
    "validity missing": {"validity": ABSENT},
    "runtime missing": {"runtime": ABSENT},
    "engines as text": {"runtime": {"engines": "vllm"}},
    "engine as a number": {"runtime": {"engines": [1]}},
    "prompt without name": {"runtime": {"systemPrompts": [{"digest": digest(b"")}]}},
    "prompt without digest": {"runtime": {"systemPrompts": [{"name": "a"}]}},
    "constitution as text": {"constitution": "x"},
    "constitution without digest": {"constitution": {"digest": ABSENT}},
    "delegation as text": {"delegations": ["x"]},
    "delegation without key": {"delegations": [{"role": "r"}]},
    "log key of no form": {"trustAnchors": {"logs": ["x"]}},
    "trust anchors as a list": {"trustAnchors": []},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_malformed_predicates(name):
    with pytest.raises(FormatError):
        statement(BAD_FIELDS[name])


@pytest.mark.parametrize(
    ("predicate", "members"),
    [
        ({"weights": {"tensorTree": {"alg": "blake3"}}}, {}),
        ({}, {"_type": "https://in-toto.io/Statement/v2"}),
        ({}, {"predicateType": "https://slsa.dev/provenance/v1"}),
        ({}, {"_type": None}),
    ],
)
def test_newer_manifests_are_not_judged(predicate, members):
    with pytest.raises(UnsupportedVersionError):
        statement(predicate, **members)


def test_duplicate_keys():
    payload = json.dumps(STATEMENT).encode()
    with pytest.raises(FormatError, match="twice"):
        parse_statement(payload[:-1] + b', "predicateType": "x"}')


@given(st.binary())
def test_arbitrary_bytes(data):
    with pytest.raises(AttestError):
        parse_statement(data)


@given(
    st.recursive(
        st.dictionaries(
            st.sampled_from(sorted(WORLD.manifest.predicate)),
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        ),
        lambda inner: st.dictionaries(
            st.sampled_from(sorted(WORLD.manifest.predicate)), inner
        ),
        max_leaves=3,
    )
)
def test_arbitrary_fields(changes):
    try:
        statement(changes)
    except AttestError:
        return


def test_unknown_fields_relax_nothing():
    found = statement({"weights": {"sharding": "Free"}, "novelty": {"allow": "all"}})
    assert not found.free_sharding


@pytest.mark.parametrize("constitution", [ABSENT, None])
def test_weights_only_evidence(constitution):
    value = deepcopy(STATEMENT)
    value["predicate"] = merged(value["predicate"], {"constitution": ABSENT})
    if constitution is None:
        value["predicate"]["constitution"] = None
    assert parse_statement(json.dumps(value).encode()).constitution is None


def test_validity():
    found = WORLD.manifest
    for at in (found.not_before, NOW, found.not_after):
        found.check_validity(at)
    for at in (found.not_before - 1, found.not_after + 1):
        with pytest.raises(ExpiredError) as caught:
            found.check_validity(at)
        assert caught.value.hint


def test_delegates():
    found = WORLD.manifest
    assert found.issuers(NOW) == (WORLD.issuer.public,)
    [delegation] = found.delegations
    assert delegation.role == ISSUER_ROLE
    assert found.issuers(delegation.not_after) == found.issuers(NOW)
    assert found.issuers(delegation.not_after + 1) == ()
    [item] = found.predicate["delegations"]
    other = manifest(delegations=[{**item, "role": "something-else"}])
    assert other.issuers(NOW) == ()


def test_files():
    found = WORLD.manifest
    files = dict(found.subjects)
    check_files(found, files)
    with pytest.raises(ManifestMismatchError) as caught:
        check_files(
            found,
            {
                "config.json": digest(b"other"),
                "tokenizer.json": files["tokenizer.json"],
                "added.py": digest(b""),
            },
        )
    error = caught.value
    assert error.changed == ("config.json",)
    assert error.missing == ("model.safetensors",)
    assert error.extra == ("added.py",)
    for name in ("config.json", "model.safetensors", "added.py"):
        assert name in str(error)


def test_long_lists_are_cut_in_the_message_and_not_in_the_error():
    names = [f"f{i:02}" for i in range(20)]
    with pytest.raises(ManifestMismatchError) as caught:
        check_files(
            WORLD.manifest, WORLD.manifest.subjects | dict.fromkeys(names, digest(b""))
        )
    assert "…" in str(caught.value)
    assert caught.value.extra == tuple(names)


def test_free_sharding_leaves_weight_files_to_the_tensors():
    found = manifest(weights={"sharding": "free"})
    files = dict(found.subjects)
    del files["model.safetensors"]
    sharded = {
        "model-00001-of-00002.safetensors": digest(b"1"),
        "model-00002-of-00002.safetensors": digest(b"2"),
        "model.safetensors.index.json": digest(b"3"),
    }
    check_files(found, files | sharded)
    for name in ("sub/model.safetensors", "model.bin", "a.safetensors.py"):
        with pytest.raises(ManifestMismatchError):
            check_files(found, files | {name: digest(b"")})
    with pytest.raises(ManifestMismatchError):
        check_files(WORLD.manifest, files | sharded)


def test_tensors():
    found = WORLD.manifest
    check_tensors(found, found.tensors[::-1])
    first, second = found.tensors
    other = TensorDigest(first.name, "F16", first.shape, first.sha256)
    added = TensorDigest("added", "F32", (1,), digest(b""))
    with pytest.raises(ManifestMismatchError) as caught:
        check_tensors(found, [other, added])
    error = caught.value
    assert error.changed == (first.name,)
    assert error.missing == (second.name,)
    assert error.extra == ("added",)


def test_tensors_that_are_held_by_the_root_alone():
    found = manifest(weights={"tensors": ABSENT})
    assert found.tensors == ()
    check_tensors(found, WORLD.manifest.tensors)
    with pytest.raises(ManifestMismatchError, match="tensor root"):
        check_tensors(found, WORLD.manifest.tensors[:1])


def test_a_manifest_is_read_once():
    """The same bytes give the same object; other bytes never do."""
    payload = json.dumps(STATEMENT).encode()
    assert parse_statement(payload) is parse_statement(bytes(bytearray(payload)))
    assert parse_statement(payload) is not parse_statement(payload + b" ")
