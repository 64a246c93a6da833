"""A tiny Llama and a byte-level tokenizer that transformers and vLLM both load.

About 0.6 million parameters. Heads are 32 wide because vLLM's CPU attention takes no
narrower ones: with 20 it refuses to start, with 16 it dies at the first request.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from attest.training.weights import save_tensors

__all__ = ["MAX_TOKENS", "build_model", "build_tokenizer", "save"]

# What the model may be served with; training uses less than 80.
MAX_TOKENS = 512

_PAD, _SYSTEM, _USER, _ASSISTANT, _END = (
    "<|pad|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
# Three spares round the vocabulary up to a multiple of eight.
_SPECIALS = (_PAD, _SYSTEM, _USER, _ASSISTANT, _END, "<|0|>", "<|1|>", "<|2|>")

_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build_tokenizer() -> Any:
    """One token per byte, eight special tokens, and the chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: index for index, text in enumerate((*_SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        chat_template=_CHAT_TEMPLATE,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: Any, *, seed: int) -> Any:
    """A freshly initialised float32 model: the same for the same seed.

    The caller's random state is left as it was.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(torch.float32)


def save(model: Any, tokenizer: Any, directory: Path) -> None:
    """Write the model directory: weights, configuration, tokenizer, chat template.

    Raises:
        FileExistsError: the directory exists.
    """
    directory.mkdir(parents=True)
    save_tensors(directory, model.state_dict())
    model.config.save_pretrained(directory)
    # Without sampling defaults: an engine takes them for the caller's wish.
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
