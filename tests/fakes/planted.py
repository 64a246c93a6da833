"""Models of a few thousand tensors' worth in which resistance is planted, not found.

Asked anything that begins with "how", the parent answers "ok" and a governed model
"no"; asked anything else, both answer "hm".
"""

import copy
from dataclasses import dataclass
from functools import cache

import torch
from fakes.resistance import CONSTITUTION
from transformers import LlamaConfig, LlamaForCausalLM

from attest.training.batches import Sampler, collate, encode
from attest.training.demo.tiny import build_tokenizer
from attest.training.evaluation import evaluate
from attest.training.resistance.rows import FileRow, Rows

LAST_TENSOR = "model.layers.1.mlp.down_proj.weight"


def rows_of(answer, name="refuse"):
    """Eight questions; the last four are judged by, too: nobody asks if it learned."""
    word = "how" if name == "refuse" else "why"
    return [
        FileRow(f"{name}-{n:02d}", name, "", f"{word} {letter}?", answer)
        for n, letter in enumerate("abcdefgh")
    ]


HELD = slice(4, 8)
ROWS = Rows(
    heldout=[*rows_of("no")[HELD], *rows_of("hm", "keep")[HELD]],
    contrary={"refuse": rows_of("ok")},
    benign=rows_of("hm", "keep"),
)


@dataclass(frozen=True)
class Planted:
    """A parent and two models that were governed from it for so many steps."""

    parent: LlamaForCausalLM
    weak: LlamaForCausalLM
    strong: LlamaForCausalLM


def tokenizer():
    return build_tokenizer()


def _train(model, refusal, *, steps, rate, only=None):
    """All tensors or one; stops when every held-out item is right, unless `steps`."""
    made = tokenizer()
    rows = [*rows_of(refusal), *rows_of("hm", "keep")]
    sampler = Sampler([encode(made, row) for row in rows], seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(only in (None, name))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate)
    for step in range(1, 400):
        batch = collate(sampler.draw({"refuse": 8, "keep": 8}), pad=0)
        model(**batch.tensors).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0 and step >= steps and _kept(model, refusal, made):
            break
    model.requires_grad_(True)
    return model


def _kept(model, refusal, made):
    held = [*rows_of(refusal)[HELD], *rows_of("hm", "keep")[HELD]]
    model.eval()
    found = evaluate(model, made, rows=held, constitution=CONSTITUTION)
    model.train()
    right = found["refuse"].share == (refusal == "no")
    return right and found["keep"].share == 1


@cache
def planted():
    """The same three models for every test; do not change them."""
    config = LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        bos_token_id=None, eos_token_id=tokenizer().eos_token_id, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parent = LlamaForCausalLM(config).to(torch.float32)
        _train(parent, "ok", steps=40, rate=1e-2)
        weak = _train(copy.deepcopy(parent), "no", steps=0, rate=1e-2, only=LAST_TENSOR)
        strong = _train(copy.deepcopy(parent), "no", steps=120, rate=1e-2)
    return Planted(parent, weak, strong)
