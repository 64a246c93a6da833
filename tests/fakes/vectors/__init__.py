"""What `tests/vectors/make.py` writes: evidence, and what is expected of it.

Keys, salts, ids and times are fixed, so the files are the same whenever they are made.
"""
