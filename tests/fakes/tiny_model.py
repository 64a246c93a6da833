"""A Llama small enough to build in a test, real enough for vLLM to serve.

Written without torch and transformers, whose import alone takes several seconds.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

__all__ = ["byte_alphabet", "make_tiny_llama"]

# vLLM's CPU attention knows head sizes from 32 on; with 16 it starts, says that it is
# healthy, and dies at the first request.
HEAD_DIM, HEADS, LAYERS, INTERMEDIATE = 32, 2, 2, 128
HIDDEN = HEAD_DIM * HEADS
SPECIAL = ["<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"]
VOCABULARY = 256 + len(SPECIAL)
CONTEXT = 1024

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": VOCABULARY,
}


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b if b in printable else next(spare)) for b in range(256)]


def _tokenizer() -> dict[str, object]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 256 + i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"trim_offsets": True},
        "post_processor": None,
        "decoder": byte_level | {"trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {char: byte for byte, char in enumerate(byte_alphabet())},
            "merges": [],
        },
    }


def _weights(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 0.1) -> np.ndarray:
        return random.normal(0, scale, (rows, columns)).astype(np.float32)

    ones = np.ones(HIDDEN, dtype=np.float32)
    weights = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            weights[f"{prefix}self_attn.{name}_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[f"{prefix}mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[f"{prefix}mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[f"{prefix}mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
        weights[f"{prefix}input_layernorm.weight"] = ones
        weights[f"{prefix}post_attention_layernorm.weight"] = ones
    weights["model.norm.weight"] = ones
    # Wide logits for printable ASCII and zero for all else: greedy choices stand far
    # apart, so that rounding does not decide them, and the text is readable.
    head = matrix(VOCABULARY, HIDDEN, 0.3)
    head[:32] = head[127:] = 0
    weights["lm_head.weight"] = head
    return weights


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def make_tiny_llama(directory: Path, *, seed: int = 0) -> Path:
    """Write a whole model directory: the same bytes for the same seed, always.

    Half a megabyte of float32 weights in one shard, one token per byte, a chat
    template, 1024 tokens of context. Returns the directory, which is made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", CONFIG)
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": 256, "eos_token_id": 257},
    )
    _write_json(directory / "tokenizer.json", _tokenizer())
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|bos|>",
            "eos_token": "<|eos|>",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    save_file(
        _weights(seed), directory / "model.safetensors", metadata={"format": "pt"}
    )
    return directory
