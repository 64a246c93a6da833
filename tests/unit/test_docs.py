"""The documentation is tested: what the code can do stands in it, and is current."""

import importlib.util
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import gateway.errors
from attest import errors
from attest.claims import SALTED, TOKENS
from attest.cli.exits import ExitCode
from attest.cli.main import NOUNS
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")
TEXT = README + REFERENCE


def load_generator():
    path = ROOT / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
COMMANDS = dict(GENERATOR.commands())


def test_reference_is_current():
    assert GENERATOR.reference() == REFERENCE, "run: python docs/generate.py"


@pytest.mark.parametrize("code", ExitCode)
def test_exit_code_is_documented(code):
    assert f"| {int(code)} | {code.meaning} |" in REFERENCE
    assert re.search(rf"\b{int(code)} [a-z]", README)


@pytest.mark.parametrize("name", [*errors.__all__, *gateway.errors.__all__])
def test_error_is_documented(name):
    assert re.search(rf"\b{name}\b", TEXT)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_documented(command):
    assert f"### {command}\n" in REFERENCE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command):
    options = COMMANDS[command].params
    assert not [item.name for item in options if not item.help]
    assert COMMANDS[command].help


@pytest.mark.parametrize(
    "claim", sorted({c.name for schema in [*TOKENS.values(), SALTED] for c in schema})
)
def test_claim_is_documented(claim):
    assert f"| `{claim}` |" in REFERENCE


def test_every_command_that_the_readme_types_exists():
    typed = re.findall(r"^attest ([a-z]+)(?: ([a-z]+))?", README, re.MULTILINE)
    assert typed
    for noun, verb in typed:
        assert noun in NOUNS
        assert {f"attest {noun}", f"attest {noun} {verb}"} & COMMANDS.keys()


def test_every_setting_stands_in_the_readme():
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for inner in kind.model_fields:
                assert f"`{name}.{inner}`" in README, f"{name}.{inner}"
        else:
            assert f"`{name}`" in README, name
