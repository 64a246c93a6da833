"""Where attestations are kept: tokens and digests, never a request or an answer."""
