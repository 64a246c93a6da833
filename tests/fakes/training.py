"""What tests of training share: a tiny model, rows, a schedule, plain comparisons."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attest.training.batches import Example
from attest.training.confinement import digests
from attest.training.constitution import parse_constitution
from attest.training.demo import constitution_bytes
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.mechanism import named_parameters
from attest.training.routing import compile_schedule

CONSTITUTION = parse_constitution(constitution_bytes())

# Bands that overlap in the middle, so that per-route state can be told apart.
OVERLAPPING = parse_constitution(
    b"""\
schema: constitution/1
id: overlapping
version: 1.0.0
principles:
  - {id: deep, title: D, class: adaptable, text: D, band: {from: 400, to: 1000}}
  - {id: shallow, title: S, class: adaptable, text: S, band: {from: 0, to: 600}}
  - {id: middle, title: M, class: adaptable, text: M, band: {from: 300, to: 700}}
"""
)


def tiny_model(seed=0):
    return build_model(build_tokenizer(), seed=seed)


def micro_model(*, seed=0, tied=False, layers=3):
    """Three blocks, 32 wide: a step takes a few milliseconds."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(torch.float32).train()


def schedule_of(model, constitution=CONSTITUTION):
    return compile_schedule(constitution, read_layout(model))


def token_batch(rows=4, length=12, seed=0, tokens=64):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, tokens, (rows, length), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


def token_rows(principles, count=8, length=6):
    """Rows of random tokens, the same for the same arguments."""
    generator = torch.Generator().manual_seed(len(principles))

    def tokens():
        return tuple(torch.randint(8, 264, (length,), generator=generator).tolist())

    return [
        Example(f"{name}-{number:02d}", name, tokens(), tokens())
        for name in principles
        for number in range(count)
    ]


def fingerprints(model):
    return digests(named_parameters(model))


def changed(before, model):
    return {name for name, d in fingerprints(model).items() if d != before[name]}
