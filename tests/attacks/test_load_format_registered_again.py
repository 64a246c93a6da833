"""A package registers the load format `attested` again, after us or in our place.

vLLM only warns of a second registration. VLLM_PLUGINS keeps other names out, but it
goes by the name alone: a package that takes one of ours, in whichever group, is run.
So the gateway looks at who provides what.
"""

import sys

import pytest
from fakes.engine_environment import plain_spec, result_of
from fakes.routed_engine import honest_evidence

from gateway.engine.spec import child_environment
from gateway.errors import StartupRefusedError
from gateway.serving import check_evidence

OTHERS = """
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

def register():
    @register_model_loader("attested")
    class Loader(DefaultModelLoader): ...
"""
# Last on the path, so that it registers after us.
LOAD = """
import json, sys
sys.path.append(sys.argv[1])
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER as loaders
from gateway.engine.vllm_plugin.inventory import Inventory
print("RESULT", json.dumps([loaders["attested"].__module__, Inventory().entry_points]))
"""


def install(folder, *points):
    """A package that declares these entry points."""
    metadata = folder / "harmless-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "harmless.py").write_text(OTHERS)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n{name} = harmless:register" for group, name in points)
    )


@pytest.mark.engine
@pytest.mark.parametrize("name", ["attested", "attested_evidence", "another"])
def test_package_in_the_engines_environment(tmp_path, world, name):
    """Real vLLM: whose loader it then has, and what the gateway makes of that."""
    install(tmp_path / "packages", ("vllm.general_plugins", name))
    spec = plain_spec(tmp_path)
    environment = child_environment(spec, sys.executable, cpu=True, parent={})
    loader, points = result_of(LOAD, tmp_path / "packages", environment=environment)
    evidence = honest_evidence(world.manifest) | {"entry_points": points, "nonce": "n"}
    if name == "another":  # VLLM_PLUGINS kept it out
        assert loader == "gateway.engine.vllm_plugin.loader"
        check_evidence(world.manifest, evidence, nonce="n", dtype="float32")
        return
    assert loader == "harmless"
    with pytest.raises(StartupRefusedError, match=r"provide attested.*harmless"):
        check_evidence(world.manifest, evidence, nonce="n", dtype="float32")


OURS = {
    "vllm.general_plugins": [{"name": "attested", "dist": "attest-gateway"}],
    "vllm.endpoint_plugins": [{"name": "attested_evidence", "dist": "attest-gateway"}],
}


@pytest.mark.parametrize("name", ["attested", "attested_evidence"])
@pytest.mark.parametrize(
    "group", ["general", "endpoint", "platform", "io_processor", "stat_logger", "new"]
)
def test_name_of_ours_in_any_group(world, group, name):
    points = {key: list(items) for key, items in OURS.items()}
    taken = {"name": name, "dist": "harmless"}
    points.setdefault(f"vllm.{group}_plugins", []).append(taken)
    evidence = honest_evidence(world.manifest) | {"entry_points": points, "nonce": "n"}
    with pytest.raises(StartupRefusedError, match=r"provide attested.*harmless"):
        check_evidence(world.manifest, evidence, nonce="n", dtype="float32")


def test_in_our_place(world):
    """One provides the loader, another the report about it."""
    points = OURS | {"vllm.general_plugins": [{"name": "attested", "dist": "harmless"}]}
    evidence = honest_evidence(world.manifest) | {"entry_points": points, "nonce": "n"}
    with pytest.raises(StartupRefusedError, match=r"provide attested.*harmless"):
        check_evidence(world.manifest, evidence, nonce="n", dtype="float32")


def test_nobody_else(world):
    evidence = honest_evidence(world.manifest) | {"entry_points": OURS, "nonce": "n"}
    check_evidence(world.manifest, evidence, nonce="n", dtype="float32")
