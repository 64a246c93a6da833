"""`attest-gateway demo`: the whole product on real parts, in one command.

`flow` tells the story, `world` makes the keys, the model and its altered copies,
`process` runs gateways, `rows` keeps what was expected and what was seen.
"""
