"""The matrix of helm/ci: linted, rendered, validated, compared with what it was."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from chart import CASES, CHART, ROOT, helm_python, kubernetes_validate, values_of
from validate import validate

GOLDEN = Path(__file__).parent / "golden"


def test_lint(case):
    report = helm_python.lint(CHART, values_of(case), strict=True, kube_version="1.30")
    # An icon is recommended; we have none.
    found = [m for m in report["messages"] if "icon" not in m["error"]]
    assert not found
    assert not report["errors"]


def test_every_object_is_valid(release):
    assert release.objects
    for item in release.objects:
        validate(item)


def test_rendered_as_before(case, release):
    """After a wanted change: GOLDEN=write pytest tests/helm, then read the diff."""
    path = GOLDEN / case.name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(release.text, "utf-8")
    assert release.text == path.read_text("utf-8")


def test_no_golden_without_a_case():
    assert {p.name for p in GOLDEN.glob("*")} == {p.name for p in CASES}


def test_strict_validation_sees_a_misspelt_member(release):
    pod = yaml.safe_load(yaml.safe_dump(release.one("StatefulSet")))
    pod["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(pod)


def test_unknown_kind_is_not_passed_over():
    item = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(item)


def test_crd_schema_sees_a_misspelt_member():
    item = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "a"},
        "spec": {"scaleTargetRef": {"name": "a"}, "trigger": []},
    }
    with pytest.raises(jsonschema.ValidationError):
        validate(item)


@pytest.mark.parametrize(
    "path", sorted(CHART.glob("templates/*")), ids=lambda path: path.name
)
def test_no_template_asks_the_cluster(path):
    """`helm template` and a GitOps controller must see what an install would."""
    text = path.read_text("utf-8")
    assert ".Capabilities" not in text
    assert "lookup" not in text


def test_values_schema_is_a_schema():
    command = ["check-jsonschema", "--check-metaschema", "helm/values.schema.json"]
    program = Path(sys.executable).with_name(command[0])
    assert (
        subprocess.run([program, *command[1:]], cwd=ROOT, check=False).returncode == 0
    )


def load_readme():
    spec = importlib.util.spec_from_file_location("helm_readme", CHART / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


README = load_readme()


def test_readme_is_current():
    text = (CHART / "README.md").read_text("utf-8")
    assert README.readme() == text, "run: python helm/readme.py"


def test_every_value_is_described():
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    described = {name for _, rows in README.parameters() for name, _ in rows}
    assert set(README.leaves(values, described)) == described
