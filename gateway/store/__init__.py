"""Where attestations are kept. Tokens and digests only, never a request or an answer."""
