"""An installed package with a logits processor rewrites every token.

vLLM loads the group `vllm.logits_processors` whatever VLLM_PLUGINS says, and no digest
of its configuration shows it. So the inventory must, and a package that is not
installed in the engine's own environment must not get in.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.engine_environment import plain_spec

from gateway.engine.spec import EngineSpec, child_environment, command_line
from gateway.engine.vllm_plugin.inventory import Inventory

GROUP = "vllm.logits_processors"
LIST = (
    "import json; from gateway.engine.vllm_plugin.inventory import Inventory;"
    "print(json.dumps(Inventory().entry_points))"
)


@pytest.fixture
def package(tmp_path):
    """A folder with an installed distribution named `harmless`."""
    folder = tmp_path / "packages"
    metadata = folder / "harmless-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "harmless.py").write_text("class Processor: ...\n")
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        f"[{GROUP}]\nforce = harmless:Processor\n"
    )
    return folder


def test_installed_package_is_in_the_evidence(package, monkeypatch):
    assert GROUP not in Inventory().entry_points
    monkeypatch.syspath_prepend(package)
    assert Inventory().entry_points[GROUP] == [
        {
            "name": "force",
            "value": "harmless:Processor",
            "dist": "harmless",
            "version": "1.0",
        }
    ]


def listed(command, **options):
    done = subprocess.run(command, capture_output=True, check=True, **options)
    return json.loads(done.stdout)


def test_python_path_and_current_folder_do_not_get_it_in(package, tmp_path):
    hostile = {"PYTHONPATH": str(package)}
    # It would work on an ordinary interpreter.
    assert GROUP in listed([sys.executable, "-c", LIST], env=hostile)
    spec = EngineSpec(
        python=sys.executable,
        model_dir=tmp_path,
        served_model_name="m",
        run_dir=tmp_path,
        reference=b"{}",
        dtype="float32",
    )
    environment = child_environment(spec, sys.executable, cpu=True, parent=hostile)
    isolated = command_line(spec, sys.executable, cpu=True)[:2]
    assert GROUP not in listed([*isolated, "-c", LIST], env=environment, cwd=package)
    # vLLM starts further interpreters without -I: the variables hold them.
    assert GROUP not in listed(
        [sys.executable, "-c", LIST], env=environment, cwd=package
    )


def test_user_packages_do_not_get_it_in(package, tmp_path):
    spec = plain_spec(tmp_path)
    environment = child_environment(spec, sys.executable, cpu=True, parent={})
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user = Path(environment["HOME"], ".local", "lib", version, "site-packages")
    user.parent.mkdir(parents=True)
    user.symlink_to(package)
    assert GROUP not in listed([sys.executable, "-c", LIST], env=environment)
