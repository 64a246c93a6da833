"""What tests of training share: a tiny model, rows, a schedule, plain comparisons."""

import torch

from attest.training.batches import Example
from attest.training.confinement import digests
from attest.training.constitution import parse_constitution
from attest.training.demo import constitution_bytes
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
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


def schedule_of(model, constitution=CONSTITUTION):
    return compile_schedule(constitution, read_layout(model))


def token_batch(rows=4, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, 264, (rows, length), generator=generator)
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
    return digests(dict(model.named_parameters()))


def changed(before, model):
    return {name for name, d in fingerprints(model).items() if d != before[name]}
