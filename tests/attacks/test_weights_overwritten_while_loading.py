"""The file is exchanged between the hash and the load.

safetensors maps files: a tensor that was handed out changes when the file is written
to. Hashing the file, or even the mapped tensor, and loading from it later is a race.
"""

import hashlib

import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from gateway.engine.vllm_plugin.measure import measured  # noqa: E402


def test_what_was_hashed_is_what_is_loaded(tmp_path):
    path = tmp_path / "model.safetensors"
    good = torch.arange(4096, dtype=torch.float32)
    save_file({"w": good}, path)
    with safe_open(path, framework="pt") as file:
        mapped = file.get_tensor("w")
        [item] = measured([("w", mapped)])
        data = bytearray(path.read_bytes())
        data[-good.nbytes :] = bytes(good.nbytes)
        with path.open("r+b") as target:
            target.write(data)
        # The attack is real: this is what the engine would have been given.
        assert not torch.equal(mapped, good)
        assert torch.equal(item.copy, good)
    assert item.tensor.sha256 == hashlib.sha256(good.numpy().tobytes()).hexdigest()
