"""Traces: from one answer to the principles, layers and training steps behind it.

`values` is free of torch; `recorder` and `score` are not, and are imported by name.
"""
