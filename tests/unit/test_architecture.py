"""The shape of the tree: directions, sizes, public names, what imports load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for package in ("attest", "gateway")
    for path in (ROOT / package).rglob("*.py")
    if "__pycache__" not in path.parts
)
CEILING_LINES = 450
HEAVY = {"torch", "transformers", "vllm", "fastapi", "httpx", "httpx2", "gateway"}


def name(path):
    return str(path.relative_to(ROOT))


def loaded_by(statement):
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = (
        f"{statement}; import sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def imports(path):
    """Every module that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("module", ["attest", "attest.verify", "attest.cli.main"])
def test_verifier_loads_nothing_heavy(module):
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_verifier_loads_only_later_what_not_every_use_of_it_needs():
    """A quarter of its import: PyJWT, and the reasons why a copy differs."""
    code = (
        "import attest.verify, sys; print({'jwt', 'attest.diagnosis'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_only_training_imports_torch():
    users = {
        name(path)
        for path in MODULES
        if any(m.partition(".")[0] in {"torch", "transformers"} for m in imports(path))
    }
    outside = {user for user in users if not user.startswith("attest/training/")}
    # The plug-in lives inside the engine; the demo sets the number of threads.
    assert all(
        user.startswith("gateway/engine/vllm_plugin/") or user == "gateway/demo/flow.py"
        for user in outside
    ), outside


def test_only_the_plugin_imports_vllm():
    users = [
        path
        for path in MODULES
        if any(m.split(".")[0] == "vllm" for m in imports(path))
    ]
    assert users
    assert all(name(p).startswith("gateway/engine/vllm_plugin/") for p in users)


def test_library_never_imports_the_gateway():
    for path in MODULES:
        if name(path).startswith("attest/"):
            assert not any(m.split(".")[0] == "gateway" for m in imports(path)), path


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_file_fits_a_reader(path):
    assert len(path.read_text().splitlines()) <= CEILING_LINES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_names_exist_once(path):
    tree = ast.parse(path.read_bytes())
    assigned = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if not assigned:
        return
    names = ast.literal_eval(assigned[0])
    assert len(set(names)) == len(names)
    # Their order is kept by ruff (RUF022).
    defined = (
        {
            target.id
            for node in ast.walk(tree)
            for target in ast.walk(node)
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        }
        | {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        | {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
    )
    assert set(names) <= defined
