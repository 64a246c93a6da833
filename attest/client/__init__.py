"""Clients that hand on no answer that is not proven.

    authority = PublicKey.from_bytes(Path("authority.pub.pem").read_bytes())
    policy = Policy(authorities=(authority,))
    client = openai_client("http://127.0.0.1:8000/v1", policy)

    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.chat.completions.create(model="m", messages=question)

`client` is an ordinary `openai.OpenAI`. An answer that is not proven raises an
`AttestError`: a `VerificationError` is a definite no, an `EvidenceUnavailableError`
means that nobody can tell. A stream raises before its loop ends, so read it to the end.
Give `on_evidence=` to keep what proves each answer: `bundle.dumps()` goes to a file.

`buffered=True` hands on nothing of a stream before the whole is proven, for whoever
acts on parts of an answer.

LangChain and LlamaIndex make their own `openai.OpenAI` and take its HTTP client:
`openai_http_client(policy)`; LiteLLM takes the `openai_client` itself (docs/verify.md).
Other SDKs: `httpx2.Client(transport=AttestTransport(policy))` with the transport of
`attest.client.httpx2`, or of `attest.client.httpx` for those on httpx.
"""

from attest.client.openai import (
    async_openai_client,
    async_openai_http_client,
    openai_client,
    openai_http_client,
)

__all__ = [
    "async_openai_client",
    "async_openai_http_client",
    "openai_client",
    "openai_http_client",
]
