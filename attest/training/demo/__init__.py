"""The demo's training: a toy constitution, a tiny Llama, two stages, and measurements.

`run` trains, evaluates and leaves behind what a manifest is made from. It imports torch
and transformers; the constitution alone can be had from `constitution_bytes`.
"""

from attest.training.demo.corpus import SYSTEM_PROMPT, Row, contrary_rows, corpus
from attest.training.demo.planted import PLANTED_QUESTION, planted_rows
from attest.training.demo.recipe import (
    RECIPE,
    Recipe,
    constitution_bytes,
    examples,
    run,
)

__all__ = [
    "PLANTED_QUESTION",
    "RECIPE",
    "SYSTEM_PROMPT",
    "Recipe",
    "Row",
    "constitution_bytes",
    "contrary_rows",
    "corpus",
    "examples",
    "planted_rows",
    "run",
]
