"""The shared vectors: every implementation gives these codes for these files."""

import importlib.util
import json
from pathlib import Path

import pytest
from fakes.verdicts import sound

from attest.bundle import Bundle
from attest.policy import Policy
from attest.reasons import REASONS
from attest.verify import verify

VECTORS = Path(__file__).parents[2] / "vectors"
FILES = {
    str(path.relative_to(VECTORS)): json.loads(path.read_bytes())
    for folder in ("damage", "verdicts")
    for path in sorted((VECTORS / folder).glob("*.json"))
}
CASES = [
    pytest.param(path, case, id=f"{path}: {case['name']}")
    for path, document in FILES.items()
    for case in document["cases"]
]


def load_maker():
    spec = importlib.util.spec_from_file_location("make", VECTORS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge(path, case):
    """The verdict about a case, as docs and README of the vectors say to make it."""
    document = FILES[path]
    members = document["bundle"] | case["changes"]
    bundle = {name: value for name, value in members.items() if value is not None}
    policy = document["policy"] | case.get("policy", {})
    return sound(
        verify(
            Bundle.loads(json.dumps(bundle).encode()),
            Policy.from_json(json.dumps(policy).encode()),
            at=document["at"],
        )
    )


@pytest.mark.parametrize(("path", "case"), CASES)
def test_case(path, case):
    verdict, expected = judge(path, case), case["expected"]
    problem = verdict.problem
    found = {
        "verdict": verdict.to_json()["verdict"],
        "tier": str(verdict.tier),
        "problem": problem and problem.name,
        "reasons": sorted(f.code for f in problem.findings) if problem else [],
    }
    assert found == {**expected, "reasons": sorted(expected["reasons"])}


def test_files_are_as_they_are_made():
    maker = load_maker()
    made = {path: maker.text(value) for path, value in maker.documents().items()}
    kept = {p: (VECTORS / p).read_text("utf-8") for p in (*FILES, *made)}
    assert made == kept, "run: PYTHONPATH=tests python tests/vectors/make.py"


def test_every_code_of_the_content_is_shown():
    shown = {
        code
        for _, case in (p.values for p in CASES)
        for code in case["expected"]["reasons"]
    }
    content = {code for code in REASONS if code.startswith("content.")}
    assert content - shown == {"content.not_given"}


def test_a_real_change_is_one_however_it_is_spelt():
    """Pretty-printing, or anything else harmless, hides no change."""
    twice = [
        (case, other)
        for document in FILES.values()
        for case in document["cases"]
        for other in document["cases"]
        if other["name"] == f"{case['name']}, pretty-printed"
    ]
    assert len(twice) > 20
    for case, other in twice:
        assert case["expected"] == other["expected"]
        assert case["expected"]["verdict"] == "false"
