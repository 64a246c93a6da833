"""The Dockerfile: linted, read, and its steps done for real in a fresh environment."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile import Replay, read_dockerfile

from gateway.engine.vllm_plugin.inventory import Inventory

ROOT = Path(__file__).parents[2]
ARGUMENTS, STAGES = read_dockerfile(ROOT / "Dockerfile")
FINAL = [STAGES["gateway"], STAGES["managed"]]
LOCK = (ROOT / "image" / "requirements.txt").read_text("utf-8")


def test_hadolint(tool):
    done = subprocess.run(
        [tool("hadolint"), "--no-color", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_base_is_pinned_by_digest():
    assert re.fullmatch(
        r"python:[\w.-]+@sha256:[0-9a-f]{64}", ARGUMENTS["PYTHON_IMAGE"]
    )


def test_managed_refuses_a_base_without_digest(monkeypatch):
    check = next(step for step in STAGES["managed"].steps if step.name == "RUN")
    _, *words = check.words()
    for image, status in ((ARGUMENTS["VLLM_IMAGE"], 1), ("vllm@sha256:00", 0)):
        monkeypatch.setenv("VLLM_IMAGE", image)
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, check=False
        )
        assert done.returncode == status
    assert "give one" in words[1]


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_no_step_needs_a_shell(stage):
    for step in stage.steps:
        if step.name in {"RUN", "ENTRYPOINT", "CMD"}:
            assert all(isinstance(word, str) for word in step.words())


@pytest.mark.parametrize("stage", FINAL, ids=lambda stage: stage.name)
def test_image_runs_as_a_numbered_user_without_rights(stage):
    user, group = stage.last("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


# Key stores, database and traces work from the image as it is.
EXTRAS = ("gateway", "awskms", "hashivault", "otel", "pkcs11", "postgres")


def test_lock_names_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [line for e in EXTRAS for line in extras[e]]
    names = {re.match(r"[\w-]+", line)[0].lower() for line in wanted}
    locked = set(re.findall(r"^([\w-]+)==", LOCK, re.MULTILINE))
    assert names <= locked, "make image/requirements.txt anew; its head says how"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    root = tmp_path_factory.mktemp("image")
    Replay(root, ROOT, sys.executable).run(STAGES["build"])
    return root


def run(image, *words, **environment):
    entry = STAGES["gateway"].steps[-2]
    program = Path(entry.words()[0])
    return subprocess.run(
        [image / program.relative_to("/"), *words],
        cwd=image,
        env={"PATH": os.defpath} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_entry_point_starts(image):
    done = run(image, "version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "attest-gateway")


def test_serve_without_settings_is_a_configuration_error(image):
    done = run(image, "serve")
    assert done.returncode == 4
    assert "signer: Field required" in done.stderr


def test_image_has_neither_engine_nor_trainer(image):
    packages = image.glob("opt/attest/lib/python*/site-packages/*")
    assert not {p.name for p in packages} & {"torch", "vllm", "transformers", "pip"}


def test_image_puts_the_plugin_beside_a_stock_engine(image, tmp_path, monkeypatch):
    done = run(image, "plugin", "install", tmp_path / "plugin")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "path", [str(tmp_path / "plugin")])
    found = Inventory().entry_points
    assert [e["name"] for e in found["vllm.general_plugins"]] == ["attested"]
    assert [e["name"] for e in found["vllm.endpoint_plugins"]] == ["attested_evidence"]


def test_build_context_holds_what_is_copied():
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source.split("/")[0]
        for step in STAGES["build"].steps
        if step.name == "COPY"
        for source in step.text.split()[:-1]
    }
    assert copied == allowed


def test_sbom_lists_the_lock(image, tool, tmp_path):
    output = tmp_path / "sbom.json"
    python = image / "opt" / "attest" / "bin" / "python"
    command = [tool("cyclonedx-py"), "environment", "--output-file", output, python]
    subprocess.run(command, check=True, capture_output=True)
    found = {c["purl"] for c in json.loads(output.read_text())["components"]}
    locked = re.findall(r"^([\w-]+)==(\S+)", LOCK, re.MULTILINE)
    assert {f"pkg:pypi/{name}@{version}" for name, version in locked} <= found
