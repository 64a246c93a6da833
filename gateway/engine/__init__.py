"""The model server behind the gateway: the managed child and its plug-in."""
