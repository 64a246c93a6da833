"""The `attest` command: one file per noun, `main.py` finds them by name."""
