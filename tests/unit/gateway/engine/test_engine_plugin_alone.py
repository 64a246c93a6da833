"""The plug-in's folder is copied into stock vLLM images: it must stand alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.engine import vllm_plugin

FOLDER = Path(vllm_plugin.__file__).parent
# fastapi and pydantic are vLLM's own requirements.
PRESENT = {"fastapi", "pydantic", "torch", "vllm"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            if node.level == 0:
                yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_imports(path):
    assert set(imported(path)) <= sys.stdlib_module_names | PRESENT


def test_works_elsewhere(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "plugin")
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "import plugin, plugin.check, plugin.inventory, plugin.record, plugin.worker\n"
        "assert plugin.worker.AttestWorkerExtension().attest_report()['started'] == 0\n"
        "assert not {'attest', 'gateway', 'torch', 'vllm'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code, tmp_path], check=True)


def test_evidence_plugin_needs_no_engine_to_be_found():
    # vLLM reads all entry points before it decides; ours must not cost an import.
    code = (
        "import sys, gateway.engine.vllm_plugin\n"
        "assert not {'attest', 'fastapi', 'torch', 'vllm'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
