import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from attest.cli.main import app
from attest.errors import TrainingError
from attest.hashing import hash_tensors, scan_model
from attest.keys import PrivateKey
from attest.manifest import open_manifest
from attest.signers.file import write_private_key
from attest.training.merge import merge_adapter, merged_root
from attest.training.weights import cast, load_model
from attest.weights import tensor_root

MANIFEST = "training-manifest.json"


def root(directory):
    return tensor_root(hash_tensors(scan_model(directory)))


@pytest.fixture(scope="module")
def base(pristine_tiny):
    return pristine_tiny


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter whose matrices are not zero."""
    out = tmp_path_factory.mktemp("lora") / "adapter"
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    get_peft_model(load_model(base), config).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def merged(base, adapter, tmp_path_factory):
    return merge_adapter(base, adapter, tmp_path_factory.mktemp("merged") / "model")


def test_merge_changes_the_model_and_gives_the_same_bits_again(base, adapter, merged):
    assert root(merged) != root(base)
    assert merged_root(base, adapter) == root(merged)


def test_what_is_no_adapter(base):
    with pytest.raises(TrainingError, match="merge"):
        merged_root(base, base)


@pytest.fixture
def attest():
    def run(*arguments):
        return CliRunner().invoke(app, [str(item) for item in arguments])

    return run


@pytest.fixture
def world(tmp_path, attest, base, adapter, merged):
    """Manifests of base and adapter; the adapter's says where it was absorbed."""
    key = PrivateKey.generate()
    write_private_key(tmp_path / "key.pem", key)
    for name, source in {"base": base, "adapter": adapter, "merged": merged}.items():
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "run").mkdir()
    profile = {
        "method": "lca-trapezoid/1",
        "layers": ["0.5", "0.5"],
        "residual": "0.01",
        "valid": True,
    }
    account = {
        "model": {"name": "adapter", "version": "1"},
        "principles": [{"id": "refuse", "profile": profile}],
    }
    (tmp_path / "run" / "training.json").write_text(json.dumps(account))
    sign = ("--key", tmp_path / "key.pem")
    named = ("--name", "base", "--version", "1")
    result = attest("manifest", "sign", tmp_path / "base", *sign, *named)
    assert result.exit_code == 0, result.output
    origin = tmp_path / "base" / MANIFEST
    options = ("--rel", "adapter-of", "--run", tmp_path / "run", "--dtype", "float32")
    result = attest("manifest", "derive", origin, tmp_path / "adapter", *sign, *options)
    assert result.exit_code == 0, result.output
    return tmp_path, key, profile


def merge_signed(attest, world, model, **given):
    folder, key, _ = world
    paths = {"base": folder / "base", "adapter": folder / "adapter", **given}
    options = [word for name, path in paths.items() for word in (f"--{name}", path)]
    result = attest(
        *("manifest", "derive", folder / "adapter" / MANIFEST, model),
        *("--key", folder / "key.pem", "--rel", "merged-from", *options),
    )
    if result.exit_code:
        return result, None
    envelope = (model / MANIFEST).read_bytes()
    return result, open_manifest(envelope, [key.public])


def test_merge_that_can_be_made_again_keeps_the_profile(attest, world):
    folder, _, profile = world
    result, manifest = merge_signed(attest, world, folder / "merged")
    assert result.exit_code == 0, result.output
    [refuse] = manifest.predicate["principles"]
    assert refuse["profile"] == {**profile, "carried": True}
    (folder / "key.pub.pem").write_bytes(world[1].public.pem)
    chain = [folder / name / MANIFEST for name in ("adapter", "base")]
    links = [word for path in chain for word in ("--chain", path)]
    trusted = ("--authority", folder / "key.pub.pem")
    path = folder / "merged" / MANIFEST
    assert attest("manifest", "verify", path, *trusted, *links).exit_code == 0


def test_merge_in_another_dtype_does_not(attest, world):
    folder, *_ = world
    half = cast(folder / "merged", folder / "half")
    result, manifest = merge_signed(attest, world, half)
    assert result.exit_code == 0, result.output
    assert "other tensors, so the profile is not carried" in result.output
    [refuse] = manifest.predicate["principles"]
    assert refuse["profile"] == {"of": "parent", "manifest": manifest.parent}


def test_merge_into_another_base_is_refused(attest, world):
    folder, *_ = world
    result, _ = merge_signed(attest, world, folder / "merged", base=folder / "merged")
    assert result.exit_code == 1
    assert "to which the adapter belongs" in result.output


def test_merge_of_another_adapter_is_refused(attest, world):
    folder, *_ = world
    other = shutil.copytree(folder / "adapter", folder / "other")
    (other / "adapter_config.json").write_text("{}")
    result, _ = merge_signed(attest, world, folder / "merged", adapter=other)
    assert result.exit_code == 1
    assert "changed: adapter_config.json" in result.output
