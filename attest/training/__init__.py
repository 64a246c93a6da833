"""Governed training: what a constitution asks, what a run did, what can be proven.

`constitution`, `routing` and `ledger` need no torch, so that a verifier can read what
training left behind. Everything else here imports torch and transformers.
"""
