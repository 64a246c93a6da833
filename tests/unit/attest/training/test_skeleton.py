import json
import socket

import pytest
import torch
from transformers import logging

from attest.errors import ConfigurationError
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import LayoutError, read_layout
from attest.training.skeleton import build_skeleton

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture
def build(tmp_path):
    def run(config):
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
        return build_skeleton(tmp_path)

    return run


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        pytest.fail("went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_same_layout_as_the_trained_model(tmp_path):
    model = build_model(build_tokenizer(), seed=0)
    model.config.save_pretrained(tmp_path)
    assert read_layout(build_skeleton(tmp_path)) == read_layout(model)


def test_takes_no_memory(build):
    model = build({**LLAMA, "hidden_size": 2**14, "vocab_size": 2**17})
    assert all(parameter.is_meta for parameter in model.parameters())


def test_default_device_and_dtype_and_logging_stay(build):
    before = (torch.get_default_device(), torch.get_default_dtype())
    verbosity = logging.get_verbosity()
    build(LLAMA)
    assert (torch.get_default_device(), torch.get_default_dtype()) == before
    assert logging.get_verbosity() == verbosity


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "more",
    [
        {"auto_map": {"AutoModelForCausalLM": "someone/else--code.Model"}},
        {"attn_implementation": "someone/kernels"},
        {"_attn_implementation": "flash_attention_2"},
        {"quantization_config": {"quant_method": "fp8"}},
        {"architectures": None},
        {"architectures": []},
        {"architectures": ["os"]},
        {"architectures": ["LlamaConfig"]},
        {"architectures": [3]},
        {"dtype": "float16"},
    ],
    ids=str,
)
def test_how_a_model_is_run_does_not_count(build, more):
    assert read_layout(build({**LLAMA, **more})) == read_layout(build(LLAMA))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "of-the-future"},
        {"model_type": None},
        {"model_type": ["llama"]},
        {"model_type": "clip"},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "2"},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"hidden_size": 0},
        {"hidden_size": "wide"},
        {"num_attention_heads": 3},
    ],
    ids=str,
)
def test_config_that_builds_no_decoder(build, change):
    with pytest.raises(LayoutError):
        read_layout(build({**LLAMA, **change}))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1, "a": 2}', " " * 1024 * 1024 + "{}"]
)
def test_config_that_is_no_object(build, text):
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        build(text)


def test_no_config(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        build_skeleton(tmp_path)
    assert "model directory" in caught.value.hint
