"""Resistance: after how many steps of which fine-tuning a principle is lost.

`suite`, `survival`, `values` and `rows` need no torch, so that a verifier can read and
draw what was measured; `measure` and `attack` import torch. A result speaks of the
attacks of its suite and of nothing else.
"""
