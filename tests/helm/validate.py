"""Every object against a schema; one without any is an error."""

import json
from pathlib import Path

import jsonschema
from chart import kubernetes_validate

VERSIONS = ("1.34", "1.37")
SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (Path(__file__).parent / "schemas").glob("*.json")
}


def validate(item):
    """Raise unless the object is valid, strictly; unknown members are errors."""
    if item["kind"] in SCHEMAS:
        jsonschema.validate(item, SCHEMAS[item["kind"]])
        return
    for version in VERSIONS:
        kubernetes_validate.validate(item, version, strict=True)
