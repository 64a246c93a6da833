"""Encoders small enough to build in a test, real enough for vLLM to serve.

Their weights are random: what they embed and score means nothing, and is the same for
the same text.
"""

import string

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)

__all__ = ["make_tiny_embedder", "make_tiny_ranker"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def _make(directory, kind, *, seed, **options):
    vocabulary = [*_SPECIAL, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    tokenizer = BertTokenizerFast(
        vocab={text: index for index, text in enumerate(vocabulary)}
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_tiny_embedder(directory, *, seed=0):
    """Write a whole model directory of one that embeds; returns it."""
    return _make(directory, BertModel, seed=seed)


def make_tiny_ranker(directory, *, seed=0):
    """Write a whole model directory of one that scores pairs of texts; returns it."""
    return _make(directory, BertForSequenceClassification, seed=seed, num_labels=1)
