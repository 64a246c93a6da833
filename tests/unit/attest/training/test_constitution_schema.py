"""The JSON Schema and the parser agree, up to what a schema cannot say."""

import copy
import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from attest.errors import ConstitutionError
from attest.training.constitution import parse_constitution

SCHEMA = json.loads(
    (resources.files("attest.training") / "constitution.schema.json").read_bytes()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

GOOD = {
    "schema": "constitution/1",
    "id": "acme",
    "version": "3.2.0",
    "principles": [
        {
            "id": "refuse",
            "title": "Refuse weapons",
            "class": "safety-critical",
            "text": "Decline; say so briefly.",
            "band": {"from": 500, "to": 1000, "units": ["head", "tied"]},
            "anchors": {"keep": 10, "others": 2},
            "data": {
                "files": ["a.jsonl", "b/c.jsonl"],
                "where": {"topic": ["arms", 3], "safe": False},
            },
            "evaluation": {
                "predicate": "starts-with",
                "value": "no",
                "heldout": "h.jsonl",
            },
            "requirement": {
                "attack-suite": "std-1",
                "min-steps-below-half": 10,
                "on-miss": "fail",
            },
        },
        {
            "id": "tone",
            "title": "Tone",
            "class": "adaptable",
            "text": "Be kind.",
            "band": {"layers": [0, 2]},
            "evaluation": {"predicate": "exact", "heldout": "h.jsonl"},
        },
        {"id": "keep", "title": "Keep", "class": "capability", "text": "As before."},
    ],
}


def accepted(document):
    try:
        parse_constitution(json.dumps(document, ensure_ascii=False).encode())
    except ConstitutionError:
        return False
    return True


def related(document):
    """What no schema says, written down once more."""
    principles = document["principles"]
    names = [p["id"] for p in principles]
    heldout = {p["evaluation"]["heldout"] for p in principles if "evaluation" in p}
    if len(set(names)) < len(names):
        return False
    for p in principles:
        band = p.get("band")
        if isinstance(band, dict):
            if "from" in band and band["from"] >= band["to"]:
                return False
            if band.get("layers", []) != sorted(band.get("layers", [])):
                return False
        others = {*names, "others"} - {p["id"]}
        if set(p.get("anchors", {})) - others:
            return False
        if heldout & set(p.get("data", {}).get("files", [])):
            return False
    return True


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def subtree(document, path):
    for key in path:
        document = document[key]
    return document


PLACES = sorted(places(GOOD), key=str)
KEYS = sorted({key for path in PLACES for key in path if isinstance(key, str)})
# Values that are right somewhere and wrong elsewhere, and some that are wrong anywhere.
VALUES = st.one_of(
    st.sampled_from([subtree(GOOD, path) for path in PLACES]),
    st.sampled_from([0, 1, 999, 1000, 1001, 4096, 4097, 9999, 10_000, 10**6, -1]),
    st.sampled_from(["all", "others", "exact", "contains", "1.0.0", "01.0.0", "x\n"]),
    st.sampled_from(["../x", "a/../b", "/x", "a//b", "a/", "..a", ".", "a\\b", " "]),
    st.sampled_from([True, False, None, 0.5, "", [], {}, "A", "a-", "ab--c", "é"]),
    st.text("ab-. /\n", max_size=6),
    st.integers(1, 9000).map(lambda n: "x" * n),
)


@st.composite
def documents(draw):
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in PLACES if p]))
        try:
            holder = subtree(document, path[:-1])
            action = draw(st.sampled_from(["set", "drop", "add"]))
            if action == "drop":
                del holder[path[-1]]
            elif action == "add" and isinstance(holder, list):
                holder.append(copy.deepcopy(draw(VALUES)))
            else:
                key = draw(st.sampled_from(KEYS)) if action == "add" else path[-1]
                holder[key] = copy.deepcopy(draw(VALUES))
        except (KeyError, IndexError, TypeError):
            continue
    return document


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_good_document():
    assert VALIDATOR.is_valid(GOOD)
    assert accepted(GOOD)


def test_demo_constitution_is_valid():
    text = (
        resources.files("attest.training") / "demo" / "constitution.yaml"
    ).read_text()
    VALIDATOR.validate(yaml.safe_load(text))


@given(documents())
def test_schema_and_parser_agree(document):
    valid = VALIDATOR.is_valid(document)
    assert accepted(document) == (valid and related(document))


@pytest.mark.parametrize("path", [p for p in PLACES if p], ids=str)
def test_each_member_is_checked_by_both(path):
    for value in ([[]], {"x": {"y": 1}}, "\n", 10**9, True, None):
        document = copy.deepcopy(GOOD)
        subtree(document, path[:-1])[path[-1]] = value
        valid = VALIDATOR.is_valid(document)
        assert accepted(document) == (valid and related(document)), value


@example("a\n")
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_words_agree(text):
    document = copy.deepcopy(GOOD)
    document["principles"][2]["title"] = text
    data = json.dumps(document, ensure_ascii=False).encode()
    if VALIDATOR.is_valid(document):
        try:
            parse_constitution(data)
        except ConstitutionError as error:
            # Characters that deceive are refused before any field is looked at.
            if "U+" not in str(error):
                raise
    else:
        with pytest.raises(ConstitutionError):
            parse_constitution(data)


DOCUMENTATION = (Path(__file__).parents[4] / "docs" / "constitution.md").read_text()


def test_documented_example_is_valid():
    example = DOCUMENTATION.partition("```yaml\n")[2].partition("```")[0]
    parse_constitution(example.encode())
    VALIDATOR.validate(yaml.safe_load(example))


def fields(schema):
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        yield from (word for word in schema.get("enum", []) if isinstance(word, str))
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from fields(item)


@pytest.mark.parametrize("name", sorted(set(fields(SCHEMA))))
def test_field_is_documented(name):
    assert f"`{name}`" in DOCUMENTATION
