"""Processes that answer beside the one that verifies, where one core is not enough."""
