"""Where in its depth a model took up each principle, as measured while it trained.

`values`, `entry`, `measured` and `heatmap` need no torch, so that a verifier can read,
check and draw a profile. `lca`, `patching` and `diagnose` measure and import torch.
"""
