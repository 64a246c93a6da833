import json
from dataclasses import replace

import pytest
from fakes.world import ANSWER, NOW, make_world
from jsonschema import validate

from attest.ear import attestation_result
from attest.policy import Tier
from attest.verify import verify

WORLD = make_world()
BUNDLE = WORLD.bundle(nonce="nonce-of-mine")
LIE = replace(BUNDLE, response=ANSWER.replace(b"Paris", b"Milan"))
AFFIRMING = {
    "instance-identity": 2,
    "configuration": 2,
    "file-system": 2,
    "sourced-data": 2,
}

# draft-ietf-rats-ear-04 §3, the members that are used here.
SCHEMA = {
    "type": "object",
    "required": ["eat_profile", "iat", "ear_verifier_id", "submods"],
    "additionalProperties": False,
    "properties": {
        "eat_profile": {"const": "tag:ietf.org,2026:rats/ear#04"},
        "iat": {"type": "integer"},
        "eat_nonce": {"type": "string", "minLength": 8, "maxLength": 88},
        "ear_verifier_id": {
            "type": "object",
            "required": ["developer", "build"],
            "additionalProperties": {"type": "string"},
        },
        "submods": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["ear_status"],
                "additionalProperties": False,
                "properties": {
                    "ear_status": {
                        "enum": ["none", "affirming", "warning", "contraindicated"]
                    },
                    "ear_trustworthiness_vector": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {
                            "type": "integer",
                            "minimum": -128,
                            "maximum": 127,
                        },
                    },
                    "ear_appraisal_policy_ids": {
                        "type": "array",
                        "items": {"type": "string", "format": "uri"},
                    },
                    "ear_verifier_claims": {"type": "object"},
                    "ear_attester_claims": {"type": "object"},
                },
            },
        },
    },
}


def appraised(bundle, world=WORLD, **changes):
    policy = replace(world.policy, **changes)
    verdict = verify(bundle, policy, at=NOW)
    result = attestation_result(verdict, policy, at=NOW)
    validate(json.loads(json.dumps(result)), SCHEMA)
    return result, result["submods"]["inference-attestation"]


def test_all_is_proven():
    result, appraisal = appraised(BUNDLE)
    assert result["eat_nonce"] == "nonce-of-mine"
    assert result["iat"] == NOW
    assert appraisal["ear_status"] == "affirming"
    assert appraisal["ear_trustworthiness_vector"] == AFFIRMING
    claims = appraisal["ear_verifier_claims"]
    assert (claims["verdict"], claims["tier"]) == ("proven", "T1")
    assert len(claims["steps"]) == 11
    assert appraisal["ear_attester_claims"]["sub"] == "chatcmpl-1"


@pytest.mark.parametrize(
    ("bundle", "changes", "status", "vector"),
    [
        (
            replace(BUNDLE, response=ANSWER + b"\n"),
            {},
            "warning",
            {k: v for k, v in AFFIRMING.items() if k != "sourced-data"},
        ),
        (
            LIE,
            {},
            "contraindicated",
            {k: v for k, v in AFFIRMING.items() if k != "sourced-data"},
        ),
        (
            replace(BUNDLE, token=BUNDLE.token.partition("~")[0]),
            {},
            "none",
            {k: v for k, v in AFFIRMING.items() if k != "sourced-data"},
        ),
        (BUNDLE, {"min_tier": Tier.T2}, "contraindicated", AFFIRMING),
        (replace(BUNDLE, token="x"), {}, "contraindicated", {"instance-identity": 99}),
        (
            replace(BUNDLE, key_certificates=()),
            {},
            "contraindicated",
            {"instance-identity": 99},
        ),
        (
            WORLD.bundle(claims={"iss": "other"}),
            {},
            "contraindicated",
            None,
        ),
        (
            WORLD.bundle(claims={"overrides": ["documents"]}),
            {"overrides": None},
            "warning",
            AFFIRMING | {"configuration": 36},
        ),
    ],
)
def test_other_verdicts(bundle, changes, status, vector):
    _, appraisal = appraised(bundle, **changes)
    assert appraisal["ear_status"] == status
    assert appraisal.get("ear_trustworthiness_vector") == vector


def test_the_policy_is_named_by_its_digest():
    ids = [
        appraised(BUNDLE, **changes)[1]["ear_appraisal_policy_ids"]
        for changes in ({}, {}, {"min_tier": Tier.T0})
    ]
    assert ids[0] == ids[1] != ids[2]
