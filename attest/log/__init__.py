"""The transparency log: the tree, and what is signed about it."""
